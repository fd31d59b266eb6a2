"""The trainings of a whole run: examples, each a file with ``training(steps, device)`` that yields its losses.

It passes if the losses are numbers and fall. Where ``training`` has a parameter ``small`` it is told of a quick run;
where the file has ``expected``, with the same parameter, the first loss is held against what that computes otherwise.
A training whose example is not beside the package is skipped with that reason: wheels have no examples.
"""

from __future__ import annotations

import contextlib
import importlib.util
import inspect
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


TOLERANCE = {"cpu": 1e-4, "ane": 2e-2}  # of the first loss, by device


def play(
    training: Training,
    steps: int,
    device: str,
    listener: Callable[[str, int, int], None] | None = None,
    *,
    small: bool = False,
) -> dict[str, Any]:
    """Run ``steps`` steps: the losses, and the milliseconds of each.

    ``first_ms`` is the first step with all that comes before it, compilation included. ``expected_first_loss`` is
    there where the example computes it. A loss that is no number raises ``FloatingPointError``; too few of them, none
    below the first one, and a first one that is not as expected ``ValueError``.
    """
    with _module(training) as module:
        options = {"small": small} if "small" in inspect.signature(module.training).parameters else {}
        found = _timed(module.training(steps, device, **options), training, steps, listener)
        first, least = found["first_loss"], min(found["losses"])
        if hasattr(module, "expected"):
            wanted = found["expected_first_loss"] = float(module.expected(**options))
            if not abs(first - wanted) <= TOLERANCE[device] * abs(wanted):
                raise ValueError(f"the first loss is {first:.6f}, and {wanted:.6f} where it is computed otherwise")
    if steps > 1 and not least < first:
        raise ValueError(f"the loss does not fall: {first:.6f} at first, {least:.6f} at the least")
    return found


def _timed(
    made: Iterator[float], training: Training, steps: int, listener: Callable[[str, int, int], None] | None
) -> dict[str, Any]:
    losses: list[float] = []
    seconds: list[float] = []
    begun = time.perf_counter()
    for loss in made:
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


@contextlib.contextmanager
def _module(training: Training) -> Iterator[Any]:
    """The example's own file, which may import what lies beside it."""
    found = importlib.util.spec_from_file_location(f"anex_example_{training.path.stem}", training.path)
    if found is None or found.loader is None:
        raise ImportError(f"{training.path} cannot be imported")
    module = importlib.util.module_from_spec(found)
    sys.path.insert(0, str(training.path.parent))
    try:
        found.loader.exec_module(module)
        yield module
    finally:
        sys.path.remove(str(training.path.parent))
