"""The same encoder as a torch module, in torch's usual [batch, tokens, channels] layout.

It is the second way in: ``anex.from_torch(MiniLM(weights, config), ...)`` gives the MIL program of it.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

import numpy as np
import torch
from torch import nn


class Layer(nn.Module):
    """One transformer layer with normalisation after each residual, as in BERT."""

    def __init__(self, channels: int, heads: int, hidden: int) -> None:
        super().__init__()
        self.heads = heads
        self.query, self.key, self.value, self.mix = (nn.Linear(channels, channels) for _ in range(4))
        self.norm1, self.norm2 = (nn.LayerNorm(channels, eps=1e-12) for _ in range(2))
        self.up, self.down = nn.Linear(channels, hidden), nn.Linear(hidden, channels)

    def forward(self, x: torch.Tensor, mask: torch.Tensor | None) -> torch.Tensor:
        batch, length, channels = x.shape
        q, k, v = (
            linear(x).reshape(batch, length, self.heads, channels // self.heads).transpose(1, 2)
            for linear in (self.query, self.key, self.value)
        )
        mixed = nn.functional.scaled_dot_product_attention(q, k, v, attn_mask=mask)
        x = self.norm1(x + self.mix(mixed.transpose(1, 2).reshape(batch, length, channels)))
        return self.norm2(x + self.down(nn.functional.gelu(self.up(x))))


class MiniLM(nn.Module):
    """Token ids [batch, S] and an additive mask [batch, 1, 1, S] to unit vectors [batch, 384]."""

    NAMES: ClassVar = {
        "query": "attention.self.query",
        "key": "attention.self.key",
        "value": "attention.self.value",
        "mix": "attention.output.dense",
        "norm1": "attention.output.LayerNorm",
        "up": "intermediate.dense",
        "down": "output.dense",
        "norm2": "output.LayerNorm",
    }

    def __init__(self, weights: Mapping[str, np.ndarray], config: Mapping[str, Any]) -> None:
        super().__init__()
        channels, heads, hidden = (config[key] for key in ("hidden_size", "num_attention_heads", "intermediate_size"))
        self.words = nn.Embedding(config["vocab_size"], channels)
        self.positions = nn.Embedding(config["max_position_embeddings"], channels)
        self.segments = nn.Embedding(config["type_vocab_size"], channels)
        self.norm = nn.LayerNorm(channels, eps=1e-12)
        self.layers = nn.ModuleList(Layer(channels, heads, hidden) for _ in range(config["num_hidden_layers"]))
        table = {
            "words": "embeddings.word_embeddings",
            "positions": "embeddings.position_embeddings",
            "segments": "embeddings.token_type_embeddings",
            "norm": "embeddings.LayerNorm",
        }
        for i in range(len(self.layers)):
            table |= {f"layers.{i}.{ours}": f"encoder.layer.{i}.{theirs}" for ours, theirs in self.NAMES.items()}
        self.load_state_dict(
            {
                f"{ours}.{part}": torch.from_numpy(weights[f"{theirs}.{part}"].copy())
                for ours, theirs in table.items()
                for part in ("weight", "bias")
                if f"{theirs}.{part}" in weights
            }
        )
        self.eval()

    def forward(self, ids: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        positions = torch.arange(ids.shape[1])
        return self.encode(self.words(ids) + self.positions(positions) + self.segments.weight[0], mask)

    def encode(self, embedded: torch.Tensor, mask: torch.Tensor | None) -> torch.Tensor:
        """From the summed embeddings [batch, S, 384]; ``mask`` 0 for tokens, very negative for padding."""
        x = self.norm(embedded)
        for layer in self.layers:
            x = layer(x, mask)
        if mask is None:
            pooled = x.mean(1)
        else:
            here = (mask[:, 0, 0, :, None] > -1).to(x.dtype)
            pooled = (x * here).sum(1) / here.sum(1)
        return nn.functional.normalize(pooled)
