"""The loss by step: any number of steps in bounded memory."""

from __future__ import annotations

import math
from bisect import bisect_left

import numpy as np

LIMIT = 1 << 16
"""Points that are kept; beyond them two neighbours become their mean."""


class Curve:
    """Losses whose steps only grow: a step that was seen before takes with it what came after it.

    That is what a resumed run means, and a run that begins again.
    """

    def __init__(self, limit: int = LIMIT) -> None:
        self.limit = limit
        self.steps: list[int] = []
        self.losses: list[float] = []
        self.lows: list[tuple[int, float]] = []  # each the least so far, so that forgetting finds the one before
        self.last: tuple[int, float] | None = None
        self.not_finite: int | None = None  # the first such step

    def add(self, step: int, loss: float) -> None:
        if self.last is not None and step <= self.last[0]:
            self.forget(step)
        self.last = (step, loss)
        if not math.isfinite(loss):
            self.not_finite = step if self.not_finite is None else self.not_finite
            return
        self.steps.append(step)
        self.losses.append(loss)
        if not self.lows or loss < self.lows[-1][1]:
            self.lows.append((step, loss))
            if len(self.lows) > self.limit:
                del self.lows[:-1:2]
        if len(self.steps) > self.limit:
            self._thin()

    def forget(self, step: int) -> None:
        """All from ``step`` on."""
        kept = bisect_left(self.steps, step)
        del self.steps[kept:], self.losses[kept:]
        while self.lows and self.lows[-1][0] >= step:
            self.lows.pop()
        if self.not_finite is not None and self.not_finite >= step:
            self.not_finite = None

    @property
    def best(self) -> tuple[int, float] | None:
        """(step, loss) of the least loss."""
        return self.lows[-1] if self.lows else None

    def points(self, most: int) -> tuple[list[float], list[float]]:
        """(steps, losses), at most so many: means of neighbours where there are more."""
        if len(self.steps) <= most:
            return [float(step) for step in self.steps], list(self.losses)
        steps, losses = np.array(self.steps, np.float64), np.array(self.losses, np.float64)
        bins = np.minimum((steps - steps[0]) * most // (steps[-1] - steps[0] + 1), most - 1).astype(np.int64)
        counts = np.bincount(bins, minlength=most)
        some = counts > 0
        x, y = (np.bincount(bins, values, most)[some] / counts[some] for values in (steps, losses))
        return x.tolist(), y.tolist()

    def _thin(self) -> None:
        even = len(self.steps) // 2 * 2
        means = [(a + b) / 2 for a, b in zip(self.losses[:even:2], self.losses[1:even:2], strict=True)]
        self.losses[:even], self.steps[:even] = means, self.steps[1:even:2]
