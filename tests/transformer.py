"""A small Llama as a MIL program whose weights are inputs, and the same in torch."""

from __future__ import annotations

import math

import numpy as np
import torch

import anex
from anex import mb

LAYERS, WIDTH, HIDDEN, HEADS, VOCABULARY, LENGTH = 2, 16, 24, 2, 11, 6
HALF = WIDTH // HEADS // 2


def shapes() -> dict[str, tuple[int, ...]]:
    one = {
        "norm1": (WIDTH,), "wq": (WIDTH, WIDTH), "wk": (WIDTH, WIDTH), "wv": (WIDTH, WIDTH), "wo": (WIDTH, WIDTH),
        "norm2": (WIDTH,), "w1": (WIDTH, HIDDEN), "w2": (HIDDEN, WIDTH), "w3": (WIDTH, HIDDEN),
    }  # fmt: skip
    layers = {f"{name}_{i}": shape for i in range(LAYERS) for name, shape in one.items()}
    return {"embedding": (VOCABULARY, WIDTH), **layers, "norm": (WIDTH,), "head": (WIDTH, VOCABULARY)}


def weights(seed: int = 0) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(seed)
    return {
        name: 1 + 0.1 * rng.normal(size=shape) if "norm" in name else rng.normal(size=shape) / math.sqrt(shape[0])
        for name, shape in shapes().items()
    }


def angles() -> np.ndarray:
    return np.outer(np.arange(LENGTH), 100.0 ** (-np.arange(HALF) / HALF))


MASK = np.triu(np.full((LENGTH, LENGTH), -1e4), 1)


def program(dtype: str, attention: bool = False):
    """(tokens [length], targets [length, 1], *weights) -> loss (1,); float32 from the logits on."""

    def number(value):
        return np.asarray(value).astype(dtype)

    def norm(x, weight):
        mean = mb.reduce_mean(x=mb.square(x=x), axes=[-1], keep_dims=True)
        return mb.mul(x=mb.mul(x=x, y=mb.rsqrt(x=mean, epsilon=number(1e-5)[()])), y=weight)

    def turned(x):
        first, second = mb.split(x=x, num_splits=2, axis=2)
        cos, sin = number(np.cos(angles())), number(np.sin(angles()))
        return mb.concat(
            values=[
                mb.sub(x=mb.mul(x=first, y=cos), y=mb.mul(x=second, y=sin)),
                mb.add(x=mb.mul(x=first, y=sin), y=mb.mul(x=second, y=cos)),
            ],
            axis=2,
        )

    def heads(x):
        return mb.transpose(x=mb.reshape(x=x, shape=[LENGTH, HEADS, WIDTH // HEADS]), perm=[1, 0, 2])

    def loss(tokens, targets, **w):
        x = mb.gather(x=w["embedding"], indices=tokens, axis=0)
        for i in range(LAYERS):
            h = norm(x, w[f"norm1_{i}"])
            q, k, v = (heads(mb.matmul(x=h, y=w[f"w{name}_{i}"])) for name in "qkv")
            q, k = turned(q), turned(k)
            if attention:
                mixed = mb.scaled_dot_product_attention(
                    query=q, key=k, value=v, attn_mask=number(np.broadcast_to(MASK, (HEADS, *MASK.shape)))
                )
            else:
                scores = mb.matmul(x=q, y=k, transpose_y=True)
                scores = mb.add(x=mb.mul(x=scores, y=1 / math.sqrt(WIDTH // HEADS)), y=number(MASK))
                mixed = mb.matmul(x=mb.softmax(x=scores, axis=-1), y=v)
            mixed = mb.reshape(x=mb.transpose(x=mixed, perm=[1, 0, 2]), shape=[LENGTH, WIDTH])
            x = mb.add(x=x, y=mb.matmul(x=mixed, y=w[f"wo_{i}"]), name=f"attended_{i}")
            h = norm(x, w[f"norm2_{i}"])
            gate = mb.silu(x=mb.matmul(x=h, y=w[f"w1_{i}"]))
            h = mb.matmul(x=mb.mul(x=gate, y=mb.matmul(x=h, y=w[f"w3_{i}"])), y=w[f"w2_{i}"])
            x = mb.add(x=x, y=h, name=f"layer_{i}")
        logits = mb.matmul(x=norm(x, w["norm"]), y=w["head"])
        if dtype == "float16":
            logits = mb.cast(x=logits, dtype="fp32")
        chosen = mb.gather_along_axis(x=logits, indices=targets, axis=1)
        each = mb.sub(x=mb.reduce_log_sum_exp(x=logits, axes=[1], keep_dims=True), y=chosen)
        return mb.reshape(x=mb.reduce_mean(x=each, axes=[0, 1], keep_dims=True), shape=[1], name="loss")

    inputs = {name: anex.spec(shape, dtype) for name, shape in shapes().items()}
    tokens = {"tokens": anex.spec((LENGTH,), "int32"), "targets": anex.spec((LENGTH, 1), "int32")}
    return anex.graph(**tokens, **inputs)(loss)


def text(seed: int = 1) -> dict[str, np.ndarray]:
    tokens = np.random.default_rng(seed).integers(0, VOCABULARY, LENGTH + 1).astype(np.int32)
    return {"tokens": tokens[:-1].copy(), "targets": tokens[1:, None].copy()}


def torch_loss(given: dict[str, np.ndarray], w: dict[str, torch.Tensor]) -> torch.Tensor:
    cos, sin = torch.tensor(np.cos(angles())), torch.tensor(np.sin(angles()))

    def norm(x, weight):
        return x * torch.rsqrt((x**2).mean(-1, keepdim=True) + 1e-5) * weight

    def heads(x):
        return x.reshape(LENGTH, HEADS, -1).transpose(0, 1)

    def turned(x):
        first, second = x.chunk(2, 2)
        return torch.cat([first * cos - second * sin, first * sin + second * cos], 2)

    x = w["embedding"][torch.tensor(given["tokens"]).long()]
    for i in range(LAYERS):
        h = norm(x, w[f"norm1_{i}"])
        q, k, v = (heads(h @ w[f"w{name}_{i}"]) for name in "qkv")
        scores = turned(q) @ turned(k).mT / math.sqrt(WIDTH // HEADS) + torch.tensor(MASK)
        mixed = (torch.softmax(scores, -1) @ v).transpose(0, 1).reshape(LENGTH, WIDTH)
        x = x + mixed @ w[f"wo_{i}"]
        h = norm(x, w[f"norm2_{i}"])
        x = x + (torch.nn.functional.silu(h @ w[f"w1_{i}"]) * (h @ w[f"w3_{i}"])) @ w[f"w2_{i}"]
    logits = norm(x, w["norm"]) @ w["head"]
    return torch.nn.functional.cross_entropy(logits, torch.tensor(given["targets"][:, 0]).long())
