"""``inmem_bench``: one 1x1 convolution, from an .mlpackage as published, or from MIL."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from ..columns import CONFIG, MS, TFLOPS, WEIGHTS_ALONE, conv_facts, conv_match
from ..packages import convolution
from ..record import Benchmark, Config, register

CHANNELS = (256, 512, 1024, 2048, 3072, 4096)
SPATIAL = 64


def configs(*, by: str = "mlpackage", packages: Path | None = None) -> Iterator[Config]:
    for channels in CHANNELS:
        yield Config(
            f"{channels}ch x{SPATIAL}sp", conv_facts(1, channels, 1, SPATIAL),
            {"eval": convolution(channels, SPATIAL, by, packages)}, conv_match(1, channels, 1, SPATIAL, 1, "fp16"),
        )  # fmt: skip


register(
    Benchmark(
        "inmem",
        "In-memory benchmark (one convolution)",
        "inmem_bench (seed 002)",
        ("seed002", "inmem_bench"),
        (CONFIG, WEIGHTS_ALONE, MS, TFLOPS),
        configs,
    )
)
