"""Gradients of resizing, which is a product with a matrix along each axis.

The matrix is what the op itself makes of the unit vectors, as a constant of the program: where its samples lie is
said in one place, the op.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from .gradient import NoGradient, Rule, Thunk, Use, numpy_dtype

SAMPLES = NoGradient(
    "it samples where its operands say, and MIL has no op that adds samples back there with their weights; "
    "take the part with slices, and resize it, which has a gradient",
    is_zero=False,
)

# makes of an image [1, n, n, 1] one [1, n, m, 1]
Lines = Callable[[Any, Use, Any, int, int], Any]


def _resized(lines: Lines) -> Rule:
    def rule(mb: Any, use: Use, dy: Any) -> Mapping[str, Thunk]:
        def x() -> Any:
            gradient, rank = dy, len(use.output_shape)
            moves = str(use.value("sampling_mode")) == "OFFSET_CORNERS"  # samples elsewhere even at the same extent
            for axis in range(rank - int(use.value("resized_dims", 2)), rank):
                n, m = use.shape("x")[axis], use.output_shape[axis]
                if n != m or moves:
                    gradient = _along(mb, gradient, axis, lambda: lines(mb, use, _units(dy, n), axis, m), n, m)  # noqa: B023
            return gradient

        return {"x": x}

    return rule


def _units(like: Any, n: int) -> Any:
    """The unit vectors as channels of an image: [1, n, n, 1]"""
    return np.eye(n, dtype=numpy_dtype(like))[None, :, :, None]


def _along(mb: Any, dy: Any, axis: int, make: Callable[[], Any], n: int, m: int) -> Any:
    """dy with its axis of m times the matrix [m, n] that makes m of n."""
    matrix = mb.reshape(x=make(), shape=[n, m])
    order = [i for i in range(len(dy.shape)) if i != axis] + [axis]
    moved = axis != len(order) - 1
    product = mb.matmul(
        x=mb.transpose(x=dy, perm=order) if moved else dy, y=matrix, transpose_x=False, transpose_y=True
    )
    return mb.transpose(x=product, perm=np.argsort(order).tolist()) if moved else product


def _scaled(op: str, *also: str) -> Lines:
    def lines(mb: Any, use: Use, units: Any, axis: int, m: int) -> Any:
        name = "scale_factor_height" if axis == len(use.output_shape) - 2 else "scale_factor_width"
        given = {key: use.value(key) for key in also if use.value(key) is not None}
        ones = {"scale_factor_width": type(use.value(name))(1)}
        return getattr(mb, op)(x=units, scale_factor_height=use.value(name), **ones, **given)

    return lines


def _targeted(op: str, *also: str) -> Lines:
    def lines(mb: Any, use: Use, units: Any, axis: int, m: int) -> Any:
        given = {key: use.value(key) for key in also if use.value(key) is not None}
        return getattr(mb, op)(x=units, target_size_height=m, target_size_width=1, **given)

    return lines


def _of_resize(mb: Any, use: Use, units: Any, axis: int, m: int) -> Any:
    given = {key: str(use.value(key)) for key in ("interpolation_mode", "sampling_mode") if use.value(key) is not None}
    return mb.resize(x=units, shape=np.array([m, 1], np.int32), resized_dims=np.uint32(2), **given)


upsample_nearest_neighbor = _resized(_scaled("upsample_nearest_neighbor"))
upsample_bilinear = _resized(_scaled("upsample_bilinear", "align_corners", "half_pixel_centers"))
resize_nearest_neighbor = _resized(_targeted("resize_nearest_neighbor"))
resize_bilinear = _resized(_targeted("resize_bilinear", "sampling_mode"))
resize = _resized(_of_resize)
resample = affine = crop_resize = SAMPLES
