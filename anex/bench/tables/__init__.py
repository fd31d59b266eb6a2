"""The published benchmarks, one file each, by the name of their command."""

from __future__ import annotations

from . import depth, fused, inmem, int8, matmul, peak, sram  # noqa: F401  each registers its own
