"""Matrix products: two FLOP per multiply-add."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

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


define("linear", flops=linear)
define("matmul", flops=matmul)
define("einsum", flops=einsum)
