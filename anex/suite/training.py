"""The trainings of a whole run: examples, each a file with ``training(steps, device)`` that yields its losses.

A training whose example is not beside the package is skipped with that reason: wheels have no examples.
"""

from __future__ import annotations

import importlib.util
import math
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

EXAMPLES = Path(__file__).parents[2] / "examples"


@dataclass(frozen=True)
class Training:
    """``file``: below the examples; ``source``: the published tool in whose place it stands."""

    name: str
    file: str
    source: str = ""

    @property
    def path(self) -> Path:
        return EXAMPLES / self.file

    @property
    def missing(self) -> str:
        """Why it cannot be run; empty where it can."""
        return "" if self.path.is_file() else f"the example is not installed: there is no examples/{self.file}"


TRAININGS = (
    Training("train-mlp", "train_mlp.py"),
    Training("train-large", "stories110m/training.py", "train_large (seed 002)"),
    Training("train-large-ane", "stories110m/training_ane.py", "train_large_ane (seed 002)"),
)


def play(
    training: Training, steps: int, device: str, listener: Callable[[str, int, int], None] | None = None
) -> dict[str, Any]:
    """Run ``steps`` steps: the losses, and the milliseconds of each. Loss that is no number raises FloatingPointError.

    ``first_ms`` is the first step with all that comes before it, compilation included.
    """
    losses: list[float] = []
    seconds: list[float] = []
    begun = time.perf_counter()
    for loss in _losses(training, steps, device):
        seconds.append(time.perf_counter() - begun)
        losses.append(float(loss))
        if not math.isfinite(losses[-1]):
            raise FloatingPointError(f"the loss of step {len(losses)} is {losses[-1]}")
        if listener:
            listener(f"loss {losses[-1]:.4f}", len(losses), steps)
        begun = time.perf_counter()
    if len(losses) != steps:
        raise ValueError(f"{training.file} made {len(losses)} steps of {steps}")
    return {"steps": steps, "first_loss": losses[0], "last_loss": losses[-1], "losses": losses,
            "first_ms": 1e3 * seconds[0], "ms_per_step": 1e3 * float(np.median(seconds[1:] or seconds))}  # fmt: skip


def _losses(training: Training, steps: int, device: str) -> Iterator[float]:
    """Of the example's own file, which may import what lies beside it."""
    found = importlib.util.spec_from_file_location(f"anex_example_{training.path.stem}", training.path)
    if found is None or found.loader is None:
        raise ImportError(f"{training.path} cannot be imported")
    module = importlib.util.module_from_spec(found)
    sys.path.insert(0, str(training.path.parent))
    try:
        found.loader.exec_module(module)
        yield from module.training(steps, device)
    finally:
        sys.path.remove(str(training.path.parent))
