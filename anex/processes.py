"""Child processes of anex's own: how they find this package, and how they ended."""

from __future__ import annotations

import os
import signal
from pathlib import Path


def environment() -> dict[str, str]:
    """That of this process, with this very package first where the child looks for modules."""
    paths = filter(None, [str(Path(__file__).parents[1]), os.environ.get("PYTHONPATH")])
    return {**os.environ, "PYTHONPATH": os.pathsep.join(paths)}


def ending(code: int) -> str:
    """What an exit code of ``subprocess`` says.

    >>> ending(3), ending(-9)
    ('exit code 3', 'signal SIGKILL')
    """
    return f"signal {signal.Signals(-code).name}" if code < 0 else f"exit code {code}"
