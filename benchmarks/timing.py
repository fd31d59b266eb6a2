"""Timing contenders in turns, so that what the machine does to one it does to all."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

Contender = Callable[[], Any]
PAUSE = 0.2  # seconds


@dataclass(frozen=True)
class Case:
    """One piece of work, done by several contenders; the first is the one the others are compared with."""

    name: str
    contenders: Mapping[str, Contender]
    device: str = "cpu"  # or "double": the stand-in of the Neural Engine's framework, whose times are no device's
    repeats: int = 1  # how often a contender does the work each time it is called


@dataclass
class Result:
    case: str
    threads: int
    device: str = "cpu"
    seconds: dict[str, list[float]] = field(default_factory=dict)  # per contender, one median a round

    def median(self, name: str) -> float:
        return statistics.median(self.seconds[name])

    def ratios(self, name: str) -> tuple[float, float, float]:
        """Median, lowest and highest over the rounds of (time of ``name``) / (time of the first)."""
        first = next(iter(self.seconds))
        paired = [theirs / ours for theirs, ours in zip(self.seconds[name], self.seconds[first], strict=True)]
        return statistics.median(paired), min(paired), max(paired)

    def over(self, name: str) -> tuple[float, float, float]:
        """Median, lowest and highest over the rounds of (time of ``name``) - (time of the first), in seconds."""
        first = next(iter(self.seconds))
        paired = [theirs - ours for theirs, ours in zip(self.seconds[name], self.seconds[first], strict=True)]
        return statistics.median(paired), min(paired), max(paired)

    def as_json(self) -> dict[str, Any]:
        ratios = {name: dict(zip(("median", "low", "high"), self.ratios(name), strict=True)) for name in self.seconds}
        return {**asdict(self), "ratios": ratios}


def measure(case: Case, *, threads: int, rounds: int, turn: float) -> Result:
    """``rounds`` times, each contender in turn: one warm-up call, then calls for ``turn`` seconds, their median.

    Before each turn a pause: threads of the contender before, which look for work a while, must not be in the way.
    """
    result = Result(case.name, threads, case.device, {name: [] for name in case.contenders})
    for contender in case.contenders.values():
        contender()  # what happens at first use only is nobody's time
    for _ in range(rounds):
        for name, contender in case.contenders.items():
            time.sleep(PAUSE)
            result.seconds[name].append(_turn(contender, turn) / case.repeats)
    return result


def _turn(contender: Contender, turn: float) -> float:
    start = time.perf_counter()
    contender()
    once = time.perf_counter() - start
    batch = max(1, int(1e-4 / max(once, 1e-7)))  # a clock reading must not weigh on a microsecond
    samples, end = [], time.perf_counter() + turn
    while not samples or time.perf_counter() < end:
        start = time.perf_counter()
        for _ in range(batch):
            contender()
        samples.append((time.perf_counter() - start) / batch)
    return statistics.median(samples)
