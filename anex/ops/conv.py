"""Convolutions: two FLOP per weight and position."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from . import conv_vjp as back
from .acceptance import SWEPT, conditional, refused
from .gradient import NoGradient
from .limits import CONV
from .record import define, shape, size

if TYPE_CHECKING:
    from coremltools.converters.mil.mil import Operation


def convolution(op: Operation) -> int:
    """Each output gathers; weight: [out, in / groups, *kernel]."""
    return 2 * size(op.outputs[0]) * math.prod(shape(op.inputs["weight"])[1:])


def transposed_convolution(op: Operation) -> int:
    """Each input spreads; weight: [in, out / groups, *kernel]."""
    return 2 * size(op.inputs["x"]) * math.prod(shape(op.inputs["weight"])[1:])


CODES = NoGradient("its weight is codes, for inference; use conv, which has a gradient", is_zero=False)

define(
    "conv",
    flops=convolution,
    ane=[conditional("constant weights, or weights that are inputs with a batch of 1", SWEPT, "FRG"), *CONV],
    vjp=back.conv,
)
define(
    "conv_quantized",
    flops=convolution,
    ane=[refused(fix="use conv, its weight of constexpr_affine_dequantize")],
    vjp=CODES,
)
define(
    "conv_transpose",
    flops=transposed_convolution,
    ane=[conditional("as conv, with narrower kernels on strided axes", SWEPT, "FRG"), *CONV[:5]],
    vjp=back.conv_transpose,
)
