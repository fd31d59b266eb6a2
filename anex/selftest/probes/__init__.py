"""The probes, one small function each, by what they are about."""

from __future__ import annotations

from ..probe import PROBES, Answer, Probe
from . import binding, lifetime, numerics, rules, speed  # noqa: F401  each registers its own

__all__ = ["PROBES", "Answer", "Probe"]
