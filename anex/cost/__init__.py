"""What a program will take on a Neural Engine: predicted, never measured.

``work`` says what is counted, ``rows`` and ``program`` count it in published measurements and in MIL
programs, ``physics`` turns it into milliseconds, ``kriging`` corrects those by what was measured near by,
``model`` holds the fitted numbers (``data/fitted.json``, which ``calibrate`` writes from a CSV).
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .program import Cost

__all__ = ["predict"]


def predict(
    model: Any, chips: str | Sequence[str] = "M4", *, path: str = "private", function: str = "",
    calibration: str | os.PathLike[str] | None = None,
) -> list[Cost]:  # fmt: skip
    """What ``model`` is predicted to take, one ``Cost`` a chip: nothing is run, and it works on any machine.

    ``model``: a MIL program, or the path of a ``.mlpackage``, ``.mlmodelc`` or MIL text. ``path``: the way into the
    engine, "private", "e5rt" or "coreml". ``calibration``: the file of ``anex calibrate``, for a machine of your own.

    >>> @anex.graph(x=(1, 64, 1, 64))
    ... def program(x):
    ...     return mb.relu(x=x)
    >>> (found,) = anex.cost.predict(program, "M5")
    >>> found.prediction.bound, found.prediction.low < found.prediction.ms < found.prediction.high
    ('dispatch', True)
    """
    from pathlib import Path

    from ..errors import ArgumentError
    from ..load import from_file
    from .chips import chip
    from .model import with_calibration
    from .program import cost

    names = [chips] if isinstance(chips, str) else list(chips)
    for name in names:
        if not chip(name).known:
            raise ArgumentError(f"chip {name!r} is no Apple chip; such as 'M4 Max', 'A18 Pro' or 'h16g'")
    program = from_file(model, function or None, zeros=True) if isinstance(model, (str, Path)) else model
    if not hasattr(program, "functions"):
        raise ArgumentError(f"{type(model).__name__} is no MIL program, and no path")
    fitted = with_calibration(None if calibration is None else Path(calibration))
    return [cost(program, chip(name), path=path, model=fitted, function=function) for name in names]
