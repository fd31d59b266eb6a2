"""Sequences of other kinds: windows that shift, encoder and decoder, gated cells, dilated filters, scans."""

from itertools import pairwise

import torch
from torch import nn
from torch.nn import functional

from .blocks import FeedForward, causal
from .sequence import RMSNorm


class WindowAttention(nn.Module):
    """Swin's: x [n, h, w, d] in windows, shifted or not, with a learned bias for each offset in a window."""

    def __init__(self, width, heads, window, shift):
        super().__init__()
        self.heads, self.window, self.shift = heads, window, shift
        self.qkv, self.out = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.bias = nn.Parameter(torch.randn((2 * window - 1) ** 2, heads) * 0.1)
        at = torch.stack(torch.meshgrid(torch.arange(window), torch.arange(window), indexing="ij")).flatten(1)
        offset = at[:, :, None] - at[:, None] + window - 1
        self.register_buffer("index", offset[0] * (2 * window - 1) + offset[1])

    def mask(self, h, w):
        """[windows, 1, pixels, pixels]: -100 between what was apart before the shift."""
        region, count = torch.zeros(1, h, w, 1), 0
        for rows in (slice(0, -self.window), slice(-self.window, -self.shift), slice(-self.shift, None)):
            for columns in (slice(0, -self.window), slice(-self.window, -self.shift), slice(-self.shift, None)):
                region[:, rows, columns] = count
                count += 1
        region = self.windows(region).squeeze(-1)
        return ((region[:, None] != region[:, :, None]) * -100.0)[:, None]

    def windows(self, x):
        n, h, w, d = x.shape
        s = self.window
        return x.view(n, h // s, s, w // s, s, d).permute(0, 1, 3, 2, 4, 5).reshape(-1, s * s, d)

    def forward(self, x):
        n, h, w, d = x.shape
        s, shifted = self.window, self.shift > 0
        x = torch.roll(x, (-self.shift, -self.shift), (1, 2)) if shifted else x
        q, k, v = self.qkv(self.windows(x)).reshape(-1, s * s, 3, self.heads, d // self.heads).permute(2, 0, 3, 1, 4)
        scores = (q * (d // self.heads) ** -0.5) @ k.transpose(-2, -1)
        scores = scores + self.bias[self.index.view(-1)].view(s * s, s * s, -1).permute(2, 0, 1)[None]
        if shifted:
            mask = self.mask(h, w).to(x.dtype)
            scores = scores.view(n, -1, self.heads, s * s, s * s) + mask[None]
            scores = scores.view(-1, self.heads, s * s, s * s)
        y = self.out((scores.softmax(-1) @ v).transpose(1, 2).reshape(-1, s * s, d))
        y = y.view(n, h // s, w // s, s, s, d).permute(0, 1, 3, 2, 4, 5).reshape(n, h, w, d)
        return torch.roll(y, (self.shift, self.shift), (1, 2)) if shifted else y


class SwinBlock(nn.Module):
    def __init__(self, width, heads, window, shift):
        super().__init__()
        self.norm1, self.norm2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.attention, self.ffn = WindowAttention(width, heads, window, shift), FeedForward(width)

    def forward(self, x):
        x = x + self.attention(self.norm1(x))
        return x + self.ffn(self.norm2(x))


class Swin(nn.Module):
    def __init__(self, width=32, window=4, classes=50):
        super().__init__()
        self.patches, self.norm = nn.Conv2d(3, width, 4, 4), nn.LayerNorm(width)
        self.first = nn.Sequential(SwinBlock(width, 2, window, 0), SwinBlock(width, 2, window, window // 2))
        self.merged, self.merge = nn.LayerNorm(4 * width), nn.Linear(4 * width, 2 * width, bias=False)
        self.second = nn.Sequential(SwinBlock(2 * width, 4, window, 0), SwinBlock(2 * width, 4, window, 0))
        self.last, self.head = nn.LayerNorm(2 * width), nn.Linear(2 * width, classes)

    def forward(self, x):
        x = self.first(self.norm(self.patches(x).permute(0, 2, 3, 1)))
        x = torch.cat([x[:, 0::2, 0::2], x[:, 1::2, 0::2], x[:, 0::2, 1::2], x[:, 1::2, 1::2]], -1)
        x = self.second(self.merge(self.merged(x)))
        return self.head(self.last(x).mean((1, 2)))


class RelativeAttention(nn.Module):
    """T5's: no scale, and a bias by distance, in buckets that grow."""

    def __init__(self, width, heads, both_ways, has_bias):
        super().__init__()
        self.heads, self.both_ways = heads, both_ways
        self.query, self.key, self.value, self.out = (nn.Linear(width, width, bias=False) for _ in range(4))
        self.bias = nn.Embedding(16, heads) if has_bias else None

    def position_bias(self, queries, keys):
        distance = torch.arange(keys)[None] - torch.arange(queries)[:, None]
        buckets, side = 16, 0
        if self.both_ways:
            buckets //= 2
            side, distance = (distance > 0).long() * buckets, distance.abs()
        else:
            distance = -torch.min(distance, torch.zeros_like(distance))
        exact = buckets // 2
        far = exact + (torch.log(distance.float() / exact + 1e-6) / 2.77 * (buckets - exact)).long()
        bucket = side + torch.where(distance < exact, distance, torch.min(far, torch.full_like(far, buckets - 1)))
        return self.bias(bucket).permute(2, 0, 1)[None]

    def forward(self, x, memory=None, bias=None):
        memory = x if memory is None else memory
        q, k, v = (
            f(t).view(t.shape[0], t.shape[1], self.heads, -1).transpose(1, 2)
            for f, t in ((self.query, x), (self.key, memory), (self.value, memory))
        )
        scores = q @ k.transpose(2, 3) / 2
        y = (scores if bias is None else scores + bias).softmax(-1) @ v
        return self.out(y.transpose(1, 2).reshape(x.shape))


class T5Layer(nn.Module):
    def __init__(self, width, heads, decodes, has_bias):
        super().__init__()
        self.own = RelativeAttention(width, heads, not decodes, has_bias)
        self.other = RelativeAttention(width, heads, True, False) if decodes else None
        self.norms = nn.ModuleList(RMSNorm(width) for _ in range(3))
        self.gate, self.up, self.down = (
            nn.Linear(a, b, bias=False) for a, b in ((width, 128), (width, 128), (128, width))
        )

    def forward(self, x, memory, bias):
        x = x + self.own(self.norms[0](x), bias=bias)
        if self.other is not None:
            x = x + self.other(self.norms[1](x), memory)
        y = self.norms[2](x)
        return x + self.down(functional.gelu(self.gate(y), approximate="tanh") * self.up(y))


class T5(nn.Module):
    """ids [b, s], targets [b, t] -> logits [b, t, vocabulary]."""

    def __init__(self, vocabulary=300, width=64, heads=4, depth=2):
        super().__init__()
        self.words = nn.Embedding(vocabulary, width)
        self.encoder = nn.ModuleList(T5Layer(width, heads, False, i == 0) for i in range(depth))
        self.decoder = nn.ModuleList(T5Layer(width, heads, True, i == 0) for i in range(depth))
        self.norms, self.head = (
            nn.ModuleList(RMSNorm(width) for _ in range(2)),
            nn.Linear(width, vocabulary, bias=False),
        )

    def forward(self, ids, targets):
        memory = self.words(ids)
        bias = self.encoder[0].own.position_bias(ids.shape[1], ids.shape[1])
        for layer in self.encoder:
            memory = layer(memory, None, bias)
        memory, x, t = self.norms[0](memory), self.words(targets), targets.shape[1]
        bias = self.decoder[0].own.position_bias(t, t)
        bias = bias + torch.zeros(t, t, dtype=bias.dtype).masked_fill(~causal(t), -1e4)
        for layer in self.decoder:
            x = layer(x, memory, bias)
        return self.head(self.norms[1](x))


class GruTagger(nn.Module):
    """ids [b, s] -> log probabilities of the tags [b, s, tags]."""

    def __init__(self, vocabulary=300, width=32, tags=17):
        super().__init__()
        self.words = nn.Embedding(vocabulary, width)
        self.gru = nn.GRU(width, width, 2, batch_first=True, bidirectional=True)
        self.head = nn.Linear(2 * width, tags)

    def forward(self, ids):
        return functional.log_softmax(self.head(self.gru(self.words(ids))[0]), -1)


class TcnBlock(nn.Module):
    """Two dilated filters that see no future, and a residual."""

    def __init__(self, inputs, outputs, dilation, kernel=3):
        super().__init__()
        self.pad = (kernel - 1) * dilation
        self.first = nn.utils.parametrizations.weight_norm(nn.Conv1d(inputs, outputs, kernel, dilation=dilation))
        self.second = nn.Conv1d(outputs, outputs, kernel, dilation=dilation, padding=self.pad)
        self.shortcut = nn.Conv1d(inputs, outputs, 1) if inputs != outputs else nn.Identity()

    def forward(self, x):
        y = functional.elu(self.first(functional.pad(x, (self.pad, 0))))
        y = torch.relu(self.second(y)[:, :, : -self.pad])
        return functional.leaky_relu(y + self.shortcut(x), 0.1)


class Tcn(nn.Module):
    """x [b, features, s] -> [b, classes]."""

    def __init__(self, features=12, width=24, classes=9):
        super().__init__()
        widths = [features, width, width, width, width]
        self.blocks = nn.Sequential(*(TcnBlock(a, b, 2**i) for i, (a, b) in enumerate(pairwise(widths))))
        self.head = nn.Linear(width, classes)

    def forward(self, x):
        return self.head(self.blocks(x)[:, :, -1])


class WhisperDecoder(nn.Module):
    """One more token: ids [b, 1] at ``position`` [1]; a cache of fixed size, [depth, b, heads, longest, e] each.

    ``memory`` [b, frames, d] is what the encoder gave. Gives the logits, and the new key and value of each layer.
    """

    def __init__(self, vocabulary=300, width=64, heads=4, depth=2, longest=24):
        super().__init__()
        self.heads, self.longest = heads, longest
        self.words, self.places = nn.Embedding(vocabulary, width), nn.Parameter(torch.randn(longest, width))
        self.own = nn.ModuleList(nn.Linear(width, 3 * width) for _ in range(depth))
        self.query, self.memory = (nn.ModuleList(nn.Linear(width, n * width) for _ in range(depth)) for n in (1, 2))
        self.out = nn.ModuleList(nn.Linear(width, width) for _ in range(2 * depth))
        self.ffn = nn.ModuleList(FeedForward(width) for _ in range(depth))
        self.norms = nn.ModuleList(nn.LayerNorm(width) for _ in range(3 * depth + 1))

    def split(self, x):
        return x.view(x.shape[0], x.shape[1], self.heads, -1).transpose(1, 2)

    def joined(self, x):
        return x.transpose(1, 2).reshape(x.shape[0], x.shape[2], -1)

    def forward(self, ids, position, memory, keys, values):
        x = self.words(ids) + self.places[position]
        here = (torch.arange(self.longest) == position)[None, None, :, None]
        seen = (torch.arange(self.longest) <= position)[None, None, None]
        made = []
        for i, own in enumerate(self.own):
            q, k, v = (self.split(t) for t in own(self.norms[3 * i](x)).chunk(3, -1))
            k, v = torch.where(here, k, keys[i]), torch.where(here, v, values[i])
            made.append((k, v))
            y = functional.scaled_dot_product_attention(q, k, v, attn_mask=seen)
            x = x + self.out[2 * i](self.joined(y))
            q = self.split(self.query[i](self.norms[3 * i + 1](x)))
            k, v = (self.split(t) for t in self.memory[i](memory).chunk(2, -1))
            x = x + self.out[2 * i + 1](self.joined(functional.scaled_dot_product_attention(q, k, v)))
            x = x + self.ffn[i](self.norms[3 * i + 2](x))
        k, v = (torch.stack(t) for t in zip(*made, strict=True))
        return {"logits": self.norms[-1](x) @ self.words.weight.T, "new_keys": k, "new_values": v}


class Mamba(nn.Module):
    """A selective scan: x [b, s, d] -> [b, s, d]. ``h[t] = decay[t] * h[t - 1] + input[t]``, in closed form with a
    cumsum of logarithms (``chunked``) or step by step."""

    def __init__(self, width=24, states=4, kernel=3, chunked=True):
        super().__init__()
        inner = 2 * width
        self.states, self.chunked, self.kernel = states, chunked, kernel
        self.enter, self.leave = nn.Linear(width, 2 * inner, bias=False), nn.Linear(inner, width, bias=False)
        self.filter = nn.Conv1d(inner, inner, kernel, groups=inner, padding=kernel - 1)
        self.select, self.step = nn.Linear(inner, 2 * states + 4, bias=False), nn.Linear(4, inner)
        self.rate, self.skip = nn.Parameter(torch.rand(inner, states)), nn.Parameter(torch.ones(inner))
        self.norm = RMSNorm(width)

    def forward(self, x):
        u, gate = self.enter(self.norm(x)).chunk(2, -1)
        u = functional.silu(self.filter(u.transpose(1, 2))[:, :, : x.shape[1]].transpose(1, 2))
        b, c, step = self.select(u).split([self.states, self.states, 4], -1)
        step = functional.softplus(self.step(step))
        decay = -step[..., None] * torch.exp(self.rate) * 0.1  # logarithms, [b, s, inner, states]
        given = (step * u)[..., None] * b[:, :, None]
        if self.chunked:
            total = torch.cumsum(decay, 1)
            h = torch.cumsum(given * torch.exp(-total), 1) * torch.exp(total)
        else:
            h, kept = torch.zeros_like(given[:, 0]), []
            for t in range(x.shape[1]):
                h = torch.exp(decay[:, t]) * h + given[:, t]
                kept.append(h)
            h = torch.stack(kept, 1)
        y = (h * c[:, :, None]).sum(-1) + self.skip * u
        return x + self.leave(y * functional.silu(gate))
