"""Sizes of a Llama-2 model as llama2.c has them, its weights by name, and weights to begin with."""

from __future__ import annotations

from dataclasses import dataclass, fields

import numpy as np

EPSILON = 1e-5  # of RMSNorm, in llama2.c
ROPE_BASE = 10000.0


class StoriesError(ValueError):
    """A file is not what it should be. The message names the file, what was found, and the way out."""


@dataclass(frozen=True)
class Config:
    """The seven numbers of a llama2.c header, and whether the classifier is the embedding."""

    dim: int = 768
    hidden_dim: int = 2048
    n_layers: int = 12
    n_heads: int = 12
    n_kv_heads: int = 12
    vocab_size: int = 32000
    seq_len: int = 256
    shared: bool = True

    def __post_init__(self) -> None:
        for field in fields(self):
            if field.name != "shared" and getattr(self, field.name) < 1:
                raise StoriesError(f"{field.name} is {getattr(self, field.name)}; 1 is the least")
        if self.dim % self.n_heads or self.head_size % 2:
            raise StoriesError(f"{self.dim} channels do not divide into {self.n_heads} heads of an even size")
        if self.n_heads % self.n_kv_heads:
            raise StoriesError(f"{self.n_heads} heads cannot share {self.n_kv_heads} heads of keys and values")

    @property
    def head_size(self) -> int:
        return self.dim // self.n_heads

    @property
    def kv_dim(self) -> int:
        return self.n_kv_heads * self.head_size

    def layer_shapes(self) -> dict[str, tuple[int, ...]]:
        """Of one layer, without its number, in llama2.c's order; matrices are [out, in]."""
        dim, hidden = self.dim, self.hidden_dim
        return {
            "attention_norm": (dim,), "wq": (dim, dim), "wk": (self.kv_dim, dim), "wv": (self.kv_dim, dim),
            "wo": (dim, dim), "ffn_norm": (dim,), "w1": (hidden, dim), "w2": (dim, hidden), "w3": (hidden, dim),
        }  # fmt: skip

    def body_shapes(self) -> dict[str, tuple[int, ...]]:
        """Of all layers: ``wq_0`` ..."""
        each = self.layer_shapes().items()
        return {f"{name}_{i}": shape for i in range(self.n_layers) for name, shape in each}

    def shapes(self) -> dict[str, tuple[int, ...]]:
        """Every weight that is trained."""
        classifier = {} if self.shared else {"output": (self.vocab_size, self.dim)}
        return {"embedding": (self.vocab_size, self.dim), **self.body_shapes(), "norm": (self.dim,), **classifier}

    @property
    def classifier(self) -> str:
        """The weight that makes logits."""
        return "embedding" if self.shared else "output"

    def parameters(self) -> int:
        return sum(int(np.prod(shape)) for shape in self.shapes().values())


STORIES110M = Config()
TINY = Config(dim=64, hidden_dim=160, n_layers=2, n_heads=4, n_kv_heads=4, vocab_size=512, seq_len=64)


def random_weights(config: Config, seed: int = 42) -> dict[str, np.ndarray]:
    """float32, as llama2.c begins: normal of 0.02, less where a residual ends, norms of 1."""
    rng = np.random.default_rng(seed)

    def made(name: str, shape: tuple[int, ...]) -> np.ndarray:
        if "norm" in name:
            return np.ones(shape, np.float32)
        scale = 0.02 / np.sqrt(2 * config.n_layers) if name.startswith(("wo_", "w3_")) else 0.02
        return rng.standard_normal(shape, np.float32) * np.float32(scale)

    return {name: made(name, shape) for name, shape in config.shapes().items()}
