"""Pooling: every output looks at one window."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from . import pool_vjp as back
from .acceptance import CATALOGUE, SWEPT, conditional
from .limits import POOL
from .record import Cost, define, size, value

if TYPE_CHECKING:
    from coremltools.converters.mil.mil import Operation


def per_window_element(count: int) -> Cost:
    def flops(op: Operation) -> int:
        return count * size(op.outputs[0]) * math.prod(map(int, value(op, "kernel_sizes")))

    return flops


define(
    "avg_pool",
    flops=per_window_element(1),
    ane=[conditional("windows up to 29 on M1, 31 later", SWEPT, "FRG"), POOL],
    vjp=back.avg_pool,
)
define(
    "max_pool",
    flops=per_window_element(1),
    ane=[conditional("windows up to 29 on M1, 31 later", SWEPT, "FRG"), POOL],
    vjp=back.max_pool,
)
define(
    "l2_pool", flops=per_window_element(2), ane=[conditional("by a table", SWEPT, CATALOGUE), POOL], vjp=back.l2_pool
)
