"""Integers to floats and back, at run time and (constexpr) of weights."""

from __future__ import annotations

from .acceptance import CATALOGUE, SWEPT, compiled, conditional, no_native_layer, ran
from .gradient import CONSTANT, INTEGER, STEPS
from .limits import STREAMS_FROM_M2, STREAMS_FROM_M3
from .record import define, per_element

define("quantize", flops=per_element(2), ane=[ran(0.00027)], vjp=STEPS)  # as the published profiler counts it
define("dequantize", flops=per_element(2), ane=[ran(0.00027)], vjp=INTEGER)
define(
    "constexpr_affine_dequantize",
    flops=per_element(2),
    ane=[conditional("int8 weights stream from M2 on", SWEPT, "FRG", "S03"), STREAMS_FROM_M2],
    vjp=CONSTANT,
)
define(
    "constexpr_blockwise_shift_scale",
    flops=per_element(2),
    ane=[conditional("streams from M3 on", SWEPT, "FRG"), STREAMS_FROM_M3],
    vjp=CONSTANT,
)
define(
    "constexpr_sparse_blockwise_shift_scale",
    flops=per_element(2),
    ane=[conditional("streams from M3 on; values not compared", SWEPT, CATALOGUE), STREAMS_FROM_M3],
    vjp=CONSTANT,
)
define("constexpr_cast", ane=[ran(0), no_native_layer("walled")], vjp=CONSTANT)
define("constexpr_lut_to_dense", ane=[conditional("streams on every chip", SWEPT, "FRG")], vjp=CONSTANT)
define("constexpr_lut_to_sparse", ane=[compiled(), no_native_layer("bridged")], vjp=CONSTANT)
define(
    "constexpr_sparse_to_dense",
    ane=[conditional("streams on every chip; worth it from half zeros on", SWEPT, "FRG")],
    vjp=CONSTANT,
)
