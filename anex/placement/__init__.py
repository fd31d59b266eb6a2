"""``anex.explain``: which ops of a program the Neural Engine runs, why it does not run the others, and how fast.

Predicted from rules with sources (``anex.ops``) and the cost model (``anex.cost``): nothing is run, on any machine.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .advising import Target, advise
    from .explaining import explain, explain_op
    from .report import Explanation, OpPlacement, Segment

__all__ = ["Explanation", "OpPlacement", "Segment", "Target", "advise", "explain", "explain_op"]


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module 'anex.placement' has no attribute {name!r}")
    module = {"explain": ".explaining", "explain_op": ".explaining", "advise": ".advising", "Target": ".advising"}.get(
        name, ".report"
    )
    return getattr(importlib.import_module(module, __name__), name)
