"""How far two arrays are apart."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np


def compare(found: np.ndarray, wanted: np.ndarray) -> dict[str, Any]:
    """``absolute``: the largest difference; ``relative``: that, over the largest finite magnitude expected;
    ``ulp``: in units of the last place of float16; ``nonfinite``: elements of which one is NaN or infinite, and the
    other is another. These make ``relative`` infinite.
    """
    import numpy as np

    if found.shape != wanted.shape:
        return {"absolute": math.inf, "relative": math.inf, "ulp": None, "nonfinite": 0, "shape": list(found.shape)}
    left, right = found.astype("float64"), wanted.astype("float64")
    finite = np.isfinite(left) & np.isfinite(right)
    same = finite | (left == right) | (np.isnan(left) & np.isnan(right))
    astray = int(same.size - np.count_nonzero(same))
    difference = np.abs(np.where(finite, left - np.where(finite, right, 0), 0)) if finite.any() else np.zeros(1)
    absolute = float(np.nan_to_num(difference).max(initial=0.0))
    scale = float(np.abs(right[np.isfinite(right)]).max(initial=0.0))
    steps = np.abs(_ordered(found) - _ordered(wanted))[finite]
    return {
        "absolute": absolute,
        "relative": math.inf if astray else absolute / scale if scale else absolute,
        "ulp": int(steps.max(initial=0)),
        "nonfinite": astray,
    }


def _ordered(array: np.ndarray) -> np.ndarray:
    """Whole numbers in the order of the float16 values: neighbours differ by one."""
    import numpy as np

    with np.errstate(over="ignore"):
        bits = array.astype("float16").view("int16").astype("int32")
    return np.asarray(np.where(bits < 0, -32768 - bits, bits))
