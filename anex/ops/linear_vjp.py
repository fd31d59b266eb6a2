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
    """x: [.., m, k], or a vector [k], which stands for [1, k]; y: [.., k, n]; either may be turned."""
    turn_x, turn_y = (bool(use.value(name, False)) for name in ("transpose_x", "transpose_y"))
    shape, y_shape = use.shape("x"), use.shape("y")
    wide = (1, *shape) if len(shape) == 1 else shape
    n = y_shape[-2 if turn_y else -1]

    def product() -> Any:
        return dy if wide == shape else mb.reshape(x=dy, shape=[*use.output_shape[:-1], 1, n])

    def x() -> Any:
        y = use["y"]
        if turn_x:
            dx = mb.matmul(x=y, y=product(), transpose_x=turn_y, transpose_y=True)
        else:
            dx = mb.matmul(x=product(), y=y, transpose_x=False, transpose_y=not turn_y)
        if wide == shape:
            return dx
        if len(y_shape) > 2:
            dx = mb.reduce_sum(x=dx, axes=list(range(len(y_shape) - 2)), keep_dims=False)
        return mb.reshape(x=dx, shape=list(shape))

    def y() -> Any:
        given = use["x"] if wide == shape else mb.reshape(x=use["x"], shape=list(wide))
        dz = product()
        if math.prod(y_shape[:-2]) == 1 and math.prod(wide[:-2]) > 1 and not turn_x:
            # one matrix for a whole batch: the batches are more rows, and are summed by the product
            given, dz = mb.reshape(x=given, shape=[-1, wide[-1]]), mb.reshape(x=dz, shape=[-1, n])
        if turn_y:
            return mb.matmul(x=dz, y=given, transpose_x=True, transpose_y=turn_x)
        return mb.matmul(x=given, y=dz, transpose_x=not turn_x, transpose_y=False)

    return {"x": x, "y": y}


def einsum(mb: Any, use: Use, dy: Any) -> Mapping[str, Thunk]:
    """The one equation there is: x [.., c, h, w] times y [.., w, h, u] is [.., c, h, u]."""
    equation = "nchw,nwhu->nchu" if len(use.output_shape) == 4 else "chw,whu->chu"

    def times(x: Any, y: Any) -> Any:
        return mb.einsum(values=[x, y], equation=equation)

    def exchanged(x: Any) -> Any:  # the first of the last three axes, and the last
        return mb.transpose(x=x, perm=[0, 3, 2, 1] if len(x.shape) == 4 else [2, 1, 0])

    def values() -> list[Any]:
        return [lambda: times(dy, exchanged(use["values"][1])), lambda: times(exchanged(use["values"][0]), dy)]

    return {"values": values}
