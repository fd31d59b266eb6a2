"""Reductions, running sums and sorting."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from .record import define, per_input_element, shape, size, value

if TYPE_CHECKING:
    from coremltools.converters.mil.mil import Operation


def sort(op: Operation) -> int:
    """n log2 n comparisons along the axis."""
    along = shape(op.inputs["x"])[int(value(op, "axis", -1))]
    return size(op.inputs["x"]) * max(1, math.ceil(math.log2(along)))


def suppression(op: Operation) -> int:
    """12 FLOP per overlap of each chosen box with all the others; boxes: [batch, boxes, 4]."""
    boxes = size(op.inputs["boxes"]) // 4
    return 12 * boxes * min(shape(op.inputs["boxes"])[1], int(value(op, "max_boxes", 1)))


define("reduce_sum", flops=per_input_element(1))
define("reduce_mean", flops=per_input_element(1))
define("reduce_sum_square", flops=per_input_element(2))
define("reduce_l1_norm", flops=per_input_element(2))
define("reduce_l2_norm", flops=per_input_element(2))
define("reduce_log_sum", flops=per_input_element(1))
define("reduce_log_sum_exp", flops=per_input_element(4))  # max, subtract, exp, sum
define("reduce_prod", flops=per_input_element(1))
define("reduce_max", flops=per_input_element(1))
define("reduce_min", flops=per_input_element(1))
define("reduce_argmax", flops=per_input_element(1))
define("reduce_argmin", flops=per_input_element(1))
define("cumsum", flops=per_input_element(1))
define("topk", flops=sort)
define("argsort", flops=sort)
define("non_maximum_suppression", flops=suppression)
