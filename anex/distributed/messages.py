"""Arrays as few large messages: a large one goes as it lies in memory, small ones travel together.

A network needs as long for a message of a kilobyte as for one of a hundred; a copy of small arrays costs next to
nothing, while large ones are not copied.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from .._native import Tensor
from ..errors import ArgumentError

LARGE = 1 << 20  # bytes that are worth a message of their own
BUCKET = 25 << 20  # bytes of small ones in one message

Array = npt.NDArray[Any]


@dataclass
class Message:
    """``data``, [n] contiguous: the memory of one array, or copies of ``parts`` one after another."""

    data: Array
    parts: list[Array] = field(default_factory=list)

    def unpack(self) -> None:
        """Back to where the parts were copied from."""
        for part, values in self._pairs():
            copy(values, part)

    def pack(self) -> None:
        for part, values in self._pairs():
            copy(part, values)

    def _pairs(self) -> Iterator[tuple[Array, Array]]:
        at = 0
        for part in self.parts:
            yield part, self.data[at : at + part.size].reshape(part.shape)
            at += part.size


def copy(source: Array, target: Array) -> None:
    """Values; between float16 and float32 in C, as numpy converts those one at a time."""
    if source.dtype == target.dtype:
        target[...] = source
    else:
        Tensor.wrap(target).copy_from(source)


def views(tensors: Iterable[Tensor | Array]) -> list[Array]:
    """The memory of tensors and arrays, as numpy sees it. ``ArgumentError`` for what cannot be written in place."""
    found = []
    for i, each in enumerate(tensors):
        if not isinstance(each, (Tensor, np.ndarray)):
            raise ArgumentError(
                f"array {i} is a {type(each).__name__}; what is exchanged in place is an anex.Tensor or a numpy array"
            )
        array = np.asarray(each)
        if not array.flags.writeable:
            raise ArgumentError(f"array {i} is read-only, and what is exchanged is written in place")
        found.append(array)
    return found


def messages(arrays: Iterable[Array], *, wide: bool) -> list[Message]:
    """In an order and of lengths that follow from sizes and dtypes alone: elsewhere, rows may be padded.

    ``wide``: float16 travels as float32.
    """
    made: list[Message] = []
    small: dict[np.dtype[Any], list[Array]] = {}

    def packed(parts: list[Array], dtype: np.dtype[Any]) -> None:
        message = Message(np.empty(sum(part.size for part in parts), dtype), parts)
        message.pack()
        made.append(message)

    for array in arrays:
        dtype = np.dtype(np.float32) if wide and array.dtype == np.float16 else array.dtype
        if array.nbytes < LARGE:
            small.setdefault(dtype, []).append(array)
            if sum(part.size for part in small[dtype]) * dtype.itemsize >= BUCKET:
                packed(small.pop(dtype), dtype)
        elif array.flags.c_contiguous and dtype == array.dtype:
            made.append(Message(array.reshape(-1)))
        else:
            packed([array], dtype)
    for dtype, parts in small.items():
        packed(parts, dtype)
    return made
