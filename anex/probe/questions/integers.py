"""W8A8 against exact integers, and the five encodings of weights."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from ..._coremltools import builder
from ...bench.running import run
from ...bench.tables import benchmark
from ...bench.text import aligned
from ...build import graph
from ..record import Answer, Check, probe
from ..session import Session

if TYPE_CHECKING:
    from coremltools.converters.mil.mil import Program, Var

CHANNELS, SIZE = 256, 16
SHIFT = np.float16(2.0**-3)  # the scale of activations, a power of two: quantising is exact integer arithmetic


def layer(weight: np.ndarray) -> Program:
    """A convolution with int8 weights of scale 2^-2, its result as int8 of scale 2^-3 and back."""
    mb = builder()

    @graph(x=(1, CHANNELS, SIZE, SIZE))
    def one(x: Var) -> Var:
        made = mb.constexpr_affine_dequantize(
            quantized_data=weight[:, :, None, None], zero_point=np.int8(0), scale=np.float16(2.0**-2), axis=np.int32(0)
        )
        acts = mb.dequantize(input=mb.quantize(input=x, scale=SHIFT, output_dtype="int8"), scale=SHIFT)
        y = mb.conv(x=acts, weight=made)
        return mb.dequantize(input=mb.quantize(input=y, scale=SHIFT, output_dtype="int8"), scale=SHIFT)

    return one


def exactly(x: np.ndarray, weight: np.ndarray) -> np.ndarray:
    """The same in integers: rounding half to even, saturating at -128 and 127."""
    codes = np.clip(np.rint(x.astype(np.float64) / 2.0**-3), -128, 127).astype(np.int64)
    sums = np.einsum("oc,bchw->bohw", weight.astype(np.int64), codes)  # in units of 2^-5
    y: np.ndarray = np.clip(np.rint(sums / 4), -128, 127) * 2.0**-3
    return y


@probe(
    "w8a8",
    question="Do int8 weights and activations give the integers' result, bit for bit?",
    source="w8a8_probe (seed 003)",
)
def w8a8(session: Session) -> Answer:
    random = np.random.default_rng(3)
    # few weights a row: sums stay within 2,048 units, which fp16 holds exactly where a device rounds before quantising
    weight = np.zeros((CHANNELS, CHANNELS), np.int8)
    places = random.permuted(np.tile(np.arange(CHANNELS), (CHANNELS, 1)), axis=1)[:, :8]
    np.put_along_axis(weight, places, random.integers(-2, 3, places.shape).astype(np.int8), 1)
    x = (random.integers(-128, 128, (1, CHANNELS, SIZE, SIZE)) * 2.0**-3).astype(np.float16)
    ran = session.run(layer(weight), {"x": x})
    wrong = int(np.count_nonzero(ran.only.astype(np.float64) != exactly(x, weight)))
    gop = 2 * CHANNELS**2 * SIZE**2 / 1e9
    return Answer(
        "exact" if wrong == 0 else "inexact",
        f"{wrong} of {ran.only.size} values differ from exact integers; {ran.ms:.4f} ms, {gop / ran.ms:.3f} TOPS.",
        (Check("values that differ", wrong, 0),), data={"wrong": wrong, "ms": ran.ms},
    )  # fmt: skip


@probe(
    "quant",
    question="Does each encoding of weights run, and is its result that of the dequantised weights?",
    source="quant_probe (seed 003)",
)
def encodings(session: Session) -> Answer:
    asked = benchmark("quant")
    done = run(asked, session.device, asked.quick if session.small else {}, session.effort)
    columns = done.benchmark.columns
    table = [[*(c.title for c in columns), "", ""]]
    table += [[*(c.text(row) for c in columns), "", "; ".join(row.failed.values())] for row in done.rows]
    failed = [row for row in done.rows if row.failed]
    worst = max((row.found["max_error"] for row in done.rows if not row.failed), default=float("nan"))
    return Answer(
        "all" if not failed else "some",
        f"{len(done.rows) - len(failed)} of {len(done.rows)} run; the largest error is {worst:.2e}.",
        (Check("encodings that do not run", len(failed), 0), Check("max error", worst, 0.02)),
        [*aligned(table), *done.notes], {"failed": {row.config.label: row.failed for row in failed}},
    )  # fmt: skip
