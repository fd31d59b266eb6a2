"""Slices, gathers, scatters, and tensors made out of little."""

from __future__ import annotations

from typing import Any

from .record import array, case, half, weights, whole

_shape: tuple[int, ...]


def exact(op: str, **arguments: Any) -> None:
    case(op, tolerance=0.0, **arguments)


for _shape, _begin, _end, _stride in (
    ((1, 64, 1, 64), [0, 0, 0, 0], [1, 64, 1, 32], [1, 1, 1, 1]),
    ((1, 64, 1, 64), [0, 0, 0, 32], [1, 64, 1, 64], [1] * 4),
    ((1, 64, 8, 32), [0, 0, 0, 0], [1, 64, 8, 32], [1, 2, 2, 1]),
    ((1, 3, 5, 7), [0, 1, 1, 2], [1, 3, 4, 7], [1, 1, 2, 2]),
):  # fmt: skip
    exact("slice_by_index", x=array(*_shape), begin=_begin, end=_end, stride=_stride)
exact("slice_by_size", x=array(1, 64, 1, 64), begin=[0, 0, 0, 32], size=[1, 64, 1, 32])
exact("slice_by_size", x=array(1, 3, 5, 7), begin=[0, 1, 1, 2], size=[1, 2, 3, 5])
exact("slice_update", x=array(1, 64, 1, 64), update=array(1, 64, 1, 32), begin=[0, 0, 0, 32], end=[1, 64, 1, 64])
exact("slice_update", x=array(1, 3, 5, 7), update=array(1, 2, 3, 5), begin=[0, 1, 1, 2], end=[1, 3, 4, 7])
# Indices that are fixed, and indices that change from call to call.
exact("gather", x=array(64, 32), indices=weights(8, low=0, high=63, dtype="int32"), axis=0)
exact("gather", x=array(64, 32), indices=whole(8, high=63), axis=0)
exact("gather", x=array(1, 3, 5), indices=weights(4, low=0, high=2, dtype="int32"), axis=1)
for _op in ("gather_along_axis", "gather_nd"):
    _shape = (8, 32) if _op == "gather_along_axis" else (8, 1)
    _axis = {"axis": 0} if _op == "gather_along_axis" else {}
    exact(_op, x=array(64, 32), indices=weights(*_shape, low=0, high=63, dtype="int32"), **_axis)
    exact(_op, x=array(64, 32), indices=whole(*_shape, high=63), **_axis)
exact("scatter", data=array(64, 32), indices=whole(1, high=63), updates=array(1, 32), axis=0, mode="update")
exact(
    "scatter_along_axis", data=array(64, 32), indices=whole(1, 32, high=63), updates=array(1, 32), axis=0, mode="update"
)
exact("scatter_nd", data=array(64, 32), indices=whole(1, 1, high=63), updates=array(1, 32), mode="update")
exact("one_hot", indices=whole(64, high=31), one_hot_vector_size=32, axis=-1,
      make=lambda mb, a: mb.one_hot(**a, on_value=half(1), off_value=half(0)))  # fmt: skip
exact("fill", x=array(1, 32), make=lambda mb, a: mb.add(x=a["x"], y=mb.fill(shape=[1, 32], value=half(2))))
exact("fill_like", ref_tensor=array(1, 64, 1, 64), make=lambda mb, a: mb.fill_like(**a, value=half(1.5)))
exact("shape", x=array(1, 64, 1, 64), make=lambda mb, a: mb.shape(x=a["x"]))
exact(
    "range_1d",
    x=array(32),
    make=lambda mb, a: mb.add(x=a["x"], y=mb.range_1d(start=half(0), end=half(32), step=half(1))),
)
