"""Attention and softmax in ops whose results are right at every size."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

from ..ops.limits import TILED
from ..ops.record import shape, value
from .record import Pass, like, rewrite

if TYPE_CHECKING:
    from coremltools.converters.mil.mil import Operation, Program, Var

HIDDEN = -65504.0  # fp16's lowest; how -inf fares on the engine is not known


def _attention(op: Operation, mb: Any) -> Var:
    """softmax(q k^T / sqrt(E) + mask) v. query: [*batch, L, E], key: [*batch, S, E], value: [*batch, S, EV].

    The query is scaled, not the scores, to keep them clear of fp16's end.
    """
    from coremltools.converters.mil.mil import types

    query, key, mask = op.inputs["query"], op.inputs["key"], op.inputs.get("attn_mask")
    scaled = mb.mul(x=query, y=like(query, 1 / math.sqrt(shape(query)[-1])))
    scores = mb.matmul(x=scaled, y=key, transpose_x=False, transpose_y=True)
    if mask is not None and mask.dtype == types.bool:
        scores = mb.select(cond=_whole(mb, mask, scores), a=scores, b=like(scores, HIDDEN))
    elif mask is not None:
        if mask.dtype != scores.dtype:
            mask = mb.cast(x=mask, dtype="fp16" if scores.dtype == types.fp16 else "fp32")
        scores = mb.add(x=scores, y=mask)
    weights = mb.softmax(x=scores, axis=-1)
    result: Var = mb.matmul(x=weights, y=op.inputs["value"], transpose_x=False, transpose_y=False)
    return result


def _whole(mb: Any, mask: Var, scores: Var) -> Var:
    """The mask with as many axes as the scores, whose shape ``select`` then broadcasts it to."""
    missing = len(scores.shape) - len(mask.shape)
    return mask if missing <= 0 else mb.expand_dims(x=mask, axes=list(range(missing)))


def _softmax(op: Operation, mb: Any) -> Var | None:
    """exp(x - max x) / sum exp(x - max x)"""
    x, axis = op.inputs["x"], int(value(op, "axis", -1))
    if shape(x)[axis] < TILED:
        return None
    exp = mb.exp(x=mb.sub(x=x, y=mb.reduce_max(x=x, axes=[axis], keep_dims=True)))
    result: Var = mb.real_div(x=exp, y=mb.reduce_sum(x=exp, axes=[axis], keep_dims=True))
    return result


def _decompose_attention(program: Program) -> None:
    rewrite(program, "scaled_dot_product_attention", to=_attention)


def _decompose_softmax(program: Program) -> None:
    rewrite(program, "softmax", to=_softmax)


SDPA_DECOMPOSE = Pass(
    "sdpa_decompose",
    "writes attention as matmul, mask, softmax and matmul: the op ignores its mask, and is wrong when long",
    ("MDX: mask ignored on M4 and M5", "ORI: on M4 Max", "FRG: wrong above 2048 tokens"),
    _decompose_attention,
)
SOFTMAX_DECOMPOSE = Pass(
    "softmax_decompose",
    f"writes softmax over {TILED} elements and more as max, sub, exp, sum and division: the op is off when tiled",
    ("H3: 2 % off at 512, useless at 15744; written out it is exact",),
    _decompose_softmax,
)
