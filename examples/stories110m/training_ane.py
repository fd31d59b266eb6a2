"""What ``anex bench all`` runs in the place of train_large_ane: training.py with all parts on the Neural Engine."""

from __future__ import annotations

from collections.abc import Iterator

import training as same
from stories_step import PARTS

expected = same.expected


def training(steps: int, device: str | None = None, small: bool = False) -> Iterator[float]:
    """The loss of each step."""
    return same.training(steps, device, small, PARTS)
