"""Attention as one op."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from .acceptance import SWEPT, conditional
from .attention_vjp import attention as back
from .limits import ATTENTION
from .record import define, shape

if TYPE_CHECKING:
    from coremltools.converters.mil.mil import Operation


def attention(op: Operation) -> int:
    """The two products and, at 5 FLOP per score, the scaled softmax between them."""
    *batch, queries, width = shape(op.inputs["query"])
    keys, out = shape(op.inputs["key"])[-2], shape(op.inputs["value"])[-1]
    return math.prod(batch) * queries * keys * (2 * width + 5 + 2 * out)


define(
    "scaled_dot_product_attention",
    flops=attention,
    ane=[conditional("without a mask, and short", SWEPT, "FRG", "MDX"), *ATTENTION],
    vjp=back,
)
