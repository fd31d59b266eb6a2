"""How much of the peak a chain reaches, by its depth (seed 001: 30 % with one layer, 94 % from 32 on)."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import partial

from ..columns import GFLOP, MS, TFLOPS, conv_facts, conv_match, share
from ..programs import conv_chain
from ..record import Benchmark, Column, Config, register

DEPTHS = (1, 2, 4, 8, 16, 32, 64)
CHANNELS, SIZE = 512, 64
PUBLISHED_PEAK = 19.0  # TFLOPS of M4, as seed 001 has it


def configs(*, depths: Sequence[int] = DEPTHS, channels: int = CHANNELS, size: int = SIZE) -> Iterator[Config]:
    for depth in depths:
        yield Config(
            f"{depth}", conv_facts(depth, channels, size, size),
            {"eval": partial(conv_chain, depth, channels, size, size)},
            conv_match(depth, channels, size, size, 1, "fp16"),
        )  # fmt: skip


register(
    Benchmark(
        "depth",
        "Throughput by depth (1x1 convolutions)",
        "depth scaling (seed 001)",
        ("seed001", "peak"),
        (
            Column("depth", "depth", "{}", lambda row: row.config.label),
            GFLOP,
            MS,
            TFLOPS,
            share("of_peak", "% peak", PUBLISHED_PEAK),
        ),
        configs,
        lambda **_: [f"% peak is of the {PUBLISHED_PEAK:g} TFLOPS of M4 that were published"],
        x="depth",
    )
)
