"""``anex.explain``: which ops of a program the Neural Engine runs, why it does not run the others, and how fast.

Predicted from rules with sources (``anex.ops``) and the cost model (``anex.cost``): nothing is run, on any machine.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .explaining import explain
    from .report import Explanation, OpPlacement, Segment

__all__ = ["Explanation", "OpPlacement", "Segment", "explain"]


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module 'anex.placement' has no attribute {name!r}")
    return getattr(importlib.import_module(".explaining" if name == "explain" else ".report", __name__), name)
