"""Reductions, running sums and sorting."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from . import reduction_vjp as back
from .acceptance import CATALOGUE, SWEPT, conditional, native_but_refused, ran, refused, since
from .gradient import COMPARES, NoGradient
from .indexing_vjp import topk
from .limits import ARGMAX, MEAN, ON_M1, REDUCE_ROUTE, SUM, TOPK
from .record import define, per_input_element, shape, size, value

if TYPE_CHECKING:
    from coremltools.converters.mil.mil import Operation

CHOICE = "choose on the host"
SUPPRESSION = NoGradient(
    "chooses boxes; take them by the indices it gives with gather, which has a gradient", is_zero=False
)


def sort(op: Operation) -> int:
    """n log2 n comparisons along the axis."""
    along = shape(op.inputs["x"])[int(value(op, "axis", -1))]
    return size(op.inputs["x"]) * max(1, math.ceil(math.log2(along)))


def suppression(op: Operation) -> int:
    """12 FLOP per overlap of each chosen box with all the others; boxes: [batch, boxes, 4]."""
    boxes = size(op.inputs["boxes"]) // 4
    return 12 * boxes * min(shape(op.inputs["boxes"])[1], int(value(op, "max_boxes", 1)))


define(
    "reduce_sum",
    flops=per_input_element(1),
    ane=[conditional("adds in fp16", SWEPT, "FRG"), SUM, REDUCE_ROUTE, ON_M1],
    vjp=back.reduce_sum,
)
define("reduce_mean", flops=per_input_element(1), ane=[ran(0.0008), MEAN, ON_M1], vjp=back.reduce_mean)
define("reduce_sum_square", flops=per_input_element(2), ane=[ran(0.00054)], vjp=back.reduce_sum_square)
define("reduce_l1_norm", flops=per_input_element(2), ane=[ran(0.00071)], vjp=back.reduce_l1_norm)
define("reduce_l2_norm", flops=per_input_element(2), ane=[ran(0.00051)], vjp=back.reduce_l2_norm)
define("reduce_log_sum", flops=per_input_element(1), ane=[ran(0.00091)], vjp=back.reduce_log_sum)
define(
    "reduce_log_sum_exp", flops=per_input_element(4), ane=[ran(0.00077)], vjp=back.reduce_log_sum_exp
)  # max, subtract, exp, sum
define(
    "reduce_prod",
    flops=per_input_element(1),
    ane=[
        refused(
            fix="exp of reduce_sum of log, for positive x",
            cure="rewrite_refused",
            source=(f"{SWEPT}: refused", CATALOGUE, "FRG"),
        )
    ],
    vjp=back.reduce_prod,
)
define("reduce_max", flops=per_input_element(1), ane=[ran(0), ON_M1], vjp=back.reduce_max)
define("reduce_min", flops=per_input_element(1), ane=[ran(0), ON_M1], vjp=back.reduce_min)
define(
    "reduce_argmax",
    flops=per_input_element(1),
    ane=[
        conditional("contested; the last axis, indices below 2048", SWEPT, "FRG"),
        native_but_refused(fix=CHOICE),
        ARGMAX,
    ],
    vjp=COMPARES,
)
define(
    "reduce_argmin",
    flops=per_input_element(1),
    ane=[
        conditional("contested; from M3 on by the catalogue", SWEPT, CATALOGUE),
        native_but_refused(fix=CHOICE),
        ARGMAX,
    ],
    vjp=COMPARES,
)
define(
    "cumsum",
    flops=per_input_element(1),
    ane=[
        conditional("as a product with a triangle of ones", SWEPT, "FRG"),
        native_but_refused(fix="multiply by a triangular matrix of ones", cure="rewrite_refused"),
    ],
    vjp=back.cumsum,
)
define(
    "topk",
    flops=sort,
    ane=[conditional("from M2 on, in a program of its own", SWEPT, "FRG"), TOPK, since("h14", fix=CHOICE), ARGMAX],
    vjp=topk,
)
define("argsort", flops=sort, ane=[native_but_refused(fix="sort on the host")], vjp=COMPARES)
define(
    "non_maximum_suppression",
    flops=suppression,
    ane=[conditional("compiles; the order of its boxes was not compared", SWEPT, "S04")],
    vjp=SUPPRESSION,
)
