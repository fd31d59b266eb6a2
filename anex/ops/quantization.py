"""Integers to floats and back, at run time and (constexpr) of weights."""

from __future__ import annotations

from .record import define, per_element

define("quantize", flops=per_element(2))  # as the published profiler counts it
define("dequantize", flops=per_element(2))
define("constexpr_affine_dequantize", flops=per_element(2))
define("constexpr_blockwise_shift_scale", flops=per_element(2))
define("constexpr_sparse_blockwise_shift_scale", flops=per_element(2))
define("constexpr_cast")
define("constexpr_lut_to_dense")
define("constexpr_lut_to_sparse")
define("constexpr_sparse_to_dense")
