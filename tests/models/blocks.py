"""Parts that several architectures share."""

import torch
from torch import nn
from torch.nn import functional


class ConvNorm(nn.Sequential):
    """conv, batch norm, activation."""

    def __init__(self, inputs, outputs, kernel=3, stride=1, groups=1, act=nn.ReLU):
        super().__init__(
            nn.Conv2d(inputs, outputs, kernel, stride, kernel // 2, groups=groups, bias=False),
            nn.BatchNorm2d(outputs),
            act() if act else nn.Identity(),
        )


class Attention(nn.Module):
    """x [b, s, d] -> [b, s, d]; ``mask`` [s, s] or [b, 1, 1, s]: true where a key may be seen."""

    def __init__(self, width, heads, bias=True):
        super().__init__()
        self.heads = heads
        self.query, self.key, self.value, self.out = (nn.Linear(width, width, bias=bias) for _ in range(4))

    def split(self, x):
        """query, key and value [b, heads, s, d / heads]"""
        b, s, d = x.shape
        made = (f(x) for f in (self.query, self.key, self.value))
        return [y.view(b, s, self.heads, d // self.heads).transpose(1, 2) for y in made]

    def forward(self, x, mask=None):
        b, s, d = x.shape
        q, k, v = self.split(x)
        scores = q @ k.transpose(-1, -2) * (d // self.heads) ** -0.5
        if mask is not None:
            scores = scores.masked_fill(~mask, -1e4)
        return self.out((torch.softmax(scores, -1) @ v).transpose(1, 2).reshape(b, s, d))


class FusedAttention(Attention):
    """The same through torch's scaled_dot_product_attention."""

    def forward(self, x, mask=None):
        b, s, d = x.shape
        q, k, v = self.split(x)
        y = functional.scaled_dot_product_attention(q, k, v, attn_mask=mask)
        return self.out(y.transpose(1, 2).reshape(b, s, d))


class FeedForward(nn.Sequential):
    def __init__(self, width, act=nn.GELU, times=4):
        super().__init__(nn.Linear(width, times * width), act(), nn.Linear(times * width, width))


class PreNormBlock(nn.Module):
    """x + attention(norm x), then x + ffn(norm x): ViT, GPT-2 and Whisper."""

    def __init__(self, width, heads, attention=Attention, act=nn.GELU):
        super().__init__()
        self.norm1, self.norm2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.attention, self.ffn = attention(width, heads), FeedForward(width, act)

    def forward(self, x, mask=None):
        x = x + self.attention(self.norm1(x), mask)
        return x + self.ffn(self.norm2(x))


def causal(s):
    """[s, s]: true where the key is not after the query."""
    return torch.ones(s, s, dtype=torch.bool).tril()
