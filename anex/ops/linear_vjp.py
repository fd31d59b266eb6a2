"""Gradients of matrix products."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from .gradient import Thunk, Use


def linear(mb: Any, use: Use, dy: Any) -> Mapping[str, Thunk]:
    """weight: [out, in], and a constant, as the bias is: train with ``matmul`` and ``add``."""
    return {"x": lambda: mb.matmul(x=dy, y=use["weight"])}


def matmul(mb: Any, use: Use, dy: Any) -> Mapping[str, Thunk]:
    turn_x, turn_y = (bool(use.value(name, False)) for name in ("transpose_x", "transpose_y"))
    x_shape, y_shape = use.shape("x"), use.shape("y")
    # vectors as matrices: x [k] is [1, k], y [k] is [k, 1]
    wide_x, wide_y = _as_matrix(x_shape, 0, turn_x), _as_matrix(y_shape, 1, turn_y)
    m, n = wide_x[-1 if turn_x else -2], wide_y[-2 if turn_y else -1]
    batch = list(use.output_shape)[: max(len(wide_x), len(wide_y)) - 2]

    def operand(name: str, wide: list[int]) -> Any:
        return use[name] if list(use.shape(name)) == wide else mb.reshape(x=use[name], shape=wide)

    def product() -> Any:
        shape = [*batch, m, n]
        return dy if list(dy.shape) == shape else mb.reshape(x=dy, shape=shape)

    def x() -> Any:
        y = operand("y", wide_y)
        if turn_x:
            dx = mb.matmul(x=y, y=product(), transpose_x=turn_y, transpose_y=True)
        else:
            dx = mb.matmul(x=product(), y=y, transpose_x=False, transpose_y=not turn_y)
        return _back(mb, dx, wide_x, x_shape)

    def y() -> Any:
        given, dz = operand("x", wide_x), product()
        if math.prod(wide_y[:-2]) == 1 and math.prod(wide_x[:-2]) > 1 and not turn_x:
            # one matrix for a whole batch: the batches are more rows, and are summed by the product
            given, dz = mb.reshape(x=given, shape=[-1, wide_x[-1]]), mb.reshape(x=dz, shape=[-1, n])
        if turn_y:
            made = mb.matmul(x=dz, y=given, transpose_x=True, transpose_y=turn_x)
        else:
            made = mb.matmul(x=given, y=dz, transpose_x=not turn_x, transpose_y=False)
        return _back(mb, made, wide_y, y_shape)

    return {"x": x, "y": y}


def _as_matrix(shape: tuple[int, ...], axis: int, turned: bool) -> list[int]:
    if len(shape) > 1:
        return list(shape)
    axis = 1 - axis if turned else axis
    return [1, *shape] if axis == 0 else [*shape, 1]


def _back(mb: Any, gradient: Any, wide: list[int], shape: tuple[int, ...]) -> Any:
    """A vector's gradient, whose batches are summed here: the axis of 1 stands behind them."""
    if len(shape) > 1:
        return gradient
    batch = len(gradient.shape) - 2
    if batch:
        gradient = mb.reduce_sum(x=gradient, axes=list(range(batch)), keep_dims=False)
    return mb.reshape(x=gradient, shape=list(shape))


def einsum(mb: Any, use: Use, dy: Any) -> Mapping[str, Thunk]:
    """Of each operand: dy and the other one, with the letters exchanged; letters nobody else has are broadcast."""
    terms, result = str(use.value("equation")).replace(" ", "").split("->")
    letters = terms.split(",")

    def values() -> list[Any]:
        return [part(0, 1), part(1, 0)]

    def part(mine: int, other: int) -> Any:
        known = [letter for letter in letters[mine] if letter in result or letter in letters[other]]
        equation = f"{result},{letters[other]}->{''.join(known)}"
        made = mb.einsum(values=[dy, use["values"][other]], equation=equation)
        if len(known) == len(letters[mine]):
            return made
        sizes = dict(zip(known, (int(n) for n in made.shape), strict=True))
        return mb.reshape(x=made, shape=[sizes.get(letter, 1) for letter in letters[mine]])

    return {"values": values}
