"""Convolutional networks of other kinds: dense, shuffled, split, grouped, modern, mixed with attention, detecting."""

import torch
from torch import nn
from torch.nn import functional

from .blocks import ConvNorm, PreNormBlock
from .vision import SqueezeExcite


class ChannelNorm(nn.LayerNorm):
    """A layer norm over the channels of [n, c, h, w]."""

    def forward(self, x):
        return super().forward(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)


class ConvNextBlock(nn.Module):
    def __init__(self, width):
        super().__init__()
        self.spread = nn.Conv2d(width, width, 7, padding=3, groups=width)
        self.norm, self.widen, self.narrow = (
            nn.LayerNorm(width),
            nn.Linear(width, 4 * width),
            nn.Linear(4 * width, width),
        )
        self.scale = nn.Parameter(torch.rand(width) * 0.5)

    def forward(self, x):
        y = self.norm(self.spread(x).permute(0, 2, 3, 1))
        return x + (self.scale * self.narrow(functional.gelu(self.widen(y)))).permute(0, 3, 1, 2)


class ConvNext(nn.Module):
    def __init__(self, widths=(24, 48, 96), depths=(2, 2, 3), classes=50):
        super().__init__()
        parts, inputs = [nn.Conv2d(3, widths[0], 4, 4), ChannelNorm(widths[0], 1e-6)], widths[0]
        for width, depth in zip(widths, depths, strict=True):
            if width != inputs:
                parts += [ChannelNorm(inputs, 1e-6), nn.Conv2d(inputs, width, 2, 2)]
            parts += [ConvNextBlock(width) for _ in range(depth)]
            inputs = width
        self.parts, self.norm, self.head = nn.Sequential(*parts), nn.LayerNorm(inputs, 1e-6), nn.Linear(inputs, classes)

    def forward(self, x):
        return self.head(self.norm(self.parts(x).mean([-2, -1])))


class DenseLayer(nn.Module):
    """Norm, relu, conv, twice; what comes out is put behind what went in."""

    def __init__(self, inputs, growth):
        super().__init__()
        self.parts = nn.Sequential(
            nn.BatchNorm2d(inputs), nn.ReLU(), nn.Conv2d(inputs, 4 * growth, 1, bias=False),
            nn.BatchNorm2d(4 * growth), nn.ReLU(), nn.Conv2d(4 * growth, growth, 3, padding=1, bias=False),
        )  # fmt: skip

    def forward(self, x):
        return torch.cat([x, self.parts(x)], 1)


class DenseNet(nn.Module):
    def __init__(self, growth=12, depths=(3, 4, 3), classes=50):
        super().__init__()
        width = 2 * growth
        parts = [ConvNorm(3, width, 7, 2), nn.MaxPool2d(3, 2, 1)]
        for i, depth in enumerate(depths):
            if i:
                parts += [
                    nn.BatchNorm2d(width),
                    nn.ReLU(),
                    nn.Conv2d(width, width // 2, 1, bias=False),
                    nn.AvgPool2d(2),
                ]
                width //= 2
            for _ in range(depth):
                parts.append(DenseLayer(width, growth))
                width += growth
        self.parts, self.norm, self.head = nn.Sequential(*parts), nn.BatchNorm2d(width), nn.Linear(width, classes)

    def forward(self, x):
        x = functional.relu(self.norm(self.parts(x)))
        return self.head(torch.flatten(functional.adaptive_avg_pool2d(x, (1, 1)), 1))


class ShuffleUnit(nn.Module):
    """Half of the channels pass, or both halves are narrowed; then the halves are interleaved."""

    def __init__(self, inputs, outputs, stride):
        super().__init__()
        half, self.stride = outputs // 2, stride
        self.side = nn.Sequential(ConvNorm(inputs, inputs, 3, stride, inputs, None), ConvNorm(inputs, half, 1))
        self.main = nn.Sequential(
            ConvNorm(inputs if stride > 1 else half, half, 1), ConvNorm(half, half, 3, stride, half, None),
            ConvNorm(half, half, 1),
        )  # fmt: skip

    def forward(self, x):
        if self.stride == 1:
            kept, x = x.chunk(2, 1)
            x = torch.cat([kept, self.main(x)], 1)
        else:
            x = torch.cat([self.side(x), self.main(x)], 1)
        n, c, h, w = x.shape
        return x.view(n, 2, c // 2, h, w).transpose(1, 2).reshape(n, c, h, w)


class ShuffleNet(nn.Module):
    def __init__(self, widths=(32, 64, 128), classes=50):
        super().__init__()
        parts, inputs = [ConvNorm(3, 16, 3, 2), nn.MaxPool2d(3, 2, 1)], 16
        for width in widths:
            parts += [ShuffleUnit(inputs, width, 2), ShuffleUnit(width, width, 1), ShuffleUnit(width, width, 1)]
            inputs = width
        self.parts, self.head = nn.Sequential(*parts, ConvNorm(inputs, 128, 1)), nn.Linear(128, classes)

    def forward(self, x):
        return self.head(self.parts(x).mean([2, 3]))


class InceptionBlock(nn.Module):
    """1x1, 3x3, two 3x3 as 1x7 and 7x1, and pooled, beside each other."""

    def __init__(self, inputs, width):
        super().__init__()
        self.one, self.three = (
            ConvNorm(inputs, width, 1),
            nn.Sequential(ConvNorm(inputs, width, 1), ConvNorm(width, width)),
        )
        self.seven = nn.Sequential(
            ConvNorm(inputs, width, 1), nn.Conv2d(width, width, (1, 7), padding=(0, 3)), nn.ReLU(),
            nn.Conv2d(width, width, (7, 1), padding=(3, 0)), nn.ReLU(),
        )  # fmt: skip
        self.pooled = nn.Sequential(nn.AvgPool2d(3, 1, 1, count_include_pad=False), ConvNorm(inputs, width, 1))

    def forward(self, x):
        return torch.cat([self.one(x), self.three(x), self.seven(x), self.pooled(x)], 1)


class Inception(nn.Module):
    def __init__(self, width=16, classes=50):
        super().__init__()
        self.parts = nn.Sequential(
            ConvNorm(3, 24, 3, 2), InceptionBlock(24, width), nn.MaxPool2d(3, 2, ceil_mode=True),
            InceptionBlock(4 * width, 2 * width), nn.MaxPool2d(3, 2, ceil_mode=True),
            InceptionBlock(8 * width, 2 * width),
        )  # fmt: skip
        self.head = nn.Conv2d(8 * width, classes, 1)

    def forward(self, x):
        return functional.adaptive_avg_pool2d(self.head(self.parts(x)), 1).flatten(1)


class RegNetBlock(nn.Module):
    """Grouped 3x3 between two 1x1, squeeze and excite."""

    def __init__(self, inputs, outputs, stride, group):
        super().__init__()
        self.parts = nn.Sequential(
            ConvNorm(inputs, outputs, 1), ConvNorm(outputs, outputs, 3, stride, outputs // group),
            SqueezeExcite(outputs, outputs // 4), ConvNorm(outputs, outputs, 1, act=None),
        )  # fmt: skip
        same = inputs == outputs and stride == 1
        self.shortcut = nn.Identity() if same else ConvNorm(inputs, outputs, 1, stride, act=None)

    def forward(self, x):
        return functional.relu(self.parts(x) + self.shortcut(x))


class RegNet(nn.Module):
    def __init__(self, widths=(24, 56, 152), group=8, classes=50):
        super().__init__()
        parts, inputs = [ConvNorm(3, 32, 3, 2)], 32
        for width in widths:
            parts += [RegNetBlock(inputs, width, 2, group), RegNetBlock(width, width, 1, group)]
            inputs = width
        self.parts, self.head = nn.Sequential(*parts), nn.Linear(inputs, classes)

    def forward(self, x):
        return self.head(self.parts(x).mean((2, 3)))


class MobileViT(nn.Module):
    """Convolutions around transformers over patches of 2x2: each pixel of a patch attends to its like."""

    def __init__(self, width=48, depth=2, classes=50):
        super().__init__()
        self.stem = nn.Sequential(ConvNorm(3, 24, 3, 2, act=nn.SiLU), ConvNorm(24, 24, 3, 2, 24, nn.SiLU))
        self.local, self.enter = ConvNorm(24, 24, act=nn.SiLU), nn.Conv2d(24, width, 1, bias=False)
        self.blocks, self.norm = (
            nn.ModuleList(PreNormBlock(width, 4, act=nn.SiLU) for _ in range(depth)),
            nn.LayerNorm(width),
        )
        self.leave, self.join = ConvNorm(width, 24, 1, act=nn.SiLU), ConvNorm(48, 24, act=nn.SiLU)
        self.head = nn.Linear(24, classes)

    def forward(self, x):
        before = self.stem(x)
        x = self.enter(self.local(before))
        n, c, h, w = x.shape
        x = x.reshape(n * c * h // 2, 2, w // 2, 2).transpose(1, 2).reshape(n, c, h * w // 4, 4)
        x = x.transpose(1, 3).reshape(n * 4, h * w // 4, c)
        for block in self.blocks:
            x = block(x)
        x = self.norm(x).view(n, 4, h * w // 4, c).transpose(1, 3)
        x = x.reshape(n * c * h // 2, w // 2, 2, 2).transpose(1, 2).reshape(n, c, h, w)
        x = self.join(torch.cat([before, self.leave(x)], 1))
        return self.head(x.mean((2, 3)))


class CrossStage(nn.Module):
    """YOLO's: half of the channels through residual blocks, all of them joined."""

    def __init__(self, inputs, outputs, depth=2):
        super().__init__()
        half = outputs // 2
        self.enter, self.leave = (
            ConvNorm(inputs, outputs, 1, act=nn.SiLU),
            ConvNorm((2 + depth) * half, outputs, 1, act=nn.SiLU),
        )
        self.blocks = nn.ModuleList(
            nn.Sequential(ConvNorm(half, half, act=nn.SiLU), ConvNorm(half, half, act=nn.SiLU)) for _ in range(depth)
        )

    def forward(self, x):
        made = list(self.enter(x).split(self.enter[0].out_channels // 2, 1))
        for block in self.blocks:
            made.append(made[-1] + block(made[-1]))
        return self.leave(torch.cat(made, 1))


class Detector(nn.Module):
    """A small YOLO: pooling pyramid, two scales, boxes from distributions of distances.

    x [n, 3, h, w] -> boxes [n, 4, anchors], corners in pixels, and scores [n, classes, anchors].
    """

    BINS = 8

    def __init__(self, classes=6):
        super().__init__()
        self.early = nn.Sequential(
            ConvNorm(3, 16, 3, 2, act=nn.SiLU), ConvNorm(16, 32, 3, 2, act=nn.SiLU), CrossStage(32, 32)
        )
        self.late = nn.Sequential(ConvNorm(32, 64, 3, 2, act=nn.SiLU), CrossStage(64, 64))
        self.narrow, self.pool, self.after = (
            ConvNorm(64, 32, 1, act=nn.SiLU),
            nn.MaxPool2d(5, 1, 2),
            ConvNorm(128, 64, 1, act=nn.SiLU),
        )
        self.fine = CrossStage(96, 32)
        self.heads = nn.ModuleList(nn.Conv2d(c, 4 * self.BINS + classes, 1) for c in (32, 64))

    def forward(self, x):
        early = self.early(x)
        late = [self.narrow(self.late(early))]
        for _ in range(3):
            late.append(self.pool(late[-1]))
        late = self.after(torch.cat(late, 1))
        fine = self.fine(torch.cat([functional.interpolate(late, scale_factor=2, mode="nearest"), early], 1))
        boxes, scores = [], []
        for head, level, stride in zip(self.heads, (fine, late), (4, 8), strict=True):
            y = head(level)
            n, _, h, w = y.shape
            distances, score = y.view(n, -1, h * w).split([4 * self.BINS, y.shape[1] - 4 * self.BINS], 1)
            distances = distances.view(n, 4, self.BINS, h * w).softmax(2)
            distances = (distances * torch.arange(self.BINS).to(y.dtype).view(1, 1, -1, 1)).sum(2)
            rows, columns = torch.meshgrid(torch.arange(h), torch.arange(w), indexing="ij")
            centres = torch.stack([columns.reshape(-1), rows.reshape(-1)]).to(y.dtype) + 0.5
            low, high = distances.chunk(2, 1)
            boxes.append(torch.cat([centres - low, centres + high], 1) * stride)
            scores.append(score.sigmoid())
        return {"boxes": torch.cat(boxes, 2), "scores": torch.cat(scores, 2)}


class DiffusionBlock(nn.Module):
    """x [n, c, h, w] and an embedding of the time: group norms, SiLU, attention over pixels."""

    def __init__(self, inputs, outputs, embedded, attends=True):
        super().__init__()
        self.norm1, self.conv1 = nn.GroupNorm(8, inputs), nn.Conv2d(inputs, outputs, 3, padding=1)
        self.time = nn.Linear(embedded, outputs)
        self.norm2, self.conv2 = nn.GroupNorm(8, outputs), nn.Conv2d(outputs, outputs, 3, padding=1)
        self.shortcut = nn.Conv2d(inputs, outputs, 1) if inputs != outputs else nn.Identity()
        self.attends = attends
        if attends:
            self.norm3, self.qkv, self.out = (
                nn.GroupNorm(8, outputs),
                nn.Conv2d(outputs, 3 * outputs, 1),
                nn.Conv2d(outputs, outputs, 1),
            )

    def forward(self, x, time):
        y = self.conv1(functional.silu(self.norm1(x)))
        y = y + self.time(functional.silu(time))[:, :, None, None]
        x = self.shortcut(x) + self.conv2(functional.silu(self.norm2(y)))
        if not self.attends:
            return x
        n, c, h, w = x.shape
        q, k, v = self.qkv(self.norm3(x)).reshape(n, 3, 4, c // 4, h * w).transpose(-1, -2).unbind(1)
        y = functional.scaled_dot_product_attention(q, k, v)
        return x + self.out(y.transpose(-1, -2).reshape(n, c, h, w))


class DiffusionUNet(nn.Module):
    """x [n, 4, h, w], t [n] -> the noise in x."""

    def __init__(self, width=32):
        super().__init__()
        self.width, embedded = width, 4 * width
        self.time = nn.Sequential(nn.Linear(width, embedded), nn.SiLU(), nn.Linear(embedded, embedded))
        self.enter, self.leave = nn.Conv2d(4, width, 3, padding=1), nn.Conv2d(width, 4, 3, padding=1)
        self.down, self.narrow = DiffusionBlock(width, width, embedded, False), nn.Conv2d(width, 2 * width, 3, 2, 1)
        self.middle, self.widen = (
            DiffusionBlock(2 * width, 2 * width, embedded),
            nn.ConvTranspose2d(2 * width, width, 4, 2, 1),
        )
        self.up, self.norm = DiffusionBlock(2 * width, width, embedded), nn.GroupNorm(8, width)

    def forward(self, x, t):
        rate = torch.exp(torch.arange(self.width // 2).to(x.dtype) * (-8.0 / self.width))
        angle = t[:, None] * rate[None]
        time = self.time(torch.cat([angle.cos(), angle.sin()], -1))
        x = self.down(self.enter(x), time)
        y = self.widen(self.middle(self.narrow(x), time))
        return self.leave(functional.silu(self.norm(self.up(torch.cat([x, y], 1), time))))
