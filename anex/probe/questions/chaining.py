"""Two programs one after the other: by five ways, of which the framework's own is closed."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any

import numpy as np

from ..._coremltools import builder
from ...bench.timing import measure
from ...build import graph
from ...creation import empty, tensor
from ...errors import Error, brief
from ..record import Answer, Check, probe
from ..session import Session
from .framework import ask

if TYPE_CHECKING:
    from coremltools.converters.mil.mil import Program, Var

CHANNELS = WIDTH = 64
SHAPE = (1, CHANNELS, 1, WIDTH)
COPIED, SHARED, REQUEST, REAL_TIME, FUSED = (
    "sequential + copy", "shared surface", "_ANEChainingRequest", "real-time evaluation", "fused MIL",
)  # fmt: skip
ORDER = (COPIED, SHARED, REQUEST, REAL_TIME, FUSED)


def times(*factors: float) -> Program:
    """A convolution for each factor, by the identity times it."""
    mb, eye = builder(), np.eye(CHANNELS, dtype=np.float16)[:, :, None, None]

    @graph(x=SHAPE)
    def scaled(x: Var) -> Var:
        for factor in factors:
            x = mb.conv(x=x, weight=eye * np.float16(factor))
        return x

    return scaled


@probe(
    "chaining",
    question="How can two programs run one after the other, and which way is fastest?",
    source="CHAINING_INVESTIGATION (seed 003)",
    answers={"M5": "chaining requests end with code 15; fuse instead"},
)
def chaining(session: Session) -> Answer:
    """x2, then x3: each way that runs gives 6.0 of ones."""
    rows: dict[str, tuple[float | None, str]] = {}
    checks: list[Check] = []
    with ExitStack() as stack:
        for name, call, y in ways(session, stack):
            try:
                timing = measure(call, session.effort)
            except Error as error:
                rows[name] = None, brief(error)
                continue
            checks.append(Check(f"{name}: all 6.0", float(np.abs(np.asarray(y).astype(np.float64) - 6).max()), 0))
            rows[name] = timing.ms, "OK"
    if session.device == "ane":
        said = {id_: str(each.get("verdict") or each.get("reason"))
                for id_, each in ask(session, "chaining", "real-time").items()}  # fmt: skip
        ms, status = rows[REAL_TIME]
        rows |= {REQUEST: (None, said["chaining"]), REAL_TIME: (ms, f"{status}; {said['real-time']}")}
    else:
        rows |= dict.fromkeys((REQUEST, REAL_TIME), (None, "only device='ane' has this"))
    return told(rows, checks)


def ways(session: Session, stack: ExitStack) -> list[tuple[str, Callable[[], None], Any]]:
    """Those that can be called, each with the tensor that holds what it gives."""
    from ...program import compile

    def compiled(*factors: float, **options: Any) -> Any:
        return stack.enter_context(compile(times(*factors), device=session.device, **options))

    x, between, copy = tensor(np.ones(SHAPE, np.float16)), empty(SHAPE), empty(SHAPE)
    first, second, both = compiled(2), compiled(3), compiled(2, 3)
    outs = {name: empty(SHAPE) for name in ORDER}

    def copied() -> None:
        first(x, out=between)
        np.asarray(copy)[...] = np.asarray(between)
        second(copy, out=outs[COPIED])

    def shared() -> None:
        first(x, out=between)
        second(between, out=outs[SHARED])

    calls: dict[str, Callable[[], None]] = {COPIED: copied, SHARED: shared, FUSED: lambda: both(x, out=outs[FUSED])}
    if session.device == "ane":
        begin, end = compiled(2, way="real_time"), compiled(3, way="real_time")

        def in_real_time() -> None:
            begin(x, out=between)
            end(between, out=outs[REAL_TIME])

        calls[REAL_TIME] = in_real_time
    return [(name, call, outs[name]) for name, call in calls.items()]


def told(rows: Mapping[str, tuple[float | None, str]], checks: list[Check]) -> Answer:
    """Approach, ms/iter, Speedup, Status: the five rows as published."""
    base = rows[COPIED][0]
    lines = [f"{'Approach':22} {'ms/iter':>8}  {'Speedup':>7}  Status"]
    for name in ORDER:
        ms, status = rows[name]
        known = ms is not None and base is not None
        figures = f"{ms:8.4f}  {base / ms:6.2f}x" if known else f"{'-':>8}  {'-':>7}"  # type: ignore[operator]
        lines.append(f"{name:22} {figures}  {status}")
    timed = {name: ms for name, (ms, _) in rows.items() if ms is not None}
    fastest = min(timed, key=lambda name: timed[name], default="")
    data = {name: {"ms": ms, "status": status} for name, (ms, status) in rows.items()}
    if base is None or not fastest:
        return Answer("none", "Two programs do not run one after the other.", checks, lines, data)
    key = "fuse" if fastest == FUSED else fastest
    return Answer(key, f"Fastest: {fastest}, {base / timed[fastest]:.2f}x.", checks, lines, data)
