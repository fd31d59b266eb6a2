"""The language model's head, 50,257 rows of 768, on one position: on the engine, and in ways of the CPU."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np

from ...build import graph
from ...spec import spec
from ..columns import MIB
from ..programs import SEED, builder, weights
from ..record import Benchmark, Column, Config, register

if TYPE_CHECKING:
    from coremltools.converters.mil.mil import Program, Var

ROWS, WIDTH = 50257, 768


def head() -> np.ndarray:
    return weights(np.random.default_rng(SEED), ROWS, WIDTH)


def given() -> np.ndarray:
    x: np.ndarray = np.random.default_rng(1).standard_normal((1, WIDTH), np.float32)
    return x


def product(dtype: str, form: str) -> Program:
    """x . head, weights in ``dtype``: as ``linear``, as a 1x1 convolution, or as ``matmul`` of head and column."""
    mb, weight = builder(), head().astype(dtype)
    shape = {"linear": (1, WIDTH), "conv": (1, WIDTH, 1, 1), "column": (WIDTH, 1)}[form]

    @graph(x=spec(shape, dtype))
    def logits(x: Var) -> Var:
        if form == "linear":
            return mb.linear(x=x, weight=weight)
        if form == "conv":
            return mb.conv(x=x, weight=weight[:, :, None, None])
        return mb.matmul(x=weight, y=x)

    return logits


def int8() -> Program:
    """8-bit weights with a scale a row, widened while they are read."""
    mb, weight = builder(), head()
    scale = np.float16(np.abs(weight).max(1, keepdims=True) / np.float16(127))
    codes = np.clip(np.rint(weight.astype(np.float32) / scale.astype(np.float32)), -127, 127).astype(np.int8)

    @graph(x=(1, WIDTH))
    def logits(x: Var) -> Var:
        return mb.linear(x=x, weight=mb.constexpr_blockwise_shift_scale(data=codes, scale=scale))

    return logits


def error(outputs: Mapping[str, Any]) -> dict[str, float]:
    """The largest, against float64."""
    (found,) = outputs.values()
    wanted = head().astype(np.float64) @ given()[0].astype(np.float16).astype(np.float64)
    return {"max_error": float(np.abs(found[0].reshape(-1).astype(np.float64) - wanted).max())}


def config(number: int, name: str, make: Any, shape: tuple[int, ...], bytes_per_weight: float, threads: int) -> Config:
    return Config(
        f"[{number}] {name}", {"weight_mb": ROWS * WIDTH * bytes_per_weight / MIB, "gflop": 2 * ROWS * WIDTH / 1e9},
        {"eval": make}, inputs={"x": given().reshape(shape)}, check=error, threads=threads,
    )  # fmt: skip


def configs(*, cpu: bool = False) -> Iterator[Config]:
    """Without ``cpu`` the one row of the device; with it the CPU's ways, as the published comparisons order them."""
    line, column = (1, WIDTH), (WIDTH, 1)
    if not cpu:
        yield config(1, "conv 50257x768, fp16", partial(product, "float16", "conv"), (1, WIDTH, 1, 1), 2, 0)
        return
    yield config(1, "row dots, fp32, 1 thread", partial(product, "float32", "linear"), line, 4, 1)
    yield config(2, "row dots, fp16 widened, 1 thread", partial(product, "float16", "linear"), line, 2, 1)
    yield config(3, "row dots, fp32, all threads", partial(product, "float32", "linear"), line, 4, 0)
    yield config(4, "row dots, fp16, all threads", partial(product, "float16", "linear"), line, 2, 0)
    yield config(5, "gemm with n=1, fp16, all threads", partial(product, "float16", "column"), column, 2, 0)
    yield config(6, "row dots, int8 codes, all threads", int8, line, 1, 0)


register(
    Benchmark(
        "lm-head", "GPT-2's language model head on one position", "test_lm_head_ane, _fast and _neon (seed 003)",
        ("seed003", "lm_head"),
        (Column("name", "name", "{}", lambda row: row.config.label),
         Column("ms", "ms", "{:.3f}", lambda row: row.ms(), "ms"),
         Column("gb_s", "GB/s", "{:.1f}", lambda row: row["weight_mb"] * MIB / row.ms() / 1e6, "GB/s"),
         Column("max_error", "max_err", "{:.5f}", lambda row: row.found["max_error"]),
         Column("verdict", "verdict", "{}", lambda row: "OK" if row.found["max_error"] < 0.5 else "WARN")),
        configs,
    )
)  # fmt: skip
