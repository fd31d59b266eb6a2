"""Gradients of slices, gathers and scatters."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from ..errors import UnsupportedError
from .gradient import Rule, Thunk, Use, zeros_like
from .shape_vjp import padded, spread

# ---- slices ---------------------------------------------------------------------------------------


def slice_by_index(mb: Any, use: Use, dy: Any) -> Mapping[str, Thunk]:
    """Zeros between what a stride skips, then around it."""
    shape = use.shape("x")

    def x() -> Any:
        _need_constants(use, "begin", "end", "stride")
        chosen = [_chosen(use, i, n) for i, n in enumerate(shape)]
        counts = [len(indices) for indices in chosen]
        part = dy if list(dy.shape) == counts else mb.reshape(x=dy, shape=counts)
        backwards = [i for i, indices in enumerate(chosen) if len(indices) > 1 and indices[1] < indices[0]]
        if backwards:
            part = mb.reverse(x=part, axes=backwards)
        for i, indices in enumerate(chosen):
            if len(indices) > 1:
                part = spread(mb, part, i, int(abs(indices[1] - indices[0])))
        return padded(
            mb,
            part,
            [int(min(at)) for at in chosen],
            [n - 1 - int(max(at)) for at, n in zip(chosen, shape, strict=True)],
        )

    return {"x": x}


def _chosen(use: Use, axis: int, n: int) -> Any:
    """The indices that a slice takes of an axis."""

    def at(name: str, otherwise: int) -> int:
        value = use.value(name)
        return otherwise if value is None else int(value[axis])

    begin, end, stride = at("begin", 0), at("end", n), at("stride", 1)
    if at("squeeze_mask", 0):
        return np.arange(n)[begin : begin + 1 or None]
    return np.arange(n)[
        None if at("begin_mask", 0) else begin : None if at("end_mask", 0) else end : stride
    ]  # fmt: skip


def slice_by_size(mb: Any, use: Use, dy: Any) -> Mapping[str, Thunk]:
    shape = use.shape("x")

    def x() -> Any:
        size = list(use.output_shape)
        if use.is_constant("begin"):
            begin = [int(b) % n if n else 0 for b, n in zip(use.value("begin"), shape, strict=True)]
            return padded(mb, dy, begin, [n - b - s for n, b, s in zip(shape, begin, size, strict=True)])
        begin = use["begin"]
        end = mb.add(x=begin, y=np.asarray(size, np.int32))
        return _slice_update(mb, use, zeros_like(mb, use["x"]), dy, begin=begin, end=end)

    return {"x": x}


def slice_update(mb: Any, use: Use, dy: Any) -> Mapping[str, Thunk]:
    names = ("begin", "end", "stride", "begin_mask", "end_mask", "squeeze_mask")

    def where() -> dict[str, Any]:
        return {name: use[name] for name in names if use.given(name)}

    return {
        "x": lambda: mb.slice_update(x=dy, update=zeros_like(mb, use["update"]), **where()),
        "update": lambda: mb.slice_by_index(x=dy, **where()),
    }


def _slice_update(mb: Any, use: Use, x: Any, update: Any, **where: Any) -> Any:
    try:
        return mb.slice_update(x=x, update=update, **where)
    except (ValueError, AttributeError) as error:
        raise UnsupportedError(
            f"no gradient through {use}: where it begins is known only when it runs, which takes slice_update; build "
            "the program for ct.target.iOS18"
        ) from error


def _need_constants(use: Use, *names: str) -> None:
    if found := [name for name in names if not use.is_constant(name)]:
        raise UnsupportedError(f"no gradient through {use}: {', '.join(found)} must be known when the program is built")


# ---- gathers --------------------------------------------------------------------------------------


def _rows(mb: Any, indices: Any, extent: int, batch: int) -> Any:
    """``indices`` [batch, count] of rows of [batch, extent, ..] as those of [batch extent, ..]: [batch count]."""
    from coremltools.converters.mil.mil import types

    if indices.dtype != types.int32:
        indices = mb.cast(x=indices, dtype="int32")
    count = math.prod(int(n) for n in indices.shape) // batch
    if batch > 1:
        indices = mb.reshape(x=indices, shape=[batch, count])
        below = mb.less(x=indices, y=np.int32(0))  # counted from the end, which opsets before iOS17 allow
        indices = mb.select(cond=below, a=mb.add(x=indices, y=np.int32(extent)), b=indices)
        indices = mb.add(x=indices, y=(np.arange(batch, dtype=np.int32) * extent)[:, None])
    return mb.reshape(x=indices, shape=[batch * count])


def _collect(mb: Any, use: Use, rows: Any, dy: Any, shape: list[int]) -> Any:
    """Rows of ``dy`` added up where they came from, in zeros of ``shape`` [rows, width]."""
    zeros = mb.reshape(x=zeros_like(mb, use["x"]), shape=shape)
    return mb.scatter(data=zeros, indices=rows, updates=dy, axis=0, mode="add")


def gather(mb: Any, use: Use, dy: Any) -> Mapping[str, Thunk]:
    """x: [batch, before, extent, after], indices: [batch, count], y: [batch, before, count, after]"""
    shape, chosen = use.shape("x"), use.shape("indices")
    first = int(use.value("batch_dims", 0))
    axis = int(use.value("axis", 0)) % len(shape)
    batch, before = math.prod(shape[:first]), math.prod(shape[first:axis])
    extent, after = shape[axis], math.prod(shape[axis + 1 :])
    count = math.prod(chosen[first:])

    def x() -> Any:
        part = dy
        if before > 1:
            part = mb.reshape(x=part, shape=[batch, before, count, after])
            part = mb.transpose(x=part, perm=[0, 2, 1, 3])
        part = mb.reshape(x=part, shape=[batch * count, before * after])
        rows = _rows(mb, use["indices"], extent, batch)
        found = _collect(mb, use, rows, part, [batch * extent, before * after])
        if before > 1:
            found = mb.reshape(x=found, shape=[batch, extent, before, after])
            found = mb.transpose(x=found, perm=[0, 2, 1, 3])
        return mb.reshape(x=found, shape=list(shape))

    return {"x": x}


def gather_nd(mb: Any, use: Use, dy: Any) -> Mapping[str, Thunk]:
    """indices: [batch, .., depth], each a place in the axes after the batch."""
    shape, chosen = use.shape("x"), use.shape("indices")
    first, depth = int(use.value("batch_dims", 0)), chosen[-1]
    batch, extents = math.prod(shape[:first]), shape[first : first + depth]
    extent, after = math.prod(extents), math.prod(shape[first + depth :])

    def x() -> Any:
        steps = np.array([math.prod(extents[i + 1 :]) for i in range(depth)], np.int32)
        places = mb.cast(x=use["indices"], dtype="int32")
        below = mb.less(x=places, y=np.int32(0))
        places = mb.select(cond=below, a=mb.add(x=places, y=np.asarray(extents, np.int32)), b=places)
        places = mb.reduce_sum(x=mb.mul(x=places, y=steps), axes=[-1], keep_dims=False)
        rows = _rows(mb, places, extent, batch)
        part = mb.reshape(x=dy, shape=[math.prod(chosen[:-1]), after])
        return mb.reshape(x=_collect(mb, use, rows, part, [batch * extent, after]), shape=list(shape))

    return {"x": x}


def gather_along_axis(mb: Any, use: Use, dy: Any) -> Mapping[str, Thunk]:
    axis = int(use.value("axis", 0))

    def x() -> Any:
        indices = mb.cast(x=use["indices"], dtype="int32")
        return mb.scatter_along_axis(data=zeros_like(mb, use["x"]), indices=indices, updates=dy, axis=axis, mode="add")

    return {"x": x}


def topk(mb: Any, use: Use, dys: Any) -> Mapping[str, Thunk]:
    """Back to where the values stood; the indices have no gradient."""
    axis = int(use.value("axis", -1))

    def x() -> Any:
        dy = dys[0] if isinstance(dys, list) else dys
        indices = mb.cast(x=use.output(1), dtype="int32")
        return mb.scatter_along_axis(data=zeros_like(mb, use["x"]), indices=indices, updates=dy, axis=axis, mode="add")

    return {"x": x} if use.value("return_indices", True) else {"x": lambda: _without_indices(use)}


def _without_indices(use: Use) -> Any:
    raise UnsupportedError(f"no gradient through {use}: it needs the indices; leave return_indices=True")


# ---- scatters -------------------------------------------------------------------------------------


def _scatter(put: str, take: str, *also: str) -> Rule:
    """Where ``put`` writes, ``take`` reads, with the parameters ``also``."""

    def rule(mb: Any, use: Use, dy: Any) -> Mapping[str, Thunk]:
        mode = str(use.value("mode", "add"))
        where: Callable[[], dict[str, Any]] = lambda: {  # noqa: E731
            "indices": use["indices"], **{name: use[name] for name in also if use.given(name)}
        }  # fmt: skip

        def data() -> Any:
            if mode == "update":
                return getattr(mb, put)(data=dy, updates=zeros_like(mb, use["updates"]), mode=mode, **where())
            return dy

        def updates() -> Any:
            taken = getattr(mb, take)(x=dy, **where())
            return mb.mul(x=taken, y=-1.0) if mode == "sub" else taken

        if mode not in ("add", "sub", "update"):
            reason = (
                f"no gradient through {use}: mode={mode!r} makes it depend on what the element was, and in which order"
            )
            raise UnsupportedError(f"{reason} it was combined; only add, sub and update have one")
        return {"data": data, "updates": updates}

    return rule


scatter = _scatter("scatter", "gather", "axis")
scatter_along_axis = _scatter("scatter_along_axis", "gather_along_axis", "axis")
scatter_nd = _scatter("scatter_nd", "gather_nd")
