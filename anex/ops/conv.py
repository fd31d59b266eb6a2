"""Convolutions: two FLOP per weight and position."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from .record import define, shape, size

if TYPE_CHECKING:
    from coremltools.converters.mil.mil import Operation


def convolution(op: Operation) -> int:
    """Each output gathers; weight: [out, in / groups, *kernel]."""
    return 2 * size(op.outputs[0]) * math.prod(shape(op.inputs["weight"])[1:])


def transposed_convolution(op: Operation) -> int:
    """Each input spreads; weight: [in, out / groups, *kernel]."""
    return 2 * size(op.inputs["x"]) * math.prod(shape(op.inputs["weight"])[1:])


define("conv", flops=convolution)
define("conv_transpose", flops=transposed_convolution)
