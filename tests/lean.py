"""Paths for the processes that tests start, in which coremltools is imported in a quarter of the time."""

from __future__ import annotations

import os
from pathlib import Path

CHILDREN = Path(__file__).parent / "children"  # its sitecustomize.py says how


def path(*places: object) -> str:
    """A PYTHONPATH with these places."""
    return os.pathsep.join(map(str, (CHILDREN, *filter(None, places))))
