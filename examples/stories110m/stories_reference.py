"""The loss of a sequence in numpy and float64, written apart from the programs, to hold them against."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from stories_config import EPSILON, Config
from stories_llama2c import angles


def loss(config: Config, weights: Mapping[str, np.ndarray], tokens: np.ndarray, targets: np.ndarray) -> float:
    """The mean cross entropy, in nats. ``tokens`` and ``targets``: [S]."""
    n, size, shared = len(tokens), config.head_size, config.n_heads // config.n_kv_heads
    turn = np.exp(1j * angles(config)[:n])
    unseen = np.triu(np.full((n, n), -np.inf), 1)

    def of(name: str) -> Any:
        return np.asarray(weights[name], np.float64)

    def norm(x: Any, weight: Any) -> Any:
        return x / np.sqrt((x**2).mean(-1, keepdims=True) + EPSILON) * weight

    def heads(x: Any) -> Any:  # [heads, S, size]
        return x.reshape(n, -1, size).swapaxes(0, 1)

    def turned(x: Any) -> Any:
        z = (x[..., : size // 2] + 1j * x[..., size // 2 :]) * turn
        return np.concatenate([z.real, z.imag], -1)

    x = of("embedding")[tokens]
    for i in range(config.n_layers):
        h = norm(x, of(f"attention_norm_{i}"))
        q, k, v = (heads(h @ of(f"{name}_{i}").T) for name in ("wq", "wk", "wv"))
        q, k, v = turned(q), turned(k).repeat(shared, 0), v.repeat(shared, 0)
        chances = np.exp(q @ k.swapaxes(1, 2) / np.sqrt(size) + unseen)
        mixed = chances / chances.sum(-1, keepdims=True) @ v
        x = x + mixed.swapaxes(0, 1).reshape(n, config.dim) @ of(f"wo_{i}").T
        h = norm(x, of(f"ffn_norm_{i}"))
        gate = h @ of(f"w1_{i}").T
        x = x + (gate / (1 + np.exp(-gate)) * (h @ of(f"w3_{i}").T)) @ of(f"w2_{i}").T
    logits = norm(x, of("norm")) @ of(config.classifier).T
    most = logits.max(-1)
    whole = most + np.log(np.exp(logits - most[:, None]).sum(-1))
    return float((whole - logits[np.arange(n), targets]).mean())
