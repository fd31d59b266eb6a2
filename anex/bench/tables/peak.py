"""``inmem_peak``: chains of 1x1 convolutions, compiled in memory from MIL."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import partial

from ..columns import CONFIG, GFLOP, MHZ, MS, TFLOPS, WEIGHTS, conv_facts, conv_match, share
from ..machine import peak_tflops
from ..programs import conv_chain
from ..record import Benchmark, Config, Row, register

# (layers, channels)
SQUARE = ((128, 512), (96, 512), (64, 512), (128, 384), (256, 256), (128, 256))
LINE = (
    (32, 512),
    (48, 512),
    (64, 512),
    (96, 512),
    (128, 512),
    (64, 256),
    (128, 256),
    (256, 256),
    (64, 384),
    (128, 384),
)
PRESETS = {"seed000": (SQUARE, "64", False), "seed002": (LINE, "64x1", True)}


def size(sp: str) -> tuple[int, int]:
    """Height and width of ``--sp``: ``64`` is 64x64, ``64x1`` is one row of 64.

    >>> size("64"), size("64x1")
    ((64, 64), (1, 64))
    """
    width, _, height = sp.partition("x")
    return int(height or width), int(width)


def label(depth: int, channels: int, height: int, width: int) -> str:
    return f"{depth}x conv {channels}ch " + (f"sp{width}" if height == 1 else f"{height}x{width}")


def rows_of(preset: str, sp: str) -> str:
    """Whose rows: those of the original tool are on one row of 64, and go by default with that size."""
    return preset or ("seed002" if sp == PRESETS["seed002"][1] else "seed000")


def before(*, preset: str = "", batch: int = 1, sp: str = "", relu: bool = False) -> list[str]:
    height, width = size(sp or PRESETS[rows_of(preset, sp)][1])
    return [f"batch={batch}, sp={height}x{width}" + (", a relu after each convolution" if relu else "")]


def configs(*, preset: str = "", batch: int = 1, sp: str = "", relu: bool = False) -> Iterator[Config]:
    shapes, usual, fp32 = PRESETS[rows_of(preset, sp)]
    height, width = size(sp or usual)
    for depth, channels in shapes:
        yield Config(
            label(depth, channels, height, width),
            conv_facts(depth, channels, height, width, batch),
            {"eval": partial(conv_chain, depth, channels, height, width, batch=batch, relu=relu, fp32=fp32)},
            conv_match(depth, channels, height, width, batch, "fp16"),
        )


def observed(rows: Sequence[Row]) -> list[str]:
    """The line under the table of seed 002."""
    done = [row for row in rows if row.timings]
    if not done:
        return []
    best = max(done, key=lambda row: TFLOPS.of(row))
    return [f"Peak observed: {TFLOPS.text(best)} TFLOPS ({best.config.label}, {best['weight_mb']:.0f} MB weights)"]


PEAK = register(
    Benchmark(
        "peak",
        "Programmatic MIL, in-memory peak (FP16)",
        "inmem_peak (seeds 000 and 002)",
        ("seed000", "peak"),
        (CONFIG, WEIGHTS, GFLOP, MS, TFLOPS, share("of_peak", "%peak", peak_tflops()), MHZ),
        configs,
        before,
        observed,
        quick={"preset": "seed002"},
    )
)
