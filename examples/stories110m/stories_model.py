"""The Llama-2 architecture in MIL, weights as inputs: the parts of a training step, one sequence [S, C] at a time.

Matrices are [out, in], as in llama2.c. Parts follow each other: what looks tokens up, layers, the last norm,
the classifier, and the loss. Ops bear names that begin with the part's, so that a profile tells them apart.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
from stories_config import EPSILON, Config
from stories_llama2c import angles

from anex import mb

MOST_PRODUCTS = 16384  # that one element sums, up to the M3
HIDDEN = -1e4  # added to scores of what a position may not see; fp16 has it


class Model:
    """Makes ops of one model in ``dtype``, the dtype of its weights."""

    def __init__(self, config: Config, dtype: str = "float32") -> None:
        self.config, self.dtype = config, dtype

    def body(self, x: Any, w: Mapping[str, Any]) -> Any:
        """All layers: [S, C] to [S, C]."""
        for i in range(self.config.n_layers):
            x = mb.add(x=x, y=self._attention(self.norm(x, w[f"attention_norm_{i}"], f"rms_a{i}"), i, w))
            x = mb.add(x=x, y=self._ffn(self.norm(x, w[f"ffn_norm_{i}"], f"rms_f{i}"), i, w))
        return x

    def norm(self, x: Any, weight: Any, name: str) -> Any:
        """x / sqrt(mean of x^2 + epsilon), times the weight.

        In float16 of 4 x, which is the same: the cube of 1 / sqrt(..), which the way back takes, stays below 65504
        where x is 0.02, as in weights that nothing was learned with, and squares do up to 60.
        """
        times = 4 if self.dtype == "float16" else 1
        x = x if times == 1 else mb.mul(x=x, y=self._number(times)[()], name=f"{name}_times")
        mean = mb.reduce_mean(x=mb.square(x=x, name=f"{name}_square"), axes=[-1], keep_dims=True, name=f"{name}_mean")
        scale = mb.rsqrt(x=mean, epsilon=self._number(EPSILON * times**2)[()], name=f"{name}_rsqrt")
        return mb.mul(x=mb.mul(x=x, y=scale, name=f"{name}_scaled"), y=weight, name=name)

    def logits(self, x: Any, weight: Any) -> Any:
        """[S, C] to [S, V].

        In float16 by parts of the vocabulary, since the way back sums over it, and so many products at once the
        Neural Engine does not sum.
        """
        parts = math.ceil(self.config.vocab_size / MOST_PRODUCTS) if self.dtype == "float16" else 1
        if parts == 1:
            return mb.matmul(x=x, y=weight, transpose_y=True, name="cls_logits")
        sizes = [len(part) for part in np.array_split(np.arange(self.config.vocab_size), parts)]
        rows = mb.split(x=weight, split_sizes=sizes, axis=0, name="cls_rows")
        each = [mb.matmul(x=x, y=y, transpose_y=True, name=f"cls_part{i}") for i, y in enumerate(rows)]
        return mb.concat(values=each, axis=1, name="cls_logits")

    def loss(self, logits: Any, targets: Any) -> Any:
        """The mean cross entropy, [1, 1], in nats. ``targets``: int32 [S, 1], or one-hot rows [S, V]."""
        if len(targets.shape) == 2 and targets.shape[1] == 1:
            right = mb.gather_along_axis(x=logits, indices=targets, axis=1, name="cls_right")
        else:
            right = mb.mul(x=logits, y=targets, name="cls_chosen")
            right = mb.reduce_sum(x=right, axes=[1], keep_dims=True, name="cls_right")
        whole = mb.reduce_log_sum_exp(x=logits, axes=[1], keep_dims=True, name="cls_whole")
        each = mb.sub(x=whole, y=right, name="cls_each")
        return mb.reduce_mean(x=each, axes=[0, 1], keep_dims=True, name="loss")

    def mask(self, length: int) -> Any:
        """Added to the scores: what a position may not see."""
        return self._number(np.triu(np.full((length, length), HIDDEN), 1))

    def turn(self, length: int) -> tuple[Any, Any]:
        """Cosines and sines of the positions, [S, size / 2]."""
        turn = angles(self.config)[:length]
        return self._number(np.cos(turn)), self._number(np.sin(turn))

    def remembered(self, k: Any, v: Any, i: int) -> tuple[Any, Any]:
        """The keys and values that queries of layer ``i`` see, [heads, S, size]: those of the same sequence."""
        return k, v

    def _attention(self, x: Any, i: int, w: Mapping[str, Any]) -> Any:
        config, length = self.config, x.shape[0]
        q, k, v = (
            self._heads(mb.matmul(x=x, y=w[f"{name}_{i}"], transpose_y=True), count)
            for name, count in (("wq", config.n_heads), ("wk", config.n_kv_heads), ("wv", config.n_kv_heads))
        )
        q, k = self._turned(q), self._turned(k)
        k, v = (self._shared(each) for each in self.remembered(k, v, i))
        scores = mb.matmul(x=mb.mul(x=q, y=self._number(config.head_size**-0.5)[()]), y=k, transpose_y=True)
        mixed = mb.matmul(x=mb.softmax(x=mb.add(x=scores, y=self.mask(length)), axis=-1), y=v)
        mixed = mb.reshape(x=mb.transpose(x=mixed, perm=[1, 0, 2]), shape=[length, config.dim])
        return mb.matmul(x=mixed, y=w[f"wo_{i}"], transpose_y=True)

    def _ffn(self, x: Any, i: int, w: Mapping[str, Any]) -> Any:
        gate = mb.silu(x=mb.matmul(x=x, y=w[f"w1_{i}"], transpose_y=True))
        hidden = mb.mul(x=gate, y=mb.matmul(x=x, y=w[f"w3_{i}"], transpose_y=True))
        return mb.matmul(x=hidden, y=w[f"w2_{i}"], transpose_y=True)

    def _heads(self, x: Any, count: int) -> Any:
        """[S, heads * size] to [heads, S, size]."""
        return mb.transpose(x=mb.reshape(x=x, shape=[x.shape[0], count, self.config.head_size]), perm=[1, 0, 2])

    def _shared(self, x: Any) -> Any:
        """Heads of keys and values, each as often as heads of queries share it."""
        times = self.config.n_heads // self.config.n_kv_heads
        if times == 1:
            return x
        count, length, size = x.shape
        many = mb.tile(x=mb.reshape(x=x, shape=[count, 1, length, size]), reps=[1, times, 1, 1])
        return mb.reshape(x=many, shape=[count * times, length, size])

    def _turned(self, x: Any) -> Any:
        """Rotary positions: the first half of a head with the second."""
        first, second = mb.split(x=x, num_splits=2, axis=2)
        cos, sin = self.turn(x.shape[1])
        return mb.concat(
            values=[
                mb.sub(x=mb.mul(x=first, y=cos), y=mb.mul(x=second, y=sin)),
                mb.add(x=mb.mul(x=first, y=sin), y=mb.mul(x=second, y=cos)),
            ],
            axis=2,
        )

    def _number(self, value: Any) -> np.ndarray:
        return np.asarray(value).astype(self.dtype)
