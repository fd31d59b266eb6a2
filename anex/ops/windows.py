"""Where the windows of convolutions and pools lie, for their gradients."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from .gradient import Use
from .shape_vjp import padded, spread


@dataclass(frozen=True)
class Window:
    """One axis of space: output o takes at tap t the input o * stride + t * dilation - before."""

    extent: int  # of the input
    out: int
    size: int  # taps
    stride: int
    dilation: int
    before: int
    after: int  # padding, which only counts in averages

    @property
    def reach(self) -> int:
        return (self.size - 1) * self.dilation + 1


def windows(use: Use, extents: Sequence[int], outs: Sequence[int], sizes: Sequence[int]) -> list[Window]:
    """Of every axis, from the op's strides, dilations, pad and pad_type."""
    kind, pads = str(use.value("pad_type", "valid")), use.value("pad")
    found = []
    for i, (extent, out, size) in enumerate(zip(extents, outs, sizes, strict=True)):
        stride, dilation = (1 if (v := use.value(name)) is None else int(v[i]) for name in ("strides", "dilations"))
        before = after = 0
        if kind == "custom" and pads is not None:
            before, after = int(pads[2 * i]), int(pads[2 * i + 1])
        elif kind in ("same", "same_lower"):
            total = max(0, (out - 1) * stride + (size - 1) * dilation + 1 - extent)
            before = total - total // 2 if kind == "same_lower" else total // 2
            after = total - before
        found.append(Window(extent, out, size, stride, dilation, before, after))
    return found


def taps(space: Sequence[Window]) -> Iterator[tuple[int, ...]]:
    return itertools.product(*(range(w.size) for w in space))


def room(mb: Any, x: Any, space: Sequence[Window], value: float = 0.0) -> Any:
    """The image with what its windows reach around it; its last axes are those of ``space``."""
    lead = [0] * (len(x.shape) - len(space))
    after = [(w.out - 1) * w.stride + w.reach - w.before - w.extent for w in space]
    return padded(mb, x, [*lead, *(w.before for w in space)], [*lead, *after], value)


def taken(mb: Any, image: Any, space: Sequence[Window], tap: Sequence[int]) -> Any:
    """What a tap takes of the image that ``room`` made: [.., out, ..]"""
    lead = len(image.shape) - len(space)
    shape = [int(n) for n in image.shape]
    begin, end, stride = [0] * len(shape), list(shape), [1] * len(shape)
    for i, (w, t) in enumerate(zip(space, tap, strict=True)):
        begin[lead + i], stride[lead + i] = t * w.dilation, w.stride
        end[lead + i] = begin[lead + i] + (w.out - 1) * w.stride + 1
    if begin == [0] * len(shape) and end == shape and stride == [1] * len(shape):
        return image
    return mb.slice_by_index(x=image, begin=begin, end=end, stride=stride)


def put_back(mb: Any, y: Any, space: Sequence[Window], tap: Sequence[int]) -> Any:
    """What a tap gave where it was taken, in zeros: [.., extent, ..]"""
    lead = len(y.shape) - len(space)
    before, after = [0] * len(y.shape), [0] * len(y.shape)
    for i, (w, t) in enumerate(zip(space, tap, strict=True)):
        y = spread(mb, y, lead + i, w.stride)
        before[lead + i] = t * w.dilation - w.before
        after[lead + i] = w.extent - before[lead + i] - (w.out - 1) * w.stride - 1
    return padded(mb, y, before, after)


def over_all(mb: Any, y: Any, weight: Any, space: Sequence[Window], groups: int) -> Any:
    """The sum over all taps of ``put_back``, each weighted: a convolution of y, with zeros between and around,
    by ``weight`` [to, from / groups, taps..], whose taps are in reverse order."""
    lead = len(y.shape) - len(space)
    before, after = [0] * lead, [0] * lead
    for i, w in enumerate(space):
        y = spread(mb, y, lead + i, w.stride)
        first = w.reach - 1 - w.before
        before.append(first)
        after.append(w.extent + w.reach - 1 - first - (w.out - 1) * w.stride - 1)
    y = padded(mb, y, before, after)
    return mb.conv(
        x=y, weight=weight, pad_type="valid", strides=[1] * len(space), dilations=[w.dilation for w in space],
        groups=groups,
    )  # fmt: skip
