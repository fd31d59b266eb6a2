"""``anex.verify``: whether the numbers of a program are right on a device, op by op, and where they part."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .report import Verification
    from .verifying import verify

__all__ = ["Verification", "verify"]


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module 'anex.verification' has no attribute {name!r}")
    return getattr(importlib.import_module(".verifying" if name == "verify" else ".report", __name__), name)
