"""Gradients of convolutions."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from .gradient import Thunk, Use
from .windows import over_all, room, taken, taps, windows


def conv(mb: Any, use: Use, dy: Any) -> Mapping[str, Thunk]:
    """x [n, in, ..], weight [out, in / groups, ..], bias [out], y [n, out, ..]"""
    groups, weight_shape = int(use.value("groups", 1)), use.shape("weight")
    out, per_group, *kernel = weight_shape
    _, _, *extents = use.shape("x")
    space = windows(use, extents, use.output_shape[2:], kernel)

    def x() -> Any:
        return over_all(mb, dy, turned(mb, use["weight"], groups), space, groups)

    def weight() -> Any:
        """For each tap dy [out, n positions] times what it took of x [in, n positions]."""
        rows = mb.reshape(x=_channels_first(mb, dy), shape=[groups, out // groups, -1])
        image = room(mb, _channels_first(mb, use["x"]), space)
        parts = []
        for tap in taps(space):
            columns = mb.reshape(x=taken(mb, image, space, tap), shape=[groups, per_group, -1])
            product = mb.matmul(x=rows, y=columns, transpose_x=False, transpose_y=True)
            parts.append(mb.reshape(x=product, shape=[out, per_group]))
        if len(parts) == 1:
            return mb.reshape(x=parts[0], shape=list(weight_shape))
        together = mb.transpose(x=mb.stack(values=parts, axis=0), perm=[1, 2, 0])
        return mb.reshape(x=together, shape=list(weight_shape))

    def bias() -> Any:
        return mb.reduce_sum(x=dy, axes=[0, *range(2, len(dy.shape))], keep_dims=False)

    return {"x": x, "weight": weight, "bias": bias}


def turned(mb: Any, weight: Any, groups: int) -> Any:
    """[out, in / groups, taps..] as [in, out / groups, taps..] with the taps reversed: what ``over_all`` takes."""
    out, per_group, *kernel = (int(n) for n in weight.shape)
    # [groups, out / groups, in / groups, taps] with the channels exchanged
    given = mb.reshape(x=weight, shape=[groups, out // groups, per_group, math.prod(kernel)])
    given = mb.transpose(x=given, perm=[0, 2, 1, 3])
    if math.prod(kernel) > 1:
        given = mb.reverse(x=given, axes=[3])
    return mb.reshape(x=given, shape=[groups * per_group, out // groups, *kernel])


def _channels_first(mb: Any, x: Any) -> Any:
    """[n, channels, ..] as [channels, n, ..]"""
    rank = len(x.shape)
    if x.shape[0] == 1:
        return mb.reshape(x=x, shape=[int(x.shape[1]), 1, *map(int, x.shape[2:])])
    return mb.transpose(x=x, perm=[1, 0, *range(2, rank)])


def conv_transpose(mb: Any, use: Use, dy: Any) -> Mapping[str, Thunk]:
    """A convolution by the same weight, [in, out / groups, ..], which is a constant, as the bias is."""
    groups, (_, _, *kernel) = int(use.value("groups", 1)), use.shape("weight")
    extents = use.shape("x")[2:]
    # from y back to x: the windows of a convolution of y
    space = windows(use, use.output_shape[2:], extents, kernel)

    def x() -> Any:
        return mb.conv(
            x=room(mb, dy, space), weight=use["weight"], pad_type="valid", strides=[w.stride for w in space],
            dilations=[w.dilation for w in space], groups=groups,
        )  # fmt: skip

    return {"x": x}
