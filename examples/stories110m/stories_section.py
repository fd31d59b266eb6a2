"""A part of a step on one device, and how long things take."""

from __future__ import annotations

import time
from collections import Counter
from dataclasses import dataclass

import anex


@dataclass
class Section:
    """Neighbouring parts on one device: a program for the way there, one for the way back, and their results."""

    device: str
    weights: list[str]
    forward: anex.Program | None  # None where the loss is made: its one program goes both ways
    backward: anex.Program
    made: tuple[anex.Tensor, ...]
    results: tuple[anex.Tensor, ...]


def results_of(program: anex.Program) -> tuple[anex.Tensor, ...]:
    """Tensors for what a program gives."""
    return tuple(anex.empty(spec.shape, spec.dtype) for spec in program.outputs.values())


class Timed:
    """Adds the milliseconds of a block to a counter."""

    def __init__(self, times: Counter[str], name: str) -> None:
        self.times, self.name = times, name

    def __enter__(self) -> None:
        self.start = time.perf_counter()

    def __exit__(self, *_: object) -> None:
        self.times[self.name] += (time.perf_counter() - self.start) * 1e3  # type: ignore[assignment]
