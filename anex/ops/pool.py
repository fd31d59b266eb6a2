"""Pooling: every output looks at one window."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from .record import Cost, define, size, value

if TYPE_CHECKING:
    from coremltools.converters.mil.mil import Operation


def per_window_element(count: int) -> Cost:
    def flops(op: Operation) -> int:
        return count * size(op.outputs[0]) * math.prod(map(int, value(op, "kernel_sizes")))

    return flops


define("avg_pool", flops=per_window_element(1))
define("max_pool", flops=per_window_element(1))
define("l2_pool", flops=per_window_element(2))
