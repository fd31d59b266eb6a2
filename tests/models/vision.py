"""Convolutional networks: ResNet-18, MobileNetV2, an EfficientNet, U-Net."""

from typing import ClassVar

import torch
from torch import nn
from torch.nn import functional

from .blocks import ConvNorm


class ResidualBlock(nn.Module):
    def __init__(self, inputs, outputs, stride):
        super().__init__()
        self.first, self.second = ConvNorm(inputs, outputs, 3, stride), ConvNorm(outputs, outputs, act=None)
        same = stride == 1 and inputs == outputs
        self.shortcut = nn.Identity() if same else ConvNorm(inputs, outputs, 1, stride, act=None)

    def forward(self, x):
        return functional.relu(self.second(self.first(x)) + self.shortcut(x))


class ResNet18(nn.Module):
    def __init__(self, width=64, classes=100):
        super().__init__()
        self.stem = nn.Sequential(ConvNorm(3, width, 7, 2), nn.MaxPool2d(3, 2, 1))
        stages, inputs = [], width
        for i in range(4):
            outputs = width << i
            stages += [ResidualBlock(inputs, outputs, 1 if i == 0 else 2), ResidualBlock(outputs, outputs, 1)]
            inputs = outputs
        self.stages, self.head = nn.Sequential(*stages), nn.Linear(inputs, classes)

    def forward(self, x):
        return self.head(functional.adaptive_avg_pool2d(self.stages(self.stem(x)), 1).flatten(1))


class InvertedResidual(nn.Module):
    """Widen, filter each channel, (squeeze and excite,) narrow."""

    def __init__(self, inputs, outputs, stride, expand, kernel=3, act=nn.ReLU6, squeeze=False):
        super().__init__()
        hidden = inputs * expand
        parts = [ConvNorm(inputs, hidden, 1, act=act)] if expand != 1 else []
        parts.append(ConvNorm(hidden, hidden, kernel, stride, groups=hidden, act=act))
        if squeeze:
            parts.append(SqueezeExcite(hidden, max(1, inputs // 4)))
        parts.append(ConvNorm(hidden, outputs, 1, act=None))
        self.parts, self.residual = nn.Sequential(*parts), stride == 1 and inputs == outputs

    def forward(self, x):
        return x + self.parts(x) if self.residual else self.parts(x)


class MobileNetV2(nn.Module):
    PLAN: ClassVar = [
        (1, 16, 1, 1),
        (6, 24, 2, 2),
        (6, 32, 3, 2),
        (6, 64, 4, 2),
        (6, 96, 3, 1),
        (6, 160, 3, 2),
        (6, 320, 1, 1),
    ]

    def __init__(self, classes=100):
        super().__init__()
        parts, inputs = [ConvNorm(3, 32, 3, 2, act=nn.ReLU6)], 32
        for expand, outputs, repeats, stride in self.PLAN:
            for i in range(repeats):
                parts.append(InvertedResidual(inputs, outputs, stride if i == 0 else 1, expand))
                inputs = outputs
        self.features = nn.Sequential(*parts, ConvNorm(inputs, 640, 1, act=nn.ReLU6))
        self.head = nn.Sequential(nn.Dropout(0.2), nn.Linear(640, classes))

    def forward(self, x):
        return self.head(self.features(x).mean((2, 3)))


class SqueezeExcite(nn.Module):
    def __init__(self, channels, hidden):
        super().__init__()
        self.squeeze, self.excite = nn.Conv2d(channels, hidden, 1), nn.Conv2d(hidden, channels, 1)

    def forward(self, x):
        gate = self.excite(functional.silu(self.squeeze(functional.adaptive_avg_pool2d(x, 1))))
        return x * torch.sigmoid(gate)


class EfficientNet(nn.Module):
    """B0's plan: expand, channels, repeats, stride, kernel."""

    PLAN: ClassVar = [
        (1, 16, 1, 1, 3), (6, 24, 2, 2, 3), (6, 40, 2, 2, 5), (6, 80, 3, 2, 3), (6, 112, 3, 1, 5), (6, 192, 4, 2, 5),
        (6, 320, 1, 1, 3),
    ]  # fmt: skip

    def __init__(self, classes=100):
        super().__init__()
        parts, inputs = [ConvNorm(3, 32, 3, 2, act=nn.SiLU)], 32
        for expand, outputs, repeats, stride, kernel in self.PLAN:
            for i in range(repeats):
                step = stride if i == 0 else 1
                parts.append(InvertedResidual(inputs, outputs, step, expand, kernel, nn.SiLU, squeeze=True))
                inputs = outputs
        self.features = nn.Sequential(*parts, ConvNorm(inputs, 640, 1, act=nn.SiLU))
        self.head = nn.Linear(640, classes)

    def forward(self, x):
        return self.head(functional.adaptive_avg_pool2d(self.features(x), 1).flatten(1))


class UNet(nn.Module):
    """Four levels down and up again, with learned (odd levels) or bilinear upsampling."""

    def __init__(self, width=16, classes=3):
        super().__init__()
        sizes = [width << i for i in range(5)]
        self.down = nn.ModuleList(self.pair(a, b) for a, b in zip([3, *sizes], sizes, strict=False))
        self.up = nn.ModuleList(
            nn.ConvTranspose2d(2 * n, n, 2, 2)
            if i % 2
            else nn.Sequential(
                nn.Upsample(scale_factor=2, mode="bilinear", align_corners=False), nn.Conv2d(2 * n, n, 1)
            )
            for i, n in enumerate(sizes[:-1])
        )
        self.merge = nn.ModuleList(self.pair(2 * n, n) for n in sizes[:-1])
        self.head = nn.Conv2d(width, classes, 1)

    @staticmethod
    def pair(inputs, outputs):
        return nn.Sequential(ConvNorm(inputs, outputs), ConvNorm(outputs, outputs, act=nn.LeakyReLU))

    def forward(self, x):
        seen = []
        for i, level in enumerate(self.down):
            x = level(x if i == 0 else functional.max_pool2d(x, 2))
            seen.append(x)
        for i in reversed(range(len(self.up))):
            x = self.merge[i](torch.cat([seen[i], self.up[i](x)], 1))
        return self.head(x)
