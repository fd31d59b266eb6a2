"""The published benchmarks, one file each, by the name of their command."""

from __future__ import annotations

from . import calls, depth, fused, inmem, int8, lm_head, matmul, peak, power, quant, sram  # noqa: F401  each registers its own
