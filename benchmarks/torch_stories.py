"""Stories110M as one writes it in torch, with the weights of examples/stories110m."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from torch import nn


def Stories(config: Any, weights: Mapping[str, np.ndarray]) -> nn.Module:  # noqa: N802 - torch only where it is used
    """A module: (tokens [S], targets [S]) to the mean cross entropy; ``weight(name)`` is a parameter of it."""
    import torch
    from torch.nn import functional

    size = config.head_size
    angles = np.outer(np.arange(config.seq_len), 1e4 ** -(np.arange(0, size, 2) / size))

    class Module(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.given = torch.nn.ParameterDict({name: torch.from_numpy(each) for name, each in weights.items()})
            self.register_buffer("cos", torch.from_numpy(np.cos(angles)).float())
            self.register_buffer("sin", torch.from_numpy(np.sin(angles)).float())

        def weight(self, name: str) -> Any:
            return self.given[name]

        def turned(self, x: Any) -> Any:  # [heads, S, size]
            a, b = x.chunk(2, -1)
            return torch.cat([a * self.cos - b * self.sin, a * self.sin + b * self.cos], -1)

        def forward(self, tokens: Any, targets: Any) -> Any:
            w, length = self.given, tokens.shape[0]
            x = functional.embedding(tokens, w["embedding"])
            for i in range(config.n_layers):
                h = functional.rms_norm(x, (config.dim,), w[f"attention_norm_{i}"], 1e-5)
                q, k, v = ((h @ w[f"{name}_{i}"].T).view(length, -1, size).transpose(0, 1)
                           for name in ("wq", "wk", "wv"))  # fmt: skip
                q, k, v = (each[None] for each in (self.turned(q), self.turned(k), v))
                groups = config.n_heads != config.n_kv_heads
                mixed = functional.scaled_dot_product_attention(q, k, v, is_causal=True, enable_gqa=groups)
                x = x + mixed[0].transpose(0, 1).reshape(length, -1) @ w[f"wo_{i}"].T
                h = functional.rms_norm(x, (config.dim,), w[f"ffn_norm_{i}"], 1e-5)
                x = x + (functional.silu(h @ w[f"w1_{i}"].T) * (h @ w[f"w3_{i}"].T)) @ w[f"w2_{i}"].T
            x = functional.rms_norm(x, (config.dim,), w["norm"], 1e-5)
            return functional.cross_entropy(x @ w[config.classifier].T, targets)

    return Module()
