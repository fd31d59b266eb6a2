"""Where the time of the CPU's one program goes, in the columns of the published trainer."""

from __future__ import annotations

from collections import Counter

import numpy as np
from stories_step import Step


def shares(step: Step, tokens: np.ndarray, targets: np.ndarray) -> dict[str, float]:
    """Of the classifier and loss (cls), RMSNorm (rms), other matrix products (cblas_wait, which the published trainer
    had waited for) and the rest (elem), of one: measured over one call, op by op.
    """
    (section,) = step.sections
    found = Counter[str]()
    profile = section.backward.profile(**step.given(tokens, targets), repeat=1)
    for row in profile.rows:
        kind = "cls" if row.name.startswith("cls_") else "rms" if row.name.startswith("rms_") else "elem"
        if kind == "elem" and row.op == "matmul":
            kind = "cblas_wait"
        found[kind] += row.seconds
    whole = sum(found.values())
    return {name: value / whole for name, value in found.items()}


def spread(times: Counter[str], parts: dict[str, float]) -> None:
    """The time of the CPU's program to the columns; where it was not looked into, to cblas_wait."""
    whole = times.pop("cpu", 0.0)
    for name, share in (parts or {"cblas_wait": 1.0}).items():
        times[name] += whole * share  # type: ignore[assignment]
