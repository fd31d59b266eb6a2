"""One sample of power, and its arithmetic."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Sample:
    """Mean watts over ``seconds``; None for what the source did not tell."""

    seconds: float
    ane: float | None = None
    cpu: float | None = None
    gpu: float | None = None


def joules(samples: Sequence[Sample], part: str = "ane") -> float | None:
    """Energy of ``part``, ``"ane"``, ``"cpu"`` or ``"gpu"``, over all samples; None where one does not tell.

    >>> joules([Sample(0.5, ane=2.0), Sample(1.0, ane=3.0)]), joules([Sample(1.0)]), joules([])
    (4.0, None, None)
    """
    watts = [getattr(sample, part) for sample in samples]
    if not watts or None in watts:
        return None
    return float(sum(w * sample.seconds for w, sample in zip(watts, samples, strict=True)))
