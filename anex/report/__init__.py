"""``anex.profile`` and ``anex profile``: the published profiler's report of a model, on any machine.

Predicted for the Neural Engine (``anex.cost``, ``anex.placement``), measured on the device that is here
(``anex.profiling``); each table says which of the two it is, and none has both in one column.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .making import profile
    from .report import Report

__all__ = ["Report", "profile"]


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module 'anex.report' has no attribute {name!r}")
    return getattr(importlib.import_module(".making" if name == "profile" else ".report", __name__), name)
