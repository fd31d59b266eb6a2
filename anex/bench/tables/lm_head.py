"""The language model's head, 50,257 rows of 768, on one position: on the engine, and in ways of the CPU."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np

from ..._coremltools import builder
from ...build import graph
from ...spec import spec
from ..columns import MIB
from ..programs import SEED, weights
from ..record import Benchmark, Column, Config, register

if TYPE_CHECKING:
    from coremltools.converters.mil.mil import Program, Var

ROWS, WIDTH = 50257, 768
LINE, COLUMN = (1, WIDTH), (WIDTH, 1)


@functools.lru_cache(1)
def head(rows: int = ROWS) -> np.ndarray:
    return weights(np.random.default_rng(SEED), rows, WIDTH)


def given() -> np.ndarray:
    x: np.ndarray = np.random.default_rng(1).standard_normal((1, WIDTH), np.float32)
    return x


def product(dtype: str, form: str, rows: int = ROWS) -> Program:
    """x . head, weights in ``dtype``: as ``linear``, as a 1x1 convolution, as ``matmul`` of head and column, or as the
    sums of what ``mul`` gives of its rows."""
    mb, weight = builder(), head(rows).astype(dtype)
    shape = {"linear": LINE, "dot": LINE, "conv": (1, WIDTH, 1, 1), "column": COLUMN}[form]

    @graph(x=spec(shape, dtype))
    def logits(x: Var) -> Var:
        if form == "linear":
            return mb.linear(x=x, weight=weight)
        if form == "conv":
            return mb.conv(x=x, weight=weight[:, :, None, None])
        if form == "dot":
            return mb.reduce_sum(x=mb.mul(x=weight, y=x), axes=[1])
        return mb.matmul(x=weight, y=x)

    return logits


def int8(rows: int = ROWS) -> Program:
    """8-bit weights with a scale a row, widened while they are read."""
    mb, weight = builder(), head(rows)
    scale = np.float16(np.abs(weight).max(1, keepdims=True) / np.float16(127))
    codes = np.clip(np.rint(weight.astype(np.float32) / scale.astype(np.float32)), -127, 127).astype(np.int8)

    @graph(x=(1, WIDTH))
    def logits(x: Var) -> Var:
        return mb.linear(x=x, weight=mb.constexpr_blockwise_shift_scale(data=codes, scale=scale))

    return logits


def error(rows: int, outputs: Mapping[str, Any]) -> dict[str, float]:
    """The largest, against float64."""
    (found,) = outputs.values()
    wanted = head(rows).astype(np.float64) @ given()[0].astype(np.float16).astype(np.float64)
    return {"max_error": float(np.abs(found[0].reshape(-1).astype(np.float64) - wanted).max())}


Way = tuple[str, Callable[[int], "Program"], tuple[int, ...], float, int]
"""Name, program of so many rows, shape of x, bytes a weight, threads."""


def way(name: str, dtype: str, form: str, shape: tuple[int, ...], bytes_per_weight: float, threads: int) -> Way:
    return name, lambda rows: product(dtype, form, rows), shape, bytes_per_weight, threads


CPU: tuple[Way, ...] = (  # as test_lm_head_fast orders them, and int8
    way("gemv, fp32, 1 thread", "float32", "linear", LINE, 4, 1),
    way("gemv, fp16 widened, 1 thread", "float16", "linear", LINE, 2, 1),
    way("gemv, fp32, all threads", "float32", "linear", LINE, 4, 0),
    way("gemv, fp16 widened, all threads", "float16", "linear", LINE, 2, 0),
    way("gemm with n=1, fp32, all threads", "float32", "column", COLUMN, 4, 0),
    way("row dots by mul and sum, fp32, all threads", "float32", "dot", LINE, 4, 0),
    ("gemv, int8 codes, all threads", int8, LINE, 1, 0),
)
SIMD: tuple[Way, ...] = (  # as test_lm_head_neon has them, as far as this engine does so
    way("fp16 weights, fp32 accumulators, 1 thread", "float16", "linear", LINE, 2, 1),
    way("fp16 weights, fp32 accumulators, all threads", "float16", "linear", LINE, 2, 0),
)
NARROW = ("fp16 weights, fp16 accumulators, 1 thread", "fp16 weights, fp16 accumulators, all threads")


def configs(*, cpu: bool = False, simd: bool = False, rows: int = ROWS) -> Iterator[Config]:
    """Without ``cpu`` and ``simd`` the one row of the device, with them the CPU's ways."""
    engine = way(f"conv {rows}x{WIDTH}, fp16", "float16", "conv", (1, WIDTH, 1, 1), 2, 0)
    ways = (*(CPU if cpu else ()), *(SIMD if simd else ())) or (engine,)
    for number, (name, make, shape, bytes_per_weight, threads) in enumerate(ways):
        yield Config(
            f"[{number + 1}] {name}",
            {"weight_mb": rows * WIDTH * bytes_per_weight / MIB, "gflop": 2 * rows * WIDTH / 1e9},
            {"eval": partial(make, rows)}, inputs={"x": given().reshape(shape)}, check=partial(error, rows),
            threads=threads,
        )  # fmt: skip
    for number, name in enumerate(NARROW if simd else (), len(ways) + 1):
        yield Config(f"[{number}] {name}", {"gflop": 2 * rows * WIDTH / 1e9}, {},
                     missing="the CPU engine adds in float32, with every instruction set")  # fmt: skip


register(
    Benchmark(
        "lm-head", "GPT-2's language model head on one position", "test_lm_head_ane, _fast and _neon (seed 003)",
        ("seed003", "lm_head"),
        (Column("name", "name", "{}", lambda row: row.config.label),
         Column("ms", "ms", "{:.3f}", lambda row: row.ms(), "ms"),
         Column("gb_s", "GB/s", "{:.1f}", lambda row: row["weight_mb"] * MIB / row.ms() / 1e6, "GB/s"),
         Column("max_error", "max_err", "{:.5f}", lambda row: row.found["max_error"]),
         Column("verdict", "verdict", "{}", lambda row: "OK" if row.found["max_error"] < 0.5 else "WARN")),
        configs, quick={"rows": 8192},
    )
)  # fmt: skip
