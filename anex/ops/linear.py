"""Matrix products: two FLOP per multiply-add."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from . import linear_vjp as back
from .acceptance import SWEPT, conditional
from .limits import MATMUL, PRODUCT, PRODUCT_RANGE
from .record import define, shape, size, value

if TYPE_CHECKING:
    from coremltools.converters.mil.mil import Operation


def linear(op: Operation) -> int:
    """weight: [out, in]."""
    return 2 * size(op.outputs[0]) * shape(op.inputs["weight"])[-1]


def matmul(op: Operation) -> int:
    x = shape(op.inputs["x"])
    inner = x[-2] if len(x) > 1 and value(op, "transpose_x", False) else x[-1]
    return 2 * size(op.outputs[0]) * inner


def einsum(op: Operation) -> int:
    """A multiply-add for each choice of all the indices of the equation."""
    operands = str(value(op, "equation")).replace(" ", "").split("->")[0].split(",")
    extents: dict[str, int] = {}
    for letters, var in zip(operands, op.inputs["values"], strict=True):
        for letter, extent in zip(letters, shape(var), strict=True):
            extents[letter] = max(extent, extents.get(letter, 1))
    return 2 * math.prod(extents.values())


define(
    "linear",
    flops=linear,
    ane=[conditional("constant weights; vocabularies above the extent limit in tiles", SWEPT, "FRG"), *PRODUCT],
    vjp=back.linear,
)
define(
    "matmul",
    flops=matmul,
    ane=[
        conditional(
            "within extents and half of fp16's range; 1.1 to 3 times slower than a 1x1 conv", SWEPT, "FRG", "MDX"
        ),
        *MATMUL,
    ],
    vjp=back.matmul,
)
define(
    "einsum",
    flops=einsum,
    ane=[conditional("as transpose and matmul, where those stay within rank 4", SWEPT, "FRG"), PRODUCT_RANGE],
    vjp=back.einsum,
)
