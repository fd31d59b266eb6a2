"""The loss by step: any number of steps in bounded memory."""

from __future__ import annotations

import math
from bisect import bisect_left

import numpy as np

LIMIT = 1 << 16
"""Points that are kept; beyond them each becomes the mean of twice as many steps."""

DIVERGED = 1e100
"""Losses from here on, infinities and nan are no points."""


class Curve:
    """Losses whose steps only grow: a step that was seen before takes with it what came after it.

    That is what a resumed run means, and a run that begins again.
    """

    def __init__(self, limit: int = LIMIT) -> None:
        self.limit = limit
        self.stride = 1  # steps of a point
        self.steps: list[int] = []  # the last of each point
        self.losses: list[float] = []
        self.rest: list[tuple[int, float]] = []  # steps that are no point yet
        self.lows: list[tuple[int, float]] = []  # each the least so far, so that forgetting finds the one before
        self.last: tuple[int, float] | None = None
        self.diverged: int | None = None  # the first step whose loss cannot be drawn

    def add(self, step: int, loss: float) -> None:
        if self.last is not None and step <= self.last[0]:
            self.forget(step)
        self.last = (step, loss)
        if not abs(loss) < DIVERGED:
            self.diverged = step if self.diverged is None else self.diverged
            return
        self.rest.append((step, loss))
        if len(self.rest) == self.stride:
            self.steps.append(step)
            self.losses.append(math.fsum(loss / self.stride for _, loss in self.rest))
            self.rest.clear()
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
        self.rest = [pair for pair in self.rest if pair[0] < step]
        while self.lows and self.lows[-1][0] >= step:
            self.lows.pop()
        if self.diverged is not None and self.diverged >= step:
            self.diverged = None

    @property
    def best(self) -> tuple[int, float] | None:
        """(step, loss) of the least loss."""
        return self.lows[-1] if self.lows else None

    @property
    def ends(self) -> tuple[int, int]:
        """The first and the last step that is drawn; there must be one."""
        steps = [*self.steps[:1], *self.steps[-1:], *(step for step, _ in self.rest)]
        return steps[0], steps[-1]

    def points(self, most: int) -> tuple[list[float], list[float]]:
        """(steps, losses), at most so many: means of neighbours where there are more."""
        x = [float(step) for step in (*self.steps, *(step for step, _ in self.rest))]
        y = [*self.losses, *(loss for _, loss in self.rest)]
        if len(x) <= most:
            return x, y
        steps, losses = np.array(x), np.array(y)
        bins = np.minimum((steps - steps[0]) * most // (steps[-1] - steps[0] + 1), most - 1).astype(np.int64)
        counts = np.bincount(bins, minlength=most)
        some = counts > 0
        means = (np.bincount(bins, values / counts[bins], most)[some].tolist() for values in (steps, losses))
        return next(means), next(means)

    def _thin(self) -> None:
        if len(self.steps) % 2:
            self.rest.insert(0, (self.steps.pop(), self.losses.pop()))
        self.losses = [a / 2 + b / 2 for a, b in zip(self.losses[::2], self.losses[1::2], strict=True)]
        self.steps = self.steps[1::2]
        self.stride *= 2
