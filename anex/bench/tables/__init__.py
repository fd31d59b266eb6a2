"""The published benchmarks, one file each, by the name of their command."""

from __future__ import annotations

from ...errors import ArgumentError
from ..record import BENCHMARKS, Benchmark
from . import calls, depth, fused, inmem, int8, lm_head, matmul, peak, power, quant, sram  # noqa: F401  each registers its own

__all__ = ["BENCHMARKS", "benchmark"]


def benchmark(name: str) -> Benchmark:
    """The one of that name; ArgumentError where there is none."""
    if name not in BENCHMARKS:
        raise ArgumentError(f"there is no benchmark {name}; there are {', '.join(BENCHMARKS)}")
    return BENCHMARKS[name]
