"""Square products, the same as 1x1 convolutions, and where the working set stops fitting (seed 001)."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from typing import Any

import numpy as np

from ..columns import MIB, MS, TFLOPS, tflops
from ..programs import SEED, matmul, matmul_as_conv, weights
from ..record import Benchmark, Column, Config, Row, register
from ..timing import Effort

SIZES = (256, 512, 1024, 2048, 4096)
DISPATCH_LIMITED = 1.0  # ms: below, what a call costs by itself is a large part


def facts(n: int) -> dict[str, float]:
    """Of n x n by n x n in fp16; the working set is the three matrices."""
    return {"n": n, "gflop": 2 * n**3 / 1e9, "working_set_mb": 3 * n * n * 2 / MIB}


def match(n: int) -> dict[str, float | str]:
    return {"workload": "matmul", "in_ch": n, "out_ch": n, "width": n, "dtype": "fp16"}


def configs(*, sizes: Sequence[int] = SIZES) -> Iterator[Config]:
    for n in sizes:
        yield Config(f"{n}", facts(n), {"matmul": partial(matmul, n, n, n)}, match(n))


def knee(rows: Sequence[Row]) -> list[str]:
    """Marks rows that are all dispatch, and says where the rate first falls: what is larger does not fit."""
    done = sorted((row for row in rows if row.timings), key=lambda row: row["n"])
    for row in done:
        row.found["fits"] = "yes"
        if row.ms() < DISPATCH_LIMITED:
            row.marks.append("dispatch-limited")
    for number, (before, after) in enumerate(itertools.pairwise(done), 1):
        if tflops(after) < 0.9 * tflops(before):
            for row in done[number:]:
                row.found["fits"] = "no"
            sets = (f"{each['working_set_mb']:.0f} MB ({tflops(each):.2f} TFLOPS)" for each in (before, after))
            return [f"The rate falls between working sets of {' and '.join(sets)}"]
    return ["No working set of these is too large: the rate never falls by a tenth"] if len(done) > 1 else []


N = Column("n", "n", "{}", lambda row: row.config.label)
GFLOP3 = Column("gflop", "GFLOP", "{:.3f}", lambda row: row["gflop"], "GFLOP")
SET = Column("working_set_mb", "MB", "{:.1f}", lambda row: row["working_set_mb"], "MiB")
FITS = Column("fits", "fits?", "{}", lambda row: row.found["fits"])
P90 = Column("p90_ms", "p90", "{:.3f} ms", lambda row: 1e3 * row.timings["matmul"].p90, "ms")
register(
    Benchmark(
        "matmul",
        "Square matmul scaling (FP16)",
        "matmul scaling and SRAM cliff (seed 001)",
        ("seed001", "matmul"),
        (N, GFLOP3, MS, P90, TFLOPS, SET, FITS),
        configs,
        notes=knee,
        x="n",
        usual=Effort(10, 100),
    )
)


def pairs(*, sizes: Sequence[int] = SIZES[:4]) -> Iterator[Config]:
    for n in sizes:
        random = np.random.default_rng(SEED)
        a, b = (
            random.standard_normal((n, n), np.float32).astype(np.float16),
            np.ascontiguousarray(weights(random, n, n).T),
        )
        yield Config(
            f"{n}x{n}x{n}", facts(n),
            {"matmul": partial(matmul, n, n, n), "conv": partial(matmul_as_conv, n, n, n, b)}, match(n),
            {"a": a[None, None], "b": b[None, None], "x": np.ascontiguousarray(a.T)[None, :, None]},
            check=agreement,
        )  # fmt: skip


def agreement(outputs: Mapping[str, Any]) -> dict[str, float]:
    """matmul gives [1, 1, M, N], the convolution [1, N, 1, M]."""
    product, conv = outputs["matmul"][0][0, 0], outputs["conv"][0][0, :, 0].T
    return {"max_diff": float(np.abs(product.astype(np.float32) - conv.astype(np.float32)).max())}


def timed(name: str) -> tuple[Column, Column]:
    return (
        Column(f"{name}_ms", f"{name} ms", "{:.3f}", lambda row: row.ms(name), "ms"),
        Column(f"{name}_tflops", "TFLOPS", "{:.2f}", lambda row: row["gflop"] / row.ms(name), "TFLOPS"),
    )


register(
    Benchmark(
        "conv-vs-matmul",
        "The same product as matmul and as 1x1 convolution",
        "conv over matmul (seed 001: about 3x)",
        ("seed001", "matmul"),
        (
            Column("shape", "M x K x N", "{}", lambda row: row.config.label),
            *timed("matmul"),
            *timed("conv"),
            Column("ratio", "ratio", "{:.2f}x", lambda row: row.ms("matmul") / row.ms("conv")),
            Column("max_diff", "max diff", "{:.4f}", lambda row: row.found["max_diff"]),
        ),
        pairs,
    )
)
