"""Arrays of a model in one piece of memory: numpy asks the system for huge pages where a piece is large, and reading
all weights for each token is a sixth slower from small ones, as those of a file's map are."""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Mapping, Sequence
from typing import TypeVar

import numpy as np

ALIGNMENT = 64  # bytes: a line of the cache
Key = TypeVar("Key", bound=Hashable)


def memory(sizes: Mapping[Key, tuple[tuple[int, ...], np.dtype]]) -> dict[Key, np.ndarray]:
    """An array of each (shape, dtype), not cleared, in this order; without a gap where sizes are whole lines."""
    places, end = {}, 0
    for name, (shape, dtype) in sizes.items():
        begin = -(-end // ALIGNMENT) * ALIGNMENT
        end = begin + int(np.prod(shape)) * np.dtype(dtype).itemsize
        places[name] = begin, end
    piece = np.empty(end + ALIGNMENT, np.uint8)
    first = -piece.ctypes.data % ALIGNMENT
    return {
        name: piece[first + places[name][0] : first + places[name][1]].view(dtype).reshape(shape)
        for name, (shape, dtype) in sizes.items()
    }


def freeze(arrays: Iterable[np.ndarray]) -> None:
    """Nobody may write them from now on, nor the memory they are views of: programs need no copies then."""
    for array in arrays:
        array.flags.writeable = False
        if isinstance(array.base, np.ndarray):
            array.base.flags.writeable = False


def joined(parts: Sequence[np.ndarray]) -> np.ndarray:
    """One array of the rows of all: a view where they follow each other in memory, else a copy."""
    piece, ends = parts[0].base, [part.ctypes.data + part.nbytes for part in parts]
    follow = all(part.base is piece and part.flags.c_contiguous for part in parts)
    if not follow or piece is None or piece.dtype != np.uint8 or ends[:-1] != [part.ctypes.data for part in parts[1:]]:
        copy = np.concatenate(parts)
        freeze([copy])
        return copy
    first = parts[0].ctypes.data - piece.ctypes.data
    rows: np.ndarray = piece[first : ends[-1] - piece.ctypes.data].view(parts[0].dtype)
    return rows.reshape(-1, *parts[0].shape[1:])
