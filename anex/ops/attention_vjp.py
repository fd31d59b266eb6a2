"""The gradient of attention."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np

from .gradient import Thunk, Use, constant_like, once


def attention(mb: Any, use: Use, dy: Any) -> Mapping[str, Thunk]:
    """p = softmax(q k^T / sqrt(width) + mask), y = p v. The probabilities are computed again: [.., queries, keys]."""
    scale = 1 / math.sqrt(use.shape("query")[-1])

    @once
    def probabilities() -> Any:
        query = mb.mul(x=use["query"], y=scale)
        scores = mb.matmul(x=query, y=use["key"], transpose_x=False, transpose_y=True)
        mask = use["attn_mask"]
        if mask is not None and _is_bool(mask):
            shape = [int(n) for n in mask.shape]
            hidden = constant_like(scores, np.full(shape, -3e4))
            mask = mb.select(cond=mask, a=constant_like(scores, np.zeros(shape)), b=hidden)
        return mb.softmax(x=scores if mask is None else mb.add(x=scores, y=mask), axis=-1)

    @once
    def scores() -> Any:
        p = probabilities()
        dp = mb.matmul(x=dy, y=use["value"], transpose_x=False, transpose_y=True)
        mean = mb.reduce_sum(x=mb.mul(x=dy, y=use.output()), axes=[-1], keep_dims=True)
        return mb.mul(x=p, y=mb.sub(x=dp, y=mean))

    def query() -> Any:
        return mb.mul(x=mb.matmul(x=scores(), y=use["key"]), y=scale)

    def key() -> Any:
        return mb.mul(x=mb.matmul(x=scores(), y=use["query"], transpose_x=True, transpose_y=False), y=scale)

    def value() -> Any:
        return mb.matmul(x=probabilities(), y=dy, transpose_x=True, transpose_y=False)

    return {"query": query, "key": key, "value": value, "attn_mask": scores}


def _is_bool(var: Any) -> bool:
    from coremltools.converters.mil.mil import types

    return bool(types.is_bool(var.dtype))
