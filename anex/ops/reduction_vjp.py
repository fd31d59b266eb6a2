"""Gradients of reductions: what was one number for many goes to each of them."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

from .elementwise_vjp import where
from .gradient import ByParts, Rule, Thunk, Use, constant_like


def axes_of(use: Use) -> list[int]:
    rank, axes = len(use.shape("x")), use.value("axes")
    return sorted({int(axis) % rank for axis in (range(rank) if axes is None else axes)})


def kept(mb: Any, use: Use, value: Any) -> Any:
    """``value``, of the output's shape, with an axis of 1 where there was one to reduce."""
    axes = axes_of(use)
    shape = [1 if i in axes else n for i, n in enumerate(use.shape("x"))]
    return value if list(value.shape) == shape else mb.reshape(x=value, shape=shape)


def reduction(make: Callable[[Any, Use, Any], Any]) -> Rule:
    """``make(mb, use, dy)`` with dy that broadcasts against x."""

    def rule(mb: Any, use: Use, dy: Any) -> Mapping[str, Thunk]:
        return {"x": lambda: make(mb, use, kept(mb, use, dy))}

    return rule


def _count(use: Use) -> int:
    return math.prod(use.shape("x")[axis] for axis in axes_of(use))


def _l2(mb: Any, use: Use, dy: Any) -> Any:
    """x / norm, and 0 for a vector of zeros."""
    norm = kept(mb, use, use.output())
    is_zero = mb.equal(x=norm, y=0.0)
    norm = mb.select(cond=is_zero, a=constant_like(norm, 1.0), b=norm)
    return mb.mul(x=use["x"], y=mb.real_div(x=dy, y=norm))


def _extreme(mb: Any, use: Use, dy: Any) -> Any:
    """To those that are the extreme, in equal parts."""
    x = use["x"]
    ones = mb.add(x=mb.mul(x=mb.sign(x=x), y=0.0), y=1.0)  # of the shape of x, and no constant as large
    chosen = where(mb, mb.equal(x=x, y=kept(mb, use, use.output())), ones)
    share = mb.real_div(x=dy, y=mb.reduce_sum(x=chosen, axes=axes_of(use), keep_dims=True))
    return mb.mul(x=chosen, y=share)


def _logarithm(mb: Any, use: Use, dy: Any) -> Any:
    total = mb.reduce_sum(x=use["x"], axes=axes_of(use), keep_dims=True)
    return mb.real_div(x=dy, y=total)


def _softmax(mb: Any, use: Use, dy: Any) -> Any:
    return mb.mul(x=dy, y=mb.exp(x=mb.sub(x=use["x"], y=kept(mb, use, use.output()))))


def _product(mb: Any, use: Use) -> Any:
    """The halves of an axis times each other until one is left, which has a gradient at 0 too."""
    x = use["x"]
    for axis in axes_of(use):
        while (n := int(x.shape[axis])) > 1:
            half, odd = divmod(n, 2)
            first, second, *rest = mb.split(x=x, split_sizes=[half, half] + [1] * odd, axis=axis)
            x = mb.mul(x=first, y=second)
            if rest:
                x = mb.concat(values=[x, rest[0]], axis=axis)
    shape = list(use.output_shape)
    return mb.reshape(x=x, shape=shape) if shape else mb.squeeze(x=x)


reduce_sum = reduction(lambda mb, use, dy: dy)
reduce_mean = reduction(lambda mb, use, dy: mb.mul(x=dy, y=1.0 / _count(use)))
reduce_sum_square = reduction(lambda mb, use, dy: mb.mul(x=mb.mul(x=dy, y=2.0), y=use["x"]))
reduce_l1_norm = reduction(lambda mb, use, dy: mb.mul(x=mb.sign(x=use["x"]), y=dy))
reduce_l2_norm = reduction(_l2)
reduce_log_sum = reduction(_logarithm)
reduce_log_sum_exp = reduction(_softmax)
reduce_max = reduce_min = reduction(_extreme)
reduce_prod = ByParts(_product)


def cumsum(mb: Any, use: Use, dy: Any) -> Mapping[str, Thunk]:
    """The sum of all that an element went into: from the other end."""
    exclusive, reverse = (bool(use.value(name, False)) for name in ("exclusive", "reverse"))
    axis = int(use.value("axis", 0))
    return {"x": lambda: mb.cumsum(x=dy, axis=axis, exclusive=exclusive, reverse=not reverse)}
