"""What the chip draws while something runs: from ``powermetrics`` or IOReport, or not at all; never estimated."""

from __future__ import annotations

from .meter import Reading, Sampler, drawn, reading, sampler, why_none
from .sample import Sample, joules

__all__ = ["Reading", "Sample", "Sampler", "drawn", "joules", "reading", "sampler", "why_none"]
