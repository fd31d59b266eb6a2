"""``inmem_peak_int8``: the same chains with int8 weights and activations (W8A8)."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import partial

from ..columns import CONFIG, MHZ, MS, TFLOPS, WEIGHTS, conv_facts, conv_match, share
from ..machine import peak_tflops
from ..peers import prediction
from ..programs import conv_chain, int8_chain
from ..record import Benchmark, Column, Config, Row, register
from .peak import label, size

SHAPES = ((128, 512), (96, 512), (64, 512), (128, 384), (128, 256))


def configs(*, batch: int = 1, sp: str = "64", relu: bool = False) -> Iterator[Config]:
    height, width = size(sp)
    for depth, channels in SHAPES:
        yield Config(
            label(depth, channels, height, width),
            conv_facts(depth, channels, height, width, batch, weight_bytes=1),
            {"eval": partial(int8_chain, depth, channels, height, width, batch=batch, relu=relu)},
            conv_match(depth, channels, height, width, batch, "w8a8"),
        )


def before(*, batch: int = 1, sp: str = "64", relu: bool = False) -> list[str]:
    layer = "conv(W8) → relu" if relu else "conv(W8)"
    height, width = size(sp)
    return [
        f"batch={batch}, sp={height}x{width}",
        f"FP16 peak: {peak_tflops():.2f} TFLOPS/cluster (derived)",
        f"INT8 peak (if native): {2 * peak_tflops():.2f} TOPS/cluster (derived)",
        f"Data: fp16(in) → [{layer} → quant → dequant] × N → {layer} → fp16(out)",
    ]


def note(rows: Sequence[Row]) -> list[str]:
    return ["%fp16, %int8 and Est.MHz assume 16 MAC arrays × 2048 MACs at 306 MHz: derived, not counted by hardware."]


INT8 = register(
    Benchmark(
        "int8",
        "In-memory peak INT8 W8A8",
        "inmem_peak_int8 (seed 000)",
        ("seed000", "peak_int8"),
        (
            CONFIG,
            WEIGHTS,
            Column("gop", "GOP", "{:.2f}", lambda row: row["gflop"], "GOP"),
            MS,
            replace(TFLOPS, key="tops", title="TOPS", unit="TOPS"),
            share("of_fp16", "%fp16", peak_tflops()),
            share("of_int8", "%int8", 2 * peak_tflops()),
            MHZ,
        ),
        configs,
        before,
        note,
        quick={"sp": "64x1"},
    )
)


DIRECT, CORE_ML = "direct", "Core ML"


def compared(*, batch: int = 1, sp: str = "64", relu: bool = False, depth: int = SHAPES[0][0]) -> Iterator[Config]:
    """fp16 and W8A8 of the deepest chain, by both methods of the result table."""
    height, width = size(sp)
    sizes = (depth, SHAPES[0][1], height, width)
    chains = {"fp16": partial(conv_chain, *sizes, batch=batch, relu=relu),
              "int8": partial(int8_chain, *sizes, batch=batch, relu=relu)}  # fmt: skip
    facts, match = conv_facts(*sizes, batch), conv_match(*sizes, batch, "w8a8")
    yield Config(f"{DIRECT}, {label(*sizes)}", facts, chains, {**match, "path": "private"})
    yield Config(
        f"{CORE_ML}, {label(*sizes)}", facts, {}, {**match, "path": "coreml"},
        peers={name: partial(prediction, make, (batch, sizes[1], height, width)) for name, make in chains.items()},
    )  # fmt: skip


def rate(name: str) -> Column:
    return Column(f"{name}_tops", f"{name.upper()} TOPS", "{:.2f}", lambda row: row["gflop"] / row.ms(name), "TOPS")


def missing(rows: Sequence[Row]) -> list[str]:
    return [f"{CORE_ML}: {row.skipped}" for row in rows if row.skipped]


COMPARE = register(
    Benchmark(
        "int8-compare",
        "FP16 against INT8 W8A8",
        "result table (seed 000)",
        ("seed000", "peak_int8"),
        (
            replace(CONFIG, title="Method"),
            rate("fp16"),
            Column("fp16_ms", "FP16 ms", "{:.1f}", lambda row: row.ms("fp16"), "ms"),
            rate("int8"),
            Column("int8_ms", "INT8 ms", "{:.1f}", lambda row: row.ms("int8"), "ms"),
            Column("ratio", "Ratio", "{:.2f}x", lambda row: row.ms("fp16") / row.ms("int8")),
        ),
        compared,
        notes=missing,
        quick={"sp": "64x1", "depth": 16},
    )
)
