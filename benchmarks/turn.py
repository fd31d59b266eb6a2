"""One contender in its process: built, asked for its answer, and timed when it is its turn."""

from __future__ import annotations

import gc
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from . import machine
from .case import Case, Setting, Work
from .memory import forget_peak, peak
from .runtimes import runtime_of

MACHINE = "machine"  # the contender that measures the limits
CLOCK = 1e-4  # seconds; what is shorter is timed several calls at once, or the clock would weigh on it
LONG = 1.0  # seconds; a call as long as that is its own warm-up

Turn = Callable[[float], dict[str, Any]]  # for so many seconds -> what came out


def prepare(case: Case, contender: str, setting: Setting) -> tuple[Turn, np.ndarray | None]:
    """The contender, ready, and its answer."""
    if contender == MACHINE:
        return _limits(case, setting.threads), None
    _set_threads(runtime_of(contender), setting.threads)
    work = case.contenders[contender](setting)
    start = time.perf_counter()
    work.call()  # what happens at first use only is nobody's time
    first = time.perf_counter() - start
    answer = None if work.answer is None else np.array(work.answer(), np.float32)
    if case.memory:
        gc.collect()
        forget_peak()  # of what building it took

    def turn(seconds: float) -> dict[str, Any]:
        said: dict[str, Any] = {"seconds": timed(work, seconds, warm=first < LONG)}
        return {**said, "memory": peak()} if case.memory else said

    return turn, answer


def timed(work: Work, seconds: float, *, warm: bool = True) -> float:
    """A call to warm up, then calls for ``seconds``, at least one: the median of their times."""
    once = 0.0
    if warm:
        start = time.perf_counter()
        work.call()
        once = time.perf_counter() - start
    batch = max(1, int(CLOCK / max(once, 1e-7))) if warm else 1
    samples: list[float] = []
    end = time.perf_counter() + seconds
    while not samples or time.perf_counter() < end:
        start = time.perf_counter()
        for _ in range(batch):
            work.call()
        samples.append((time.perf_counter() - start) / batch)
    return statistics.median(samples) / work.repeats


def _set_threads(runtime: str, threads: int) -> None:
    """Of the libraries that are told so; the others take it from the environment, or from ``Setting.threads``."""
    if runtime in ("anex", "double"):
        import anex

        anex.set_num_threads(threads)
    elif runtime == "torch":
        import torch

        torch.set_num_threads(threads)


def _limits(case: Case, threads: int) -> Turn:
    kinds = list(dict.fromkeys(limit.kind for limit in case.limits))

    def turn(seconds: float) -> dict[str, Any]:
        each = seconds / (len(kinds) + 2)
        rates = {kind: machine.rate(kind, threads, each) for kind in kinds}
        return {"rates": rates, "state": machine.state(each)}

    turn(0.01)
    return turn


def folder_of(folder: Path, contender: str) -> Path:
    return folder / f"{contender.replace('/', '_').replace(' ', '_')}.npy"
