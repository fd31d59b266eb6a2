"""``sram_bench`` and ``sram_probe``: one 1x1 convolution, wider and wider, until it no longer fits on the chip."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

from ..columns import CONFIG, MS, TFLOPS, WEIGHTS_ALONE, conv_facts, conv_match, tflops
from ..packages import SIZES, convolution
from ..record import Benchmark, Column, Config, Row, register

FINE = SIZES
COARSE = tuple(size for size in FINE if size[0] not in (1536, 2560, 3584, 4608))
SPILLING, CATASTROPHIC = 100.0, 10.0  # GFLOPS per MiB of weights


def config(channels: int, width: int, label: str, by: str, packages: Path | None) -> Config:
    return Config(
        label, conv_facts(1, channels, 1, width), {"eval": convolution(channels, width, by, packages)},
        conv_match(1, channels, 1, width, 1, "fp16"),
    )  # fmt: skip


def coarse(*, by: str = "mil", packages: Path | None = None) -> Iterator[Config]:
    for channels, width in COARSE:
        yield config(channels, width, f"{channels}ch x {width}sp", by, packages)


def fine(*, by: str = "mil", packages: Path | None = None) -> Iterator[Config]:
    for channels, width in FINE:
        yield config(channels, width, f"{channels} ch", by, packages)


def efficiency(row: Row) -> float:
    """GFLOPS per MiB of weights."""
    return 1000 * tflops(row) / row["weight_mb"]


def marked(rows: Sequence[Row]) -> list[str]:
    """Marks the rows as the published table does, and says between which sizes the memory on the chip ends.

    The first row is never said to spill: so small a convolution is all overhead.
    """
    done = [row for row in rows if row.timings]
    if not done:
        return []
    best = max(done, key=efficiency)
    best.marks.append("peak efficiency")
    spilling = [row for row in done[1:] if efficiency(row) < SPILLING]
    for row in spilling:
        row.marks.append("catastrophic spilling" if efficiency(row) < CATASTROPHIC else "spilling")
    lines = [f"Peak efficiency at {best['channels']:.0f}ch ({best['weight_mb']:.1f} MB weights): "
             f"{efficiency(best):.1f} GFLOPS/MB, {tflops(best):.2f} TFLOPS"]  # fmt: skip
    if spilling:
        first = spilling[0]
        fits = [row for row in done if row["weight_mb"] < first["weight_mb"] and efficiency(row) >= SPILLING]
        if fits:
            lines.append(f"On-chip memory: approx {fits[-1]['weight_mb']:.0f}-{first['weight_mb']:.0f} MB")
        lines.append(f"First spill at {first['channels']:.0f}ch ({first['weight_mb']:.1f} MB): drops to "
                     f"{efficiency(first):.1f} GFLOPS/MB ({tflops(first):.2f} TFLOPS)")  # fmt: skip
        worst = min(spilling, key=efficiency)
        if efficiency(worst) < CATASTROPHIC:
            lines.append(f"Catastrophic at {worst['channels']:.0f}ch ({worst['weight_mb']:.1f} MB): "
                         f"{efficiency(worst):.1f} GFLOPS/MB ({tflops(worst):.2f} TFLOPS)")  # fmt: skip
        back = [row for row in done if row["weight_mb"] > first["weight_mb"] and efficiency(row) >= SPILLING]
        if back:
            lines.append("Recovers at " + ", ".join(f"{row['channels']:.0f}ch" for row in back) + ": tiling, perhaps")
    return lines


ACT = Column("act_mb", "Act(MB)", "{:.2f}", lambda row: row["act_mb"], "MiB")
TOTAL = Column("total_mb", "Tot(MB)", "{:.1f}", lambda row: row["total_mb"], "MiB")
SRAM = register(
    Benchmark(
        "sram",
        "SRAM probe, coarse (channels and spatial)",
        "sram_bench (seed 002)",
        ("seed002", "sram_bench"),
        (CONFIG, WEIGHTS_ALONE, ACT, TOTAL, MS, TFLOPS),
        coarse,
    )
)
FINE_TABLE = register(
    Benchmark(
        "sram-fine",
        "SRAM probe, fine (weights only)",
        "sram_probe (seed 002)",
        ("seed002", "sram_probe"),
        (
            Column("channels", "Channels", "{}", lambda row: row.config.label),
            WEIGHTS_ALONE,
            MS,
            TFLOPS,
            Column("gflops_per_mb", "GFLOPS/MB", "{:.1f}", efficiency, "GFLOPS/MiB"),
        ),
        fine,
        notes=marked,
    )
)
