"""Calling a program and timing what it does."""

from __future__ import annotations

import dataclasses
import functools
import time
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

from .. import _native
from ..devices import stepwise
from ..devices.info import label
from ..errors import ArgumentError
from .costs import Cost, Node, costs
from .profile import Limits, Memory, Profile, Row, rates

if TYPE_CHECKING:
    from coremltools.converters.mil import mil

    from ..devices import Executable

WARM_UP = 2
# Timed calls by the seconds of the last one before: as the published profiler chooses them.
CALLS = ((1.0, 1), (0.1, 3), (0.0, 10))


@functools.cache
def limits(threads: int) -> Limits:
    """Measured once per process and number of threads, which must be the number set now."""
    return Limits("cpu", _native.instruction_sets()[0], threads, *_native.measure_limits())


def measure(
    function: mil.Function, device: str, executable: Executable, arguments: tuple[Any, ...], repeat: int | None
) -> Profile:
    """Call ``repeat`` times after two calls to warm up, into the same outputs; None: 10, 3 or 1 times, by latency."""
    if repeat is not None and (isinstance(repeat, bool) or not isinstance(repeat, int) or repeat < 1):
        raise ArgumentError(f"repeat={repeat!r}: the number of timed calls is an int from 1 on")
    known = limits(_native.get_num_threads()) if device == "cpu" else Limits(label(device), "", 0, 0.0, 0.0)
    out = executable.run(arguments)
    calls: list[float] = []
    nodes: list[Sequence[float]] = []

    def call() -> None:
        begin = time.perf_counter()
        seconds = executable.profile(arguments, out)
        calls.append(time.perf_counter() - begin)
        nodes.append(seconds)

    for _ in range(WARM_UP):
        call()
    if repeat is None:
        repeat = next(count for above, count in CALLS if calls[-1] > above or not above)
    del calls[:], nodes[:]
    for _ in range(repeat):
        call()
    stats = executable.stats()
    memory = Memory(**{field.name: int(stats.get(field.name, 0)) for field in dataclasses.fields(Memory)})
    ran, work = _work(function, executable, arguments)
    rows = _rows(ran, work, nodes, known)
    outside = (call - sum(times) for call, times in zip(calls, nodes, strict=True))
    return Profile(label(device), repeat, *_percentiles(calls), _percentiles(outside)[0], rows, memory, known)


def _work(
    function: mil.Function, executable: Executable, arguments: tuple[Any, ...]
) -> tuple[Sequence[Node], list[Cost]]:
    """The nodes of one call with these arguments, and what each has to do."""
    if not isinstance(executable, stepwise.Stepwise):
        nodes = executable.nodes()
        return nodes, costs(function, nodes)
    ran: list[Node] = []
    work: list[Cost] = []
    for each in executable.trace(arguments):
        nodes = each.step.executable.nodes()
        ran += nodes
        work += costs(each.step.function, nodes)
        if each.found is not None:
            ran.append((each.found.op_type, each.found.name, 0))
            work.append((0, each.found_bytes))
    return ran, work


def _rows(
    nodes: Sequence[Node], work: Sequence[Cost], seconds: Sequence[Sequence[float]], known: Limits
) -> tuple[Row, ...]:
    spread = [_percentiles(times) for times in zip(*seconds, strict=True)]
    total = sum(median for median, _, _ in spread)
    rows = []
    for (op, name, _), (median, p10, p90), (flops, bytes) in zip(nodes, spread, work, strict=True):
        gflops, gbytes, bound = rates(known, flops, bytes, median)
        rows.append(Row(
            op=op, name=name, seconds=median, p10=p10, p90=p90, share=median / total if total else 1 / len(nodes),
            flops=flops, bytes=bytes, gflops=gflops, gbytes_per_s=gbytes, bound=bound,
        ))  # fmt: skip
    return tuple(rows)


def _percentiles(seconds: Iterable[float]) -> tuple[float, float, float]:
    """The median, the 10th and the 90th."""
    import numpy as np

    median, p10, p90 = np.percentile(list(seconds), (50, 10, 90))
    return float(median), float(p10), float(p90)
