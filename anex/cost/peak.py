"""What no program exceeds: the rate of its chip's multipliers, and how a predicted time keeps to it."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import numpy.typing as npt

from .chips import Chip
from .physics import Parameters
from .work import Load, Work

Array = npt.NDArray[np.float64]
Measured = tuple[Chip, Load, float]  # ms


class Peaks:
    """FLOP/ms by chip, kind of product and arithmetic: the fitted rate of 1x1 convolutions, which are the fastest that
    every chip was measured on; or what was measured, where that is more: M5's convolutions with larger kernels count
    more FLOP than 1x1 ones reach, and chips of a generation have the same multipliers.
    """

    def __init__(self, parameters: Parameters, measured: Iterable[Measured]) -> None:
        self._parameters = parameters
        self._best: dict[tuple[int, str, bool], float] = {}
        self._found: dict[tuple[Chip, str, bool], float] = {}
        for chip, load, ms in measured:
            kinds = {(work.kind, work.scheme == "w8a8") for work in load.works if work.flops}
            if len(kinds) == 1:
                key = (chip.generation, *kinds.pop())
                self._best[key] = max(self._best.get(key, 0.0), load.flops / ms)

    def peak(self, chip: Chip, work: Work) -> float:
        """FLOP/ms of such work, int8 where weights and activations both are."""
        key = (chip, work.kind, work.scheme == "w8a8")
        if key not in self._found:
            rate, int8 = (self._parameters.value(chip, name) for name in ("rate", "w8a8"))
            self._found[key] = max(rate * int8 if key[2] else rate, self._best.get((chip.generation, *key[1:]), 0.0))
        return self._found[key]

    def least(self, chip: Chip, load: Load) -> Array:
        """ms of each work at its peak."""
        return np.array([work.flops / self.peak(chip, work) if work.flops else 0.0 for work in load.works])


def shared(total: float, parts: Array, least: Array) -> Array:
    """``parts`` in proportion, so that they add up to ``total`` and none is below its ``least``.

    All of ``least`` add up to no more than ``total``, but for rounding.

    >>> shared(10.0, np.array([2.0, 2.0, 4.0]), np.array([0.0, 4.0, 0.0]))
    array([2., 4., 4.])
    """
    held = np.zeros(len(parts), bool)
    while True:
        free = parts[~held].sum()
        scale = max(0.0, total - least[held].sum()) / free if free else 0.0
        below = ~held & (parts * scale < least)
        if not below.any():
            return np.where(held, least, parts * scale)
        held |= below
