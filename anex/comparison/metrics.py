"""How far two arrays are apart."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np

LARGEST = float(np.finfo(np.float16).max)
NORMAL = float(np.finfo(np.float16).smallest_normal)


@dataclass(frozen=True)
class Difference:
    """Of ``found`` from ``reference``, over ``elements``; infinities and NaN that both have are no difference.

    ``relative``: root mean square of the difference by that of the reference; of integers and bools, the share of
    elements that differ. ``max_relative``: ``max_abs`` by the reference's largest magnitude. ``max_ulp``,
    ``mean_ulp``: in units in the last place of the reference's value in ``found``'s dtype; 0 for integers.
    ``cosine``: of the angle between the two; NaN where one is all zero. ``nonfinite``: elements that are infinite or
    NaN in one and something else in the other; with any, the relative errors are infinite and the others those of
    the remaining elements.
    """

    elements: int
    max_abs: float
    mean_abs: float
    relative: float
    max_relative: float
    max_ulp: float
    mean_ulp: float
    cosine: float
    nonfinite: int

    @property
    def exact(self) -> bool:
        return self.max_abs == 0 and self.nonfinite == 0


def difference(reference: np.ndarray, found: np.ndarray) -> Difference:
    """Of two arrays, in sums of float64. Where data decide shapes and these differ, nothing is right."""
    if reference.shape != found.shape:
        return Difference(found.size, np.inf, np.inf, np.inf, np.inf, np.inf, np.inf, float("nan"), found.size)
    floating = found.dtype.kind == "f"
    r, f = (np.asarray(each, np.float64).ravel() for each in (reference, found))
    with np.errstate(invalid="ignore"):
        same = (r == f) | (np.isnan(r) & np.isnan(f))
    measured = np.isfinite(r) & np.isfinite(f)
    nonfinite = int(np.count_nonzero(~measured & ~same))
    r, f = r[measured], f[measured]
    off = np.abs(f - r)
    ulp = off / _spacing(r, found.dtype) if floating else np.zeros(0)
    most = float(off.max(initial=0.0))
    largest = float(np.abs(r).max(initial=0.0))
    if floating:
        relative = _ratio(_norm(off), _norm(r))
    else:
        relative = float(np.count_nonzero(off)) / max(1, off.size)
    norms = _norm(r) * _norm(f)
    return Difference(
        reference.size,
        most,
        float(off.mean()) if off.size else 0.0,
        np.inf if nonfinite else relative,
        np.inf if nonfinite else _ratio(most, largest),
        float(ulp.max(initial=0.0)),
        float(ulp.mean()) if ulp.size else 0.0,
        float(np.clip(np.sum(r * f) / norms, -1, 1)) if norms else float("nan"),
        nonfinite,
    )


def _spacing(values: np.ndarray, dtype: np.dtype) -> np.ndarray:
    """One unit in the last place of each value, as ``dtype`` would hold it."""
    held = np.minimum(np.abs(values), np.finfo(dtype).max).astype(dtype)
    below = np.nextafter(np.finfo(dtype).max, dtype.type(0))  # past it the next value is infinite
    return np.asarray(np.spacing(np.minimum(held, below)), np.float64)


def _norm(values: np.ndarray) -> float:
    return float(np.sqrt(np.sum(values * values)))  # not dot(), whose last bit depends on where the array lies


def _ratio(above: float, below: float) -> float:
    return above / below if below else (np.inf if above else 0.0)


def plain(value: Any) -> Any:
    """``value`` for JSON, which has no infinity and no NaN: None in their place."""
    if isinstance(value, dict):
        return {name: plain(each) for name, each in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(each) for each in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
