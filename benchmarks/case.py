"""What a case is. Whoever adds one needs this module and catalogue.py, and nothing else.

Case modules are imported by every process, also by those of the peers' environment, which has neither torch nor
anex: at the top they import numpy and ``benchmarks`` only, and the rest where it is used.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np


class Setting(NamedTuple):
    """Where a contender is built: its own process, which has been told the number of threads already."""

    threads: int
    folder: Path  # of this case and run; the case's ``files`` are in it


class Work(NamedTuple):
    """What a contender does when it is its turn."""

    call: Callable[[], object]  # timed
    # What it computed, asked once, after a call: an array in the shape that all contenders of the case agree on.
    # None where there is nothing to compare, as of a conversion.
    answer: Callable[[], Any] | None
    repeats: int = 1  # how often one call does the work


Contender = Callable[[Setting], Work]


@dataclass(frozen=True)
class Goal:
    """``peer``'s time / ``ours`` is to be at least ``ratio``; of several peers the fastest of each round counts.

    Either name may be "limit KIND": the time that the work takes at that limit of the machine. ``of``: "time", or
    "memory", the peak of the process while it computed, of cases that measure it.
    """

    ours: str
    peer: str | tuple[str, ...]
    ratio: float
    of: str = "time"

    @property
    def peers(self) -> tuple[str, ...]:
        return (self.peer,) if isinstance(self.peer, str) else self.peer


@dataclass(frozen=True)
class Limit:
    """What the machine can do at most (a kind of machine.py, measured in each round), and how much the work asks of it.

    ``amount``: FLOP of kinds "fma" and "int8", else bytes. ``of``: the contenders that it binds, by the beginning of
    their names; bytes, say, of those that compute in float16.
    """

    kind: str
    amount: float
    of: tuple[str, ...] = ("",)

    def binds(self, contender: str) -> bool:
        return contender.startswith(self.of)


@dataclass(frozen=True)
class File:
    """What contenders read that another environment than theirs must write: ours, once, before they are built."""

    write: Callable[[Path], None]
    readers: tuple[str, ...] = ("onnxruntime", "openvino")  # runtimes; without any of them nobody writes it


@dataclass(frozen=True)
class Case:
    """One piece of work, done by several contenders; the first is ours, and what the others are compared with."""

    title: str  # says shapes and units; a line
    contenders: Mapping[str, Contender]
    goals: Sequence[Goal] = ()
    limits: Sequence[Limit] = ()
    tolerance: float = 0.02  # of the largest magnitude of our answer
    device: str = "cpu"  # or "double": the stand-in of the Neural Engine's framework, whose times are no device's
    files: Mapping[str, File] = field(default_factory=dict)  # what goes into ``Setting.folder``: "model.onnx"
    memory: bool = False  # whether the peak memory of each process is shown


def normal(shape: Sequence[int], seed: int = 0, scale: float = 1.0) -> np.ndarray:
    """Normal float32 numbers, the same in every process, and numbers that float16 holds exactly."""
    values = np.random.default_rng(seed).standard_normal(tuple(shape), np.float32) * np.float32(scale)
    return values.astype(np.float16).astype(np.float32)
