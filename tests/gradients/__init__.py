"""The gradients' cases, by family."""

from . import compute, elementwise, moves  # noqa: F401  each adds its cases
from .cases import CASES, Case

__all__ = ["CASES", "Case"]
