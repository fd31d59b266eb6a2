"""Gradients of ops that give a tensor another shape or order: the way back of each element."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np

from .gradient import Rule, Thunk, Use, numpy_dtype, zeros_like

# ---- views and permutations -----------------------------------------------------------------------


def reshaped(mb: Any, use: Use, dy: Any) -> Mapping[str, Thunk]:
    """reshape, expand_dims, squeeze, flatten2d: the elements in their order."""

    def x() -> Any:
        shape = use.shape("x")
        return mb.reshape(x=dy, shape=list(shape)) if shape else mb.squeeze(x=dy)

    return {"x": x}


def passed(name: str = "x") -> Rule:
    """What goes in comes out."""
    return lambda mb, use, dy: {name: lambda: dy}


def transpose(mb: Any, use: Use, dy: Any) -> Mapping[str, Thunk]:
    rank = len(use.shape("x"))
    back = np.argsort([int(axis) % rank for axis in use.value("perm")])
    return {"x": lambda: mb.transpose(x=dy, perm=back.tolist())}


def inverse_by(op: str, dtype: type[np.integer[Any]] = np.int32, **renamed: str) -> Rule:
    """The op that undoes it: its parameter, and the parameter of this one that it takes, in the dtype that it wants."""

    def rule(mb: Any, use: Use, dy: Any) -> Mapping[str, Thunk]:
        given = {name: np.asarray(use.value(source)).astype(dtype)[()] for name, source in renamed.items()}
        return {"x": lambda: getattr(mb, op)(x=dy, **given)}

    return rule


def reverse(mb: Any, use: Use, dy: Any) -> Mapping[str, Thunk]:
    axes = use.value("axes")
    return {"x": lambda: mb.reverse(x=dy) if axes is None else mb.reverse(x=dy, axes=axes)}


def reverse_sequence(mb: Any, use: Use, dy: Any) -> Mapping[str, Thunk]:
    axes = {name: use.value(name, 0) for name in ("seq_axis", "batch_axis")}
    return {"x": lambda: mb.reverse_sequence(x=dy, lengths=use["lengths"], **axes)}


# ---- joining and parting --------------------------------------------------------------------------


def concat(mb: Any, use: Use, dy: Any) -> Mapping[str, Thunk]:
    shapes = use.shapes("values")
    axis = int(use.value("axis")) % len(shapes[0])

    def values() -> list[Any]:
        if len(shapes) == 1:
            return [dy]
        if use.value("interleave", False):  # equal extents, taken in turns
            n = len(shapes)
            return [every(mb, dy, axis, i, n, shapes[i][axis]) for i in range(n)]
        return list(mb.split(x=dy, split_sizes=[shape[axis] for shape in shapes], axis=axis))

    return {"values": values}


def stack(mb: Any, use: Use, dy: Any) -> Mapping[str, Thunk]:
    axis = int(use.value("axis")) % len(use.output_shape)

    def values() -> list[Any]:
        n = len(use.shapes("values"))
        parts = [dy] if n == 1 else mb.split(x=dy, num_splits=n, axis=axis)
        return [mb.squeeze(x=part, axes=[axis]) for part in parts]

    return {"values": values}


def split(mb: Any, use: Use, dys: Any) -> Mapping[str, Thunk]:
    dys = dys if isinstance(dys, list) else [dys]
    axis = int(use.value("axis"))

    def x() -> Any:
        parts = [zeros_like(mb, var) if dy is None else dy for dy, var in zip(dys, use.op.outputs, strict=True)]
        return parts[0] if len(parts) == 1 else mb.concat(values=parts, axis=axis)

    return {"x": x}


def every(mb: Any, x: Any, axis: int, begin: int, stride: int, count: int) -> Any:
    """``count`` elements of an axis, every ``stride``-th."""
    shape = [int(n) for n in x.shape]
    begins, ends, strides = [0] * len(shape), list(shape), [1] * len(shape)
    begins[axis], ends[axis], strides[axis] = begin, begin + (count - 1) * stride + 1, stride
    return mb.slice_by_index(x=x, begin=begins, end=ends, stride=strides)


# ---- repeating and padding ------------------------------------------------------------------------


def tile(mb: Any, use: Use, dy: Any) -> Mapping[str, Thunk]:
    """The sum of the copies: one axis at a time, [before, copies, extent, after]."""

    def x() -> Any:
        shape, total = list(use.output_shape), dy
        for axis, (reps, extent) in enumerate(zip(use.value("reps"), use.shape("x"), strict=True)):
            if reps > 1:
                before, after = math.prod(shape[:axis]), math.prod(shape[axis + 1 :])
                total = mb.reshape(x=total, shape=[before, int(reps), extent, after])
                total = mb.reduce_sum(x=total, axes=[1], keep_dims=False)
                shape[axis] = extent
                total = mb.reshape(x=total, shape=shape)
        return total

    return {"x": x}


def pad(mb: Any, use: Use, dy: Any) -> Mapping[str, Thunk]:
    """What was added at the edges is cut off; what was copied there from inside is added to where it came from."""
    rank = len(use.shape("x"))
    widths = np.zeros((rank, 2), int)
    given = np.asarray(use.value("pad")).reshape(-1, 2)
    widths[rank - len(given) :] = given
    if str(use.value("mode", "constant")) != "constant":
        return {"x": lambda: _fold_back(mb, use, dy, widths)}
    return {"x": lambda: cut(mb, dy, widths[:, 0].tolist(), use.shape("x"))}


def cut(mb: Any, x: Any, begin: list[int], size: tuple[int, ...]) -> Any:
    """A part of ``x``; ``x`` itself where that is all of it."""
    if tuple(x.shape) == tuple(size):
        return x
    return mb.slice_by_index(x=x, begin=begin, end=[int(b + n) for b, n in zip(begin, size, strict=True)])


def _fold_back(mb: Any, use: Use, dy: Any, widths: Any) -> Any:
    """reflect and replicate: times, along each padded axis, the matrix that says what was copied where."""
    for axis, (extent, width) in enumerate(zip(use.shape("x"), widths, strict=True)):
        if width.any():
            source = np.pad(np.arange(extent), width, "reflect" if str(use.value("mode")) == "reflect" else "edge")
            dy = along(mb, dy, axis, source[:, None] == np.arange(extent))
    return dy


def along(mb: Any, x: Any, axis: int, matrix: Any) -> Any:
    """``x`` with an axis of n times ``matrix`` [n, m], a constant: an axis of m."""
    matrix = np.asarray(matrix).astype(numpy_dtype(x))
    order = [i for i in range(len(x.shape)) if i != axis] + [axis]
    if len(order) == 1:
        return mb.squeeze(x=mb.matmul(x=mb.expand_dims(x=x, axes=[0]), y=matrix), axes=[0])
    if axis == len(order) - 1:
        return mb.matmul(x=x, y=matrix)
    product = mb.matmul(x=mb.transpose(x=x, perm=order), y=matrix)
    return mb.transpose(x=product, perm=np.argsort(order).tolist())


def padded(mb: Any, x: Any, before: list[int], after: list[int], value: float = 0.0) -> Any:
    """``x`` with a constant around it; negative widths cut off."""
    shape = [int(n) for n in x.shape]
    begin = [max(-n, 0) for n in before]
    size = [n - b - max(-a, 0) for n, b, a in zip(shape, begin, after, strict=True)]
    x = cut(mb, x, begin, tuple(size))
    widths = [max(n, 0) for pair in zip(before, after, strict=True) for n in pair]
    return mb.pad(x=x, pad=widths, mode="constant", constant_val=value) if any(widths) else x


def spread(mb: Any, x: Any, axis: int, stride: int) -> Any:
    """Zeros between the elements of an axis: n become (n - 1) stride + 1."""
    n = int(x.shape[axis])
    if stride == 1 or n == 1:
        return x
    shape = [int(m) for m in x.shape]
    before, after = math.prod(shape[:axis]), math.prod(shape[axis + 1 :])
    y = mb.reshape(x=x, shape=[before, n, 1, after])
    y = mb.pad(x=y, pad=[0, 0, 0, 0, 0, stride - 1, 0, 0], mode="constant", constant_val=0.0)
    shape[axis] = n * stride
    y = mb.reshape(x=y, shape=shape)
    shape[axis] = (n - 1) * stride + 1
    return cut(mb, y, [0] * len(shape), tuple(shape))


# ---- windows ----------------------------------------------------------------------------------------


def crop(mb: Any, use: Use, dy: Any) -> Mapping[str, Thunk]:
    height, width = (np.asarray(use.value(name)) for name in ("crop_height", "crop_width"))

    def x() -> Any:
        before, after = ([0] * (len(use.shape("x")) - 2) + [int(height[i]), int(width[i])] for i in (0, 1))
        return padded(mb, dy, before, after)

    return {"x": x}


def sliding_windows(mb: Any, use: Use, dy: Any) -> Mapping[str, Thunk]:
    """Each window is added to where it was taken from."""
    shape, axis = use.shape("x"), int(use.value("axis"))
    axis %= len(shape)
    size, stride = int(use.value("size")), int(use.value("stride", 1))

    def x() -> Any:
        total = None
        count = use.output_shape[axis]
        for i in range(size):  # element i of every window: [.., windows, ..]
            begin, part = [0] * len(use.output_shape), list(use.output_shape)
            begin[axis + 1], part[axis + 1] = i, 1
            taken = mb.squeeze(x=cut(mb, dy, begin, tuple(part)), axes=[axis + 1])
            taken = spread(mb, taken, axis, stride)
            before, after = [0] * len(shape), [0] * len(shape)
            before[axis], after[axis] = i, shape[axis] - i - (count - 1) * stride - 1
            taken = padded(mb, taken, before, after)
            total = taken if total is None else mb.add(x=total, y=taken)
        return total

    return {"x": x}


def band_part(mb: Any, use: Use, dy: Any) -> Mapping[str, Thunk]:
    lower, upper = (int(use.value(name, -1)) for name in ("lower", "upper"))
    return {"x": lambda: mb.band_part(x=dy, lower=lower, upper=upper)}
