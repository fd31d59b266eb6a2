"""Softmax and norms."""

from __future__ import annotations

from typing import TYPE_CHECKING

from . import normalization_vjp as back
from .acceptance import SWEPT, conditional, listed, ran
from .limits import L2_NORM, LAYER_NORM_COST, RESPONSE_NORM, SOFTMAX
from .record import define, per_element, size, value

if TYPE_CHECKING:
    from coremltools.converters.mil.mil import Operation


def local_response_norm(op: Operation) -> int:
    """A window's sum of squares, then x / (k + alpha * sum) ** beta."""
    return (2 * int(value(op, "size")) + 4) * size(op.outputs[0])


define("softmax", flops=per_element(5), ane=[listed(), *SOFTMAX], vjp=back.softmax)  # max, subtract, exp, sum, divide
define(
    "layer_norm",
    flops=per_element(8),  # mean 1, variance 3, normalize 2, gamma and beta 2
    ane=[conditional("taken, and slow", SWEPT, "FIT"), LAYER_NORM_COST],
    vjp=back.layer_norm,
)
define("instance_norm", flops=per_element(8), ane=[ran(0.00076)], vjp=back.instance_norm)
define(
    "batch_norm",
    flops=per_element(2),  # mean, variance, gamma and beta are one factor and one term
    ane=[ran(0.00037)],
    vjp=back.batch_norm,
)
define(
    "l2_norm",
    flops=per_element(3),
    ane=[conditional("norms over all axes but the first", SWEPT, "FRG"), L2_NORM],
    vjp=back.l2_norm,
)
define(
    "local_response_norm",
    flops=local_response_norm,
    ane=[conditional("native up to 15 channels", SWEPT, "FRG"), RESPONSE_NORM],
    vjp=back.local_response_norm,
)
