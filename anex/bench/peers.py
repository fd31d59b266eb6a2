"""Other software's way of the same program, to stand beside ours: Core ML's own prediction."""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from .. import store

if TYPE_CHECKING:
    from coremltools.converters.mil.mil import Program

AVAILABLE = sys.platform == "darwin"
WHY_NOT = "not available: Core ML is part of macOS"


def prediction(make: Callable[[], Program], shape: tuple[int, ...]) -> Callable[[], object]:
    """A call of the program of one input ``x`` of this shape through Core ML, on the Neural Engine where it likes."""
    import coremltools as ct

    from .running import values

    with tempfile.TemporaryDirectory(prefix="anex-bench-") as folder:
        path = Path(folder) / "model.mlpackage"
        store.save(make(), path)
        model = ct.models.MLModel(str(path), compute_units=ct.ComputeUnit.CPU_AND_NE)
    return partial(model.predict, {"x": values("x", shape)})
