"""Columns that several published tables share, and the sizes they are computed from."""

from __future__ import annotations

from dataclasses import replace

from .machine import peak_tflops
from .record import Column, Row

MIB = 2**20


def conv_facts(
    depth: int, channels: int, height: int, width: int, batch: int = 1, weight_bytes: int = 2
) -> dict[str, float]:
    """Of a chain of 1x1 convolutions, as the published tools count it: MiB, and GFLOP of 2 a multiply-add."""
    weights = channels * channels * weight_bytes * depth / MIB
    act = channels * height * width * batch * 2 / MIB
    return {
        "depth": depth, "channels": channels, "height": height, "width": width, "batch": batch, "weight_mb": weights,
        "act_mb": act, "total_mb": weights + 2 * act,
        "gflop": 2 * channels * channels * height * width * batch * depth / 1e9,
    }  # fmt: skip


def conv_match(depth: int, channels: int, height: int, width: int, batch: int, dtype: str) -> dict[str, float | str]:
    """The columns of ``anex.published`` that say the same."""
    return {
        "workload": "conv_chain" if depth > 1 else "conv_single", "depth": depth, "in_ch": channels, "out_ch": channels,
        "kernel": 1, "height": height, "width": width, "batch": batch, "dtype": dtype,
    }  # fmt: skip


def tflops(row: Row) -> float:
    """GFLOP / ms.

    The published 274.88 GFLOP in 15.083 ms are 18.22 TFLOPS.
    """
    return row["gflop"] / row.ms()


def estimated_mhz(row: Row) -> float:
    """The clock at which the assumed MAC arrays, all busy, do this much: a derived figure."""
    return 306.0 * tflops(row) / peak_tflops()


WEIGHTS = Column("weight_mb", "W(MB)", "{:.1f}", lambda row: row["weight_mb"], "MiB")
WEIGHTS_ALONE = replace(WEIGHTS, title="W (MB)")  # as the tools of one convolution head it
GFLOP = Column("gflop", "GFLOP", "{:.2f}", lambda row: row["gflop"], "GFLOP")
MS = Column("ms", "ms/eval", "{:.3f} ms", lambda row: row.ms(), "ms")
TFLOPS = Column("tflops", "TFLOPS", "{:.2f}", tflops, "TFLOPS")
MHZ = Column("estimated_mhz", "Est.MHz", "{:.0f}", estimated_mhz, "MHz")
CONFIG = Column("config", "Config", "{}", lambda row: row.config.label)


def share(key: str, title: str, of: float) -> Column:
    """TFLOPS as a percentage of a peak."""
    return Column(key, title, "{:.1f}%", lambda row: 100 * tflops(row) / of, "%")
