"""``bench_fused``: what one program in place of several saves (seed 003), in three tiers."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np

from ..._coremltools import builder
from ...build import graph
from ...profiling.text import table as aligned
from ..columns import MS, TFLOPS, conv_facts, conv_match, share, tflops
from ..programs import SEED, weights
from ..record import Benchmark, Column, Config, Make, Row, Steps, register
from ..timing import Effort

if TYPE_CHECKING:
    from coremltools.converters.mil.mil import Program, Var

AGREES = 0.01  # the largest difference of fused and separate that is not warned of
PUBLISHED_PEAK = 38.0  # TOPS, what the source takes percentages of
DIM, HIDDEN, HEADS = 768, 2048, 12  # of a Stories110M layer
CHAIN = (768, 64)  # channels and positions of tier 1


def layer(number: int, into: int, out: int) -> np.ndarray:
    """The weights of a layer, [out, into, 1, 1]: the same wherever it is built."""
    return weights(np.random.default_rng(SEED + number), out, into, 1, 1)


def part(numbers: Sequence[int], channels: int, width: int) -> Program:
    """These layers of a chain of 1x1 convolutions."""
    mb = builder()

    @graph(x=(1, channels, 1, width))
    def chain(x: Var) -> Var:
        for number in numbers:
            x = mb.conv(x=x, weight=layer(number, channels, channels))
        return x

    return chain


def differ(outputs: Mapping[str, Any]) -> dict[str, float]:
    """The largest difference of what the one program and the several give."""
    fused, separate = ([np.float32(a) for a in outputs[name]] for name in ("fused", "separate"))
    return {"max_diff": max(float(np.abs(a - b).max()) for a, b in zip(fused, separate, strict=True))}


def warned(rows: Sequence[Row]) -> list[str]:
    return [
        f"WARNING: {row.config.label}: fused and separate differ by {row.found['max_diff']:.4f}, above {AGREES}"
        for row in rows
        if row.found.get("max_diff", 0) > AGREES
    ]


# ---- tier 1: what a dispatch costs ----------------------------------------------------------------------------------


def dispatches(*, layers: Sequence[int] = (2, 4, 8, 16)) -> Iterator[Config]:
    channels, width = CHAIN
    for count in layers:
        yield Config(
            f"{count}", conv_facts(count, channels, 1, width),
            {"fused": partial(part, range(count), channels, width),
             "separate": Steps([partial(part, [i], channels, width) for i in range(count)],
                               [{}, *({"x": i} for i in range(count - 1))])},
            check=differ,
        )  # fmt: skip


def microseconds(row: Row) -> float:
    """What each dispatch that was saved had cost."""
    return 1e3 * (row.ms("separate") - row.ms("fused")) / (row["depth"] - 1)


def of(name: str, title: str) -> Column:
    return Column(f"{name}_ms", title, "{:.3f}", lambda row: row.ms(name), "ms")


def speedup(row: Row) -> float:
    return row.ms("separate") / row.ms("fused")


SPEEDUP = Column("speedup", "speedup", "{:.2f}x", speedup)
register(
    Benchmark(
        "fused-1",
        "Fused kernels, tier 1: dispatch overhead",
        "bench_fused (seed 003: 60 to 80 us a dispatch)",
        ("seed003", "overhead"),
        (
            Column("layers", "L", "{}", lambda row: row.config.label),
            of("fused", "fused ms"),
            of("separate", "seq ms"),
            SPEEDUP,
            Column("overhead_us", "overhead us/dispatch", "{:.1f}", microseconds, "us"),
        ),
        dispatches,
        notes=warned,
    )
)

# ---- tier 2: how much of the peak ------------------------------------------------------------------------------------


def shapes(
    *, channels: Sequence[int] = (256, 512, 768, 1024), widths: Sequence[int] = (64, 128, 256),
    layers: Sequence[int] = (1, 4, 8),
) -> Iterator[Config]:  # fmt: skip
    for c in channels:
        for s in widths:
            for count in layers:
                yield Config(f"{c}", conv_facts(count, c, 1, s), {"eval": partial(part, range(count), c, s)},
                             conv_match(count, c, 1, s, 1, "fp16"))  # fmt: skip


def peaks(rows: Sequence[Row]) -> list[str]:
    """The best of each depth."""
    lines = []
    for count in dict.fromkeys(row["depth"] for row in rows):
        done = [row for row in rows if row.timings and row["depth"] == count]
        if done:
            best = max(done, key=tflops)
            lines.append(f"Peak with {count:.0f} layer(s): {tflops(best):.2f} TFLOPS "
                         f"(C={best['channels']:.0f}, S={best['width']:.0f})")  # fmt: skip
    return lines


register(
    Benchmark(
        "fused-2",
        "Fused kernels, tier 2: throughput by shape",
        "bench_fused (seed 003)",
        ("seed003", "overhead"),
        (
            Column("channels", "C", "{}", lambda row: row.config.label),
            Column("width", "S", "{:.0f}", lambda row: row["width"]),
            Column("layers", "Layers", "{:.0f}", lambda row: row["depth"]),
            MS,
            TFLOPS,
            share("of_38", "Eff%", PUBLISHED_PEAK),
        ),
        shapes,
        notes=peaks,
        usual=Effort(10, 500),
    )
)

# ---- tier 3: the parts of a layer ------------------------------------------------------------------------------------


def project(x: Any, number: int, into: int, out: int) -> Any:
    return builder().conv(x=x, weight=layer(number, into, out))


def qkv(which: Sequence[int], width: int) -> Program:
    @graph(x=(1, DIM, 1, width))
    def projections(x: Var) -> tuple[Var, ...]:
        return tuple(project(x, number, DIM, DIM) for number in which)

    return projections


def attend(given: Sequence[Any], width: int) -> Any:
    """Attention of [1, C, 1, S] queries, keys and values, each position over those before it."""
    mb, size = builder(), DIM // HEADS
    heads = [mb.transpose(x=mb.reshape(x=x, shape=(1, HEADS, size, width)), perm=(0, 1, 3, 2)) for x in given]
    mask = np.triu(np.full((width, width), -1e4, np.float16), 1)[None, None]
    scores = mb.matmul(x=mb.mul(x=heads[0], y=np.float16(size**-0.5)), y=heads[1], transpose_y=True)
    mixed = mb.matmul(x=mb.softmax(x=mb.add(x=scores, y=mask), axis=-1), y=heads[2])
    return mb.reshape(x=mb.transpose(x=mixed, perm=(0, 1, 3, 2)), shape=(1, DIM, 1, width))


def attention(width: int) -> Program:
    @graph(x=(1, DIM, 1, width))
    def block(x: Var) -> Var:
        return project(attend([project(x, n, DIM, DIM) for n in range(3)], width), 3, DIM, DIM)

    return block


def core(width: int, residual: bool = False) -> Program:
    """Attention without its first products; ``residual``: added to x."""
    mb = builder()
    inputs = dict.fromkeys(("query", "key", "value", *(["x"] if residual else [])), (1, DIM, 1, width))

    @graph(**inputs)
    def block(query: Var, key: Var, value: Var, x: Var | None = None) -> Var:
        mixed = project(attend([query, key, value], width), 3, DIM, DIM)
        return mixed if x is None else mb.add(x=x, y=mixed)

    return block


def swiglu(width: int) -> Program:
    @graph(x=(1, DIM, 1, width))
    def block(x: Var) -> Var:
        return gated(project(x, 4, DIM, HIDDEN), project(x, 5, DIM, HIDDEN))

    return block


def gated(gate: Any, up: Any) -> Any:
    mb = builder()
    return project(mb.mul(x=mb.silu(x=gate), y=up), 6, HIDDEN, DIM)


def widened(number: int, width: int) -> Program:
    @graph(x=(1, DIM, 1, width))
    def block(x: Var) -> Var:
        return project(x, number, DIM, HIDDEN)

    return block


def narrowed(width: int, residual: bool = False) -> Program:
    mb = builder()
    inputs = {"gate": (1, HIDDEN, 1, width), "up": (1, HIDDEN, 1, width)}

    @graph(**inputs, **({"x": (1, DIM, 1, width)} if residual else {}))
    def block(gate: Var, up: Var, x: Var | None = None) -> Var:
        return gated(gate, up) if x is None else mb.add(x=x, y=gated(gate, up))

    return block


def whole(width: int) -> Program:
    mb = builder()

    @graph(x=(1, DIM, 1, width))
    def block(x: Var) -> Var:
        x = mb.add(x=x, y=project(attend([project(x, n, DIM, DIM) for n in range(3)], width), 3, DIM, DIM))
        return mb.add(x=x, y=gated(project(x, 4, DIM, HIDDEN), project(x, 5, DIM, HIDDEN)))

    return block


LAYER = "full layer (7 to 1)"


def comparisons(width: int) -> dict[str, tuple[Make, Steps, int]]:
    """By label: one program, several, and the multiply-adds of a position without those of the scores."""
    projections = [partial(qkv, [i], width) for i in range(3)]
    widen = [partial(widened, i, width) for i in (4, 5)]
    fed = {"query": 0, "key": 1, "value": 2}
    return {
        "QKV (3 to 1)": (partial(qkv, range(3), width), Steps(projections, [{}, {}, {}], last=3), 3 * DIM * DIM),
        "attention (4 to 1)": (
            partial(attention, width), Steps([*projections, partial(core, width)], [{}, {}, {}, fed]), 4 * DIM * DIM,
        ),
        "FFN SwiGLU (3 to 1)": (
            partial(swiglu, width), Steps([*widen, partial(narrowed, width)], [{}, {}, {"gate": 0, "up": 1}]),
            3 * DIM * HIDDEN,
        ),
        LAYER: (
            partial(whole, width),
            Steps([*projections, partial(core, width, True), *widen, partial(narrowed, width, True)],
                  [{}, {}, {}, fed, {"x": 3}, {"x": 3}, {"gate": 4, "up": 5, "x": 3}]),
            4 * DIM * DIM + 3 * DIM * HIDDEN,
        ),
    }  # fmt: skip


def parts(*, width: int = 256) -> Iterator[Config]:
    for label, (fused, separate, products) in comparisons(width).items():
        scores = 0 if label.startswith(("QKV", "FFN")) else 4 * width * width * DIM
        yield Config(label, {"width": width, "gflop": (2 * products * width + scores) / 1e9},
                     {"separate": separate, "fused": fused}, check=differ)  # fmt: skip


def summary(rows: Sequence[Row]) -> list[str]:
    """The published summary; tokens a second are positions through the part, ``width`` of them a call."""
    table = [["Summary", "Separate", "Fused", "Speedup", "tokens/sec separate", "fused"]]
    for row in rows:
        if {"separate", "fused"} <= {*row.timings}:
            each = [row.ms(name) for name in ("separate", "fused")]
            table.append([row.config.label, *(f"{ms:.3f} ms" for ms in each), f"{speedup(row):.2f}x",
                          *(f"{1e3 * row['width'] / ms:,.0f}" for ms in each)])  # fmt: skip
    return (list(aligned(table, left=1)) if len(table) > 1 else []) + warned(rows)


def rate(name: str) -> Column:
    return Column(f"{name}_gflops", "GFLOPS", "{:.1f}", lambda row: 1e3 * row["gflop"] / row.ms(name), "GFLOPS")


register(
    Benchmark(
        "fused-3",
        "Fused kernels, tier 3: parts of a layer in one program or several",
        "bench_fused (seed 003)",
        ("seed003", "overhead"),
        (
            Column("config", "Config", "{}", lambda row: row.config.label),
            of("separate", "Separate ms"),
            rate("separate"),
            of("fused", "Fused ms"),
            rate("fused"),
            replace(SPEEDUP, title="Speedup"),
        ),
        parts,
        notes=summary,
        quick_rows=4,
    )
)
