"""Gradients of pools."""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from .elementwise_vjp import where
from .gradient import Thunk, Use, constant_like, numpy_dtype
from .windows import Window, over_all, put_back, room, taken, taps, windows


def _space(use: Use) -> list[Window]:
    return windows(use, use.shape("x")[2:], use.output_shape[2:], [int(n) for n in use.value("kernel_sizes")])


def _counts(w: Window, exclude: bool) -> Any:
    """How many elements each window of an axis averages; what ceil_mode adds beyond the padding does not count."""
    first = np.arange(w.out) * w.stride - w.before
    last = np.minimum(first + w.size, w.extent + (0 if exclude else w.after))
    return np.maximum(last - (np.maximum(first, 0) if exclude else first), 1)


def _to_every_tap(mb: Any, use: Use, y: Any, space: Sequence[Window]) -> Any:
    """Each element of y to everything in its window, summed."""
    if all(w.out == 1 and w.before == 0 and w.size >= w.extent for w in space):
        return y  # one window that is all of the axis: y broadcasts
    channels = use.shape("x")[1]
    ones = np.ones([channels, 1, *(w.size for w in space)], numpy_dtype(y))
    return over_all(mb, y, ones, space, channels)


def avg_pool(mb: Any, use: Use, dy: Any) -> Mapping[str, Thunk]:
    space = _space(use)

    def x() -> Any:
        exclude = bool(use.value("exclude_padding_from_average", False))
        count = functools.reduce(np.multiply.outer, (_counts(w, exclude) for w in space))
        return _to_every_tap(mb, use, mb.mul(x=dy, y=constant_like(dy, 1 / count)), space)

    return {"x": x}


def l2_pool(mb: Any, use: Use, dy: Any) -> Mapping[str, Thunk]:
    """The root of the sum of squares: x times what dy / y gives its windows; 0 where a window is."""

    def x() -> Any:
        y = use.output()
        is_zero = mb.equal(x=y, y=0.0)
        share = where(mb, mb.logical_not(x=is_zero), mb.real_div(x=dy, y=_ones_where(mb, is_zero, y)))
        return mb.mul(x=use["x"], y=_to_every_tap(mb, use, share, _space(use)))

    return {"x": x}


def _ones_where(mb: Any, cond: Any, y: Any) -> Any:
    return mb.select(cond=cond, a=constant_like(y, np.ones([int(n) for n in y.shape])), b=y)


def max_pool(mb: Any, use: Use, dy: Any) -> Mapping[str, Thunk]:
    """To the first element of the window that is the greatest, as torch does."""
    space = _space(use)

    def x() -> Any:
        y = use.output()
        image = room(mb, use["x"], space, float(np.finfo(numpy_dtype(y)).min))
        total = free = None
        for tap in taps(space):
            greatest = mb.equal(x=taken(mb, image, space, tap), y=y)
            chosen = greatest if free is None else mb.logical_and(x=greatest, y=free)
            others = mb.logical_not(x=greatest)
            free = others if free is None else mb.logical_and(x=free, y=others)
            part = put_back(mb, where(mb, chosen, dy), space, tap)
            total = part if total is None else mb.add(x=total, y=part)
        return total

    return {"x": x}
