"""How long a call takes once it takes always the same."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

WINDOW = 5  # calls whose medians are compared
STEADY = 1.05  # two windows in a row, one median over the other


@dataclass(frozen=True)
class Effort:
    """At least ``warm`` calls before the clock counts, then ``calls``, or what fits into ``seconds``; 3 at least."""

    warm: int = 10
    calls: int = 50
    seconds: float = 10.0


QUICK = Effort(1, 5, 0.25)
LEAST = 3


@dataclass(frozen=True)
class Timing:
    """Seconds of each timed call, and of the ``first`` of all. ``steady``: whether the ``warmed`` calls had settled."""

    seconds: tuple[float, ...]
    warmed: int
    steady: bool
    first: float = 0.0

    @property
    def median(self) -> float:
        return float(np.median(self.seconds))

    @property
    def p10(self) -> float:
        return float(np.quantile(self.seconds, 0.1))

    @property
    def p90(self) -> float:
        return float(np.quantile(self.seconds, 0.9))

    @property
    def ms(self) -> float:
        return 1e3 * self.median


def is_steady(seconds: Sequence[float]) -> bool:
    """Whether the last two windows agree.

    >>> is_steady([3, 2, 1, 1, 1, 1, 1, 1, 1, 1]), is_steady([1, 1, 1]), is_steady([1] * 5 + [2] * 5)
    (True, False, False)
    """
    if len(seconds) < 2 * WINDOW:
        return False
    before, after = np.median(seconds[-2 * WINDOW : -WINDOW]), np.median(seconds[-WINDOW:])
    return bool(max(before, after) <= STEADY * min(before, after))


def measure(call: Callable[[], object], effort: Effort, clock: Callable[[], float] = time.perf_counter) -> Timing:
    """Warm up until the calls take always the same, or have taken a fair share of the time, then time them."""

    def once() -> float:
        start = clock()
        call()
        return clock() - start

    begun, before = clock(), []
    while True:
        before.append(once())
        spent = clock() - begun
        if len(before) >= effort.warm and (is_steady(before) or spent > effort.seconds / 4):
            break
        if spent > effort.seconds and len(before) >= 1:
            break
    steady, begun = is_steady(before), clock()
    timed: list[float] = []
    while len(timed) < LEAST or (len(timed) < effort.calls and clock() - begun < effort.seconds):
        timed.append(once())
    return Timing(tuple(timed), len(before), steady, before[0])
