"""Transformers and a recurrent tagger: ViT, BERT, GPT-2, Llama, Whisper's encoder, an LSTM tagger."""

import torch
from torch import nn
from torch.nn import functional

from .blocks import Attention, FeedForward, FusedAttention, PreNormBlock, causal


class ViT(nn.Module):
    def __init__(self, image, patch=8, width=96, heads=4, depth=12, classes=100):
        super().__init__()
        self.patches = nn.Conv2d(3, width, patch, patch)
        self.token = nn.Parameter(torch.randn(1, 1, width))
        self.position = nn.Parameter(torch.randn(1, 1 + (image[0] // patch) * (image[1] // patch), width))
        self.blocks = nn.ModuleList(PreNormBlock(width, heads, FusedAttention) for _ in range(depth))
        self.norm, self.head = nn.LayerNorm(width), nn.Linear(width, classes)

    def forward(self, x):
        x = self.patches(x).flatten(2).transpose(1, 2)
        x = torch.cat([self.token.expand(x.shape[0], -1, -1), x], 1) + self.position
        for block in self.blocks:
            x = block(x)
        return self.head(self.norm(x)[:, 0])


class BertLayer(nn.Module):
    """Norms after the residuals."""

    def __init__(self, width, heads):
        super().__init__()
        self.attention, self.ffn = Attention(width, heads), FeedForward(width)
        self.norm1, self.norm2 = nn.LayerNorm(width, 1e-12), nn.LayerNorm(width, 1e-12)

    def forward(self, x, mask):
        x = self.norm1(x + self.attention(x, mask))
        return self.norm2(x + self.ffn(x))


class Bert(nn.Module):
    """ids, types, mask [b, s] -> hidden states [b, s, d] and the pooled first token [b, d]."""

    def __init__(self, vocabulary=300, width=96, heads=4, depth=12, longest=128):
        super().__init__()
        self.words, self.types = nn.Embedding(vocabulary, width), nn.Embedding(2, width)
        self.positions, self.norm = nn.Embedding(longest, width), nn.LayerNorm(width, 1e-12)
        self.layers = nn.ModuleList(BertLayer(width, heads) for _ in range(depth))
        self.pooler = nn.Linear(width, width)

    def forward(self, ids, types, mask):
        x = self.words(ids) + self.types(types) + self.positions(torch.arange(ids.shape[1]))
        x = self.norm(x)
        seen = (mask > 0)[:, None, None, :]
        for layer in self.layers:
            x = layer(x, seen)
        return {"hidden": x, "pooled": torch.tanh(self.pooler(x[:, 0]))}


class Gpt2(nn.Module):
    """ids [b, s] -> logits [b, s, vocabulary], the output layer tied to the embedding."""

    def __init__(self, vocabulary=300, width=96, heads=4, depth=12, longest=128):
        super().__init__()
        self.words, self.positions = nn.Embedding(vocabulary, width), nn.Embedding(longest, width)
        self.blocks = nn.ModuleList(PreNormBlock(width, heads, act=lambda: nn.GELU("tanh")) for _ in range(depth))
        self.norm = nn.LayerNorm(width)

    def forward(self, ids):
        s = ids.shape[1]
        x = self.words(ids) + self.positions(torch.arange(s))
        for block in self.blocks:
            x = block(x, causal(s))
        return self.norm(x) @ self.words.weight.T * 0.1


class RMSNorm(nn.Module):
    def __init__(self, width):
        super().__init__()
        self.weight = nn.Parameter(torch.rand(width) + 0.5)

    def forward(self, x):
        return self.weight * x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + 1e-5)


class LlamaBlock(nn.Module):
    """Rotary positions, grouped keys and values kept in a cache, SwiGLU.

    x [b, 1, d] and the keys and values of the ``past`` positions [b, groups, past, e] -> y and theirs, one longer.
    """

    def __init__(self, width=96, heads=6, groups=2):
        super().__init__()
        self.heads, self.groups, self.size = heads, groups, width // heads
        self.norm1, self.norm2 = RMSNorm(width), RMSNorm(width)
        self.query, self.out = nn.Linear(width, width, bias=False), nn.Linear(width, width, bias=False)
        self.key, self.value = (nn.Linear(width, groups * self.size, bias=False) for _ in range(2))
        self.gate, self.up = (nn.Linear(width, 256, bias=False) for _ in range(2))
        self.down = nn.Linear(256, width, bias=False)

    def split(self, x, heads):
        return x.view(x.shape[0], x.shape[1], heads, self.size).transpose(1, 2)

    def rotate(self, x, position):
        frequency = 10000 ** (-torch.arange(0, self.size, 2).to(x.dtype) / self.size)
        angle = position.to(x.dtype)[:, None] * frequency
        cos, sin = (torch.cat([f(angle)] * 2, -1) for f in (torch.cos, torch.sin))
        a, b = x.chunk(2, -1)
        return x * cos + torch.cat([-b, a], -1) * sin

    def forward(self, x, keys, values):
        h = self.norm1(x)
        at = torch.arange(keys.shape[2], keys.shape[2] + x.shape[1])
        q = self.rotate(self.split(self.query(h), self.heads), at)
        keys = torch.cat([keys, self.rotate(self.split(self.key(h), self.groups), at)], 2)
        values = torch.cat([values, self.split(self.value(h), self.groups)], 2)
        k, v = (t.repeat_interleave(self.heads // self.groups, 1) for t in (keys, values))
        seen = causal(keys.shape[2])[-x.shape[1] :]
        y = functional.scaled_dot_product_attention(q, k, v, attn_mask=seen)
        x = x + self.out(y.transpose(1, 2).reshape(x.shape))
        h = self.norm2(x)
        return x + self.down(functional.silu(self.gate(h)) * self.up(h)), keys, values


class Llama(nn.Module):
    """Blocks behind each other; the cache is [depth, b, groups, past, e]."""

    def __init__(self, depth=6):
        super().__init__()
        self.blocks, self.norm = nn.ModuleList(LlamaBlock() for _ in range(depth)), RMSNorm(96)

    def forward(self, x, keys, values):
        made = []
        for i, block in enumerate(self.blocks):
            x, *cache = block(x, keys[i], values[i])
            made.append(cache)
        keys, values = (torch.stack(cache) for cache in zip(*made, strict=True))
        return {"y": self.norm(x), "keys": keys, "values": values}


class WhisperEncoder(nn.Module):
    """mel [b, 80, frames] -> [b, frames / 2, d]."""

    def __init__(self, width=96, heads=4, depth=6):
        super().__init__()
        self.width = width
        self.conv1, self.conv2 = nn.Conv1d(80, width, 3, 1, 1), nn.Conv1d(width, width, 3, 2, 1)
        self.blocks = nn.ModuleList(PreNormBlock(width, heads, FusedAttention) for _ in range(depth))
        self.norm = nn.LayerNorm(width)

    def positions(self, n, dtype):
        rate = 10000 ** (-torch.arange(self.width // 2).to(dtype) / (self.width // 2 - 1))
        angle = torch.arange(n).to(dtype)[:, None] * rate
        return torch.cat([angle.sin(), angle.cos()], 1)

    def forward(self, mel):
        x = functional.gelu(self.conv2(functional.gelu(self.conv1(mel)))).transpose(1, 2)
        x = x + self.positions(x.shape[1], x.dtype)
        for block in self.blocks:
            x = block(x)
        return self.norm(x)


class LstmTagger(nn.Module):
    """ids [b, s] -> log probabilities of the tags [b, s, tags]."""

    def __init__(self, vocabulary=300, width=48, tags=17):
        super().__init__()
        self.words = nn.Embedding(vocabulary, width)
        self.lstm = nn.LSTM(width, width, 2, batch_first=True, bidirectional=True)
        self.head = nn.Linear(2 * width, tags)

    def forward(self, ids):
        return torch.log_softmax(self.head(self.lstm(self.words(ids))[0]), -1)
