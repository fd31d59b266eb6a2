"""Energy of a call: as many calls as fill the time a sampler needs, and what was drawn meanwhile."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

from .ioreport import IOReport
from .powermetrics import Powermetrics
from .sample import Sample, joules

SECONDS = 2.0


class Sampler(Protocol):
    name: str

    def start(self) -> None: ...
    def stop(self) -> list[Sample]:
        """What was drawn since ``start``."""


@dataclass(frozen=True)
class Reading:
    """``watts`` of the Neural Engine while ``calls`` ran, one after another, for ``seconds``; ``by`` which sampler."""

    watts: float
    calls: int
    seconds: float
    by: str

    @property
    def joules_per_call(self) -> float:
        return self.watts * self.seconds / self.calls

    def tflops_per_watt(self, gflop: float) -> float:
        """Of calls of so many GFLOP.

        >>> round(Reading(2.8, 1000, 1.0, "powermetrics").tflops_per_watt(18.5), 1)
        6.6
        """
        return gflop * self.calls / self.seconds / 1e3 / self.watts


def sampler() -> Sampler | None:
    """The one that works here: IOReport, which needs no root, or powermetrics; None on machines without either."""
    for kind in (IOReport, Powermetrics):
        if kind.unavailable() is None:
            try:
                return kind()
            except OSError:
                continue
    return None


def why_none() -> str:
    """Why there is no sampler here."""
    return "; ".join(dict.fromkeys(filter(None, (kind.unavailable() for kind in (IOReport, Powermetrics)))))


def reading(
    call: Callable[[], object], by: Sampler, seconds: float = SECONDS, clock: Callable[[], float] = time.perf_counter
) -> Reading | None:
    """Call for ``seconds`` and read what the Neural Engine drew; None where the sampler does not tell, or says that
    it drew nothing, which a busy engine never does."""
    by.start()
    calls, begun = 0, clock()
    while (spent := clock() - begun) < seconds or not calls:
        call()
        calls += 1
    return of(by.stop(), calls, spent, by.name)


def drawn(by: Sampler) -> float | None:
    """Mean watts of the Neural Engine while this process rests; None where nobody tells."""
    by.start()
    time.sleep(SECONDS)
    samples = by.stop()
    energy, covered = joules(samples), sum(sample.seconds for sample in samples)
    return None if energy is None or not covered else energy / covered


def of(samples: Sequence[Sample], calls: int, seconds: float, by: str) -> Reading | None:
    energy, covered = joules(samples), sum(sample.seconds for sample in samples)
    if not energy or not covered:
        return None
    return Reading(energy / covered, calls, seconds, by)
