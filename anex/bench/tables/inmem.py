"""``inmem_bench``: one 1x1 convolution, from an .mlpackage as published, or from MIL."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from ... import store
from ...load import from_mlpackage
from ..columns import CONFIG, MS, TFLOPS, WEIGHTS, conv_facts, conv_match
from ..programs import conv_chain
from ..record import Benchmark, Config, register

if TYPE_CHECKING:
    from coremltools.converters.mil.mil import Program

CHANNELS = (256, 512, 1024, 2048, 3072, 4096)
SPATIAL = 64


def packaged(channels: int, width: int) -> Program:
    """The convolution written to a package and read back."""
    with tempfile.TemporaryDirectory(prefix="anex-bench-") as folder:
        path = Path(folder) / f"ane_sram_{channels}ch_{width}sp.mlpackage"
        store.save(conv_chain(1, channels, 1, width), path)
        return from_mlpackage(path)


def configs(*, by: str = "mlpackage") -> Iterator[Config]:
    for channels in CHANNELS:
        make = (
            partial(packaged, channels, SPATIAL) if by == "mlpackage" else partial(conv_chain, 1, channels, 1, SPATIAL)
        )
        yield Config(
            f"{channels}ch x{SPATIAL}sp", conv_facts(1, channels, 1, SPATIAL), {"eval": make},
            conv_match(1, channels, 1, SPATIAL, 1, "fp16"),
        )  # fmt: skip


INMEM = register(
    Benchmark(
        "inmem",
        "In-memory benchmark (one convolution)",
        "inmem_bench (seed 002)",
        ("seed002", "inmem_bench"),
        (CONFIG, WEIGHTS, MS, TFLOPS),
        configs,
    )
)
