"""What a call costs by itself: by QoS, by the way it is sent, and against Core ML."""

from __future__ import annotations

import statistics
from collections.abc import Iterator, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

from ..._coremltools import builder
from ...build import graph
from ..columns import conv_facts, conv_match
from ..peers import AVAILABLE, prediction
from ..programs import conv_chain
from ..record import Benchmark, Column, Config, Row, register
from ..timing import Effort

if TYPE_CHECKING:
    from coremltools.converters.mil.mil import Program, Var

QOS = (0, 1, 2, 4, 5, 8, 9, 10, 15, 17, 20, 21, 25, 31, 33, 47, 63)
SMALL = (1, 256, 1, 64)  # layers, channels, height, width


def small() -> dict[str, Any]:
    return {"facts": conv_facts(*SMALL), "match": conv_match(*SMALL, 1, "fp16")}


def by_qos() -> Iterator[Config]:
    for qos in QOS:
        yield Config(
            f"{qos}",
            programs={"eval": partial(conv_chain, *SMALL)},
            options={"eval": {"qos": qos}},
            device="ane",
            **small(),
        )


def spread(rows: Sequence[Row]) -> list[str]:
    """Whether the QoS changes what a call takes: by more than a tenth between the fastest and the slowest."""
    times = [row.ms() for row in rows if row.timings]
    if len(times) < 2:
        return ["QoS is an option of the Neural Engine: no other device has it"] if rows else []
    verdict = "no measurable effect" if max(times) <= 1.1 * min(times) else "QoS changes the time"
    return [f"Spread: {min(times):.3f} to {max(times):.3f} ms, {max(times) / min(times):.2f}x: {verdict}"]


def average(row: Row) -> float:
    return 1e3 * statistics.fmean(row.timings["eval"].seconds)


def seconds(name: str, title: str) -> Column:
    return Column(f"{name}_ms", title, "{:.1f}", lambda row: 1e3 * row.stats["eval"][name], "ms")


register(
    Benchmark(
        "qos", "QoS sweep (256x256 conv, 64 positions)", "test_qos_sweep (seeds 002 and 003)", ("seed003", "qos"),
        (Column("qos", "QoS", "{}", lambda row: row.config.label), seconds("compile_seconds", "Compile"),
         seconds("load_seconds", "Load"),
         Column("first_ms", "Eval(1)", "{:.3f}", lambda row: 1e3 * row.timings["eval"].first, "ms"),
         Column("ms", "Eval(avg10)", "{:.3f}", average, "ms"),
         Column("status", "Status", "{}", lambda row: "OK" if row.status == "PASS" else row.status)),
        by_qos, notes=spread, usual=Effort(1, 10),
    )
)  # fmt: skip


def ways() -> Iterator[Config]:
    for way in ("evaluate", "direct", "real_time"):
        yield Config(
            way,
            programs={"eval": partial(conv_chain, *SMALL)},
            options={"eval": {"way": way}},
            device="ane",
            **small(),
        )
    yield Config("as compiled by default", programs={"eval": partial(conv_chain, *SMALL)}, **small())


US = Column("us", "us/call", "{:.2f}", lambda row: 1e3 * row.ms(), "us")
register(
    Benchmark(
        "dispatch", "What one call costs, by the way it is sent", "dispatch overhead (seeds 001 and 003)",
        ("seed003", "overhead"),
        (Column("way", "way", "{}", lambda row: row.config.label), US,
         Column("p10_us", "p10", "{:.2f}", lambda row: 1e6 * row.timings["eval"].p10, "us"),
         Column("p90_us", "p90", "{:.2f}", lambda row: 1e6 * row.timings["eval"].p90, "us")),
        ways, quick_rows=4,
    )
)  # fmt: skip

ALONE = "relu of one element"


def nothing() -> Program:
    """A program with next to no work: what its call takes is what a call takes."""
    mb = builder()

    @graph(x=(1, 1, 1, 1))
    def one(x: Var) -> Var:
        return mb.relu(x=x)

    return one


SHAPES = ((1, 64, 1, 32), (1, 256, 1, 64), (1, 512, 64, 64), (16, 512, 64, 64))


def against_coreml() -> Iterator[Config]:
    yield Config(ALONE, {"gflop": 0.0}, {"direct": nothing},
                 peers={"coreml": partial(prediction, nothing, (1, 1, 1, 1))})  # fmt: skip
    for shape in SHAPES:
        depth, channels, height, width = shape
        chain = partial(conv_chain, *shape)
        yield Config(
            f"{depth}x conv {channels}ch {height}x{width}", conv_facts(*shape), {"direct": chain},
            conv_match(*shape, 1, "fp16"), peers={"coreml": partial(prediction, chain, (1, channels, height, width))},
        )  # fmt: skip


def said(rows: Sequence[Row]) -> list[str]:
    lines = ["direct is the whole round trip from Python: binding of the arguments, the call, the results"]
    lines += [f"Python call overhead of anex itself: {1e3 * row.ms('direct'):.2f} us a call ({ALONE})"
              for row in rows if row.config.label == ALONE and row.timings]  # fmt: skip
    return lines if AVAILABLE else ["Core ML path not available: it is part of macOS", *lines]


def overhead(row: Row) -> float:
    return row.ms("coreml") / row.ms("direct")


register(
    Benchmark(
        "overhead", "Core ML against the direct path", "the overhead tax (seed 001: 2 to 4x for small ops)",
        ("seed001", "overhead"),
        (Column("op", "op", "{}", lambda row: row.config.label),
         Column("direct_ms", "direct ms", "{:.4f}", lambda row: row.ms("direct"), "ms"),
         Column("coreml_ms", "coreml ms", "{:.4f}", lambda row: row.ms("coreml"), "ms"),
         Column("overhead", "overhead", "{:.2f}x", overhead)),
        against_coreml, notes=said,
    )
)  # fmt: skip
