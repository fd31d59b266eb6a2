"""``quant_probe``: does the engine compute with quantised weights, or only store them? Five encodings, five shapes."""

from __future__ import annotations

import zlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np

from ..columns import MIB, MS, TFLOPS, conv_facts, conv_match
from ..encodings import ENCODINGS, Encoding, convolution, reference, weight_only_chain
from ..programs import conv_chain, int8_chain
from ..record import Benchmark, Column, Config, Row, register
from ..timing import Effort

SHAPES = ((768, 768), (2048, 768), (768, 2048), (1024, 1024), (2048, 2048))  # out, in
SPATIAL = 64


def given(into: int) -> np.ndarray:
    x: np.ndarray = np.random.default_rng(zlib.crc32(b"quant")).standard_normal((1, into, 1, SPATIAL), np.float32)
    return x


def error(encoding: Encoding, out: int, into: int, outputs: Mapping[str, Any]) -> dict[str, float]:
    """Against float64 with the dequantised weights."""
    wanted = reference(encoding, out, into, given(into))
    return {"max_error": float(np.abs(outputs["eval"][0].astype(np.float64) - wanted).max())}


def configs(*, shapes: Sequence[tuple[int, int]] = SHAPES) -> Iterator[Config]:
    for out, into in shapes:
        for encoding in ENCODINGS:
            yield Config(
                f"{encoding.name} {out}x{into}",
                {"out": out, "in": into, "gflop": 2 * out * into * SPATIAL / 1e9,
                 "weight_mb": out * into * encoding.bytes_per_weight / MIB},
                {"eval": partial(convolution, encoding, out, into, SPATIAL)},
                inputs={"x": given(into)}, check=partial(error, encoding, out, into),
            )  # fmt: skip


def compared(rows: Sequence[Row]) -> list[str]:
    """Each encoding against plain fp16 of the same shape, and how the published probe reads that."""
    for row in rows:
        plain = next((r for r in rows if (r["out"], r["in"]) == (row["out"], row["in"]) and r.timings), None)
        if plain is not None and row.timings:
            row.found["ratio"] = plain.ms() / row.ms()
    return [
        "Reading: about 2x means that int8 is computed natively, about 4x int4; the same time means that weights",
        "become fp16 before they are used, which saves memory only.",
    ]


register(
    Benchmark(
        "quant", "Weights in five encodings, five shapes", "quant_probe (seed 003)", ("seed003", "quant"),
        (Column("name", "name", "{}", lambda row: row.config.label), replace(MS, title="ms"), TFLOPS,
         Column("ratio", "x fp16", "{:.2f}x", lambda row: row.found["ratio"]),
         Column("max_error", "max error", "{:.1e}", lambda row: row.found["max_error"])),
        configs, notes=compared, quick={"shapes": SHAPES[:1]}, quick_rows=len(ENCODINGS), usual=Effort(5, 100),
    )
)  # fmt: skip


def weight_only(*, depth: int = 32, channels: int = 512, size: int = 64) -> Iterator[Config]:
    """One chain in three forms, so that both published claims stand side by side."""
    sizes = (depth, channels, size, size)
    yield Config(
        f"{depth}x conv {channels}ch {size}x{size}", conv_facts(*sizes),
        {"fp16": partial(conv_chain, *sizes), "w8": partial(weight_only_chain, *sizes),
         "w8a8": partial(int8_chain, *sizes)},
        conv_match(*sizes, 1, "fp16"),
    )  # fmt: skip


def of(name: str) -> Column:
    return Column(f"{name}_ms", f"{name} ms", "{:.3f}", lambda row: row.ms(name), "ms")


def gain(name: str) -> Column:
    return Column(f"{name}_ratio", "ratio", "{:.2f}x", lambda row: row.ms("fp16") / row.ms(name))


register(
    Benchmark(
        "weight-only", "int8 weights alone, and with int8 activations",
        "INT8 = FP16 (seed 001, weights alone) beside 1.88x (seed 000, W8A8)", ("seed000", "peak_int8"),
        (Column("op", "op", "{}", lambda row: row.config.label), of("fp16"), of("w8"), gain("w8"), of("w8a8"),
         gain("w8a8")),
        weight_only, quick={"depth": 4},
    )
)  # fmt: skip
