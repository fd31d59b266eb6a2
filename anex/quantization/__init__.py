"""``anex.quantize``: smaller weights and int8 activations, by coremltools, and what they cost and bring."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .quantizing import quantize
    from .report import Layer, Quantized

__all__ = ["Layer", "Quantized", "quantize"]


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module 'anex.quantization' has no attribute {name!r}")
    return getattr(importlib.import_module(".quantizing" if name == "quantize" else ".report", __name__), name)
