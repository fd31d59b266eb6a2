"""What is known about a tensor before it exists: its shape and dtype."""

from __future__ import annotations

import operator
from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from .errors import DTypeError, ShapeError

if TYPE_CHECKING:  # numpy is not loaded before the first spec is made
    import numpy as np
    import numpy.typing as npt

_DTYPES = ("float16", "float32", "int8", "uint8", "int16", "uint16", "int32", "uint32", "bool")
_INSTEAD = {"float64": "float32", "int64": "int32", "uint64": "uint32"}
MAX_RANK = 5


@dataclass(frozen=True)
class Spec:
    """Shape and dtype of an input or output; equal specs are interchangeable.

    Of an output, a dimension may be -1: data decide it, as they do behind ``non_zero``.
    """

    shape: tuple[int, ...]
    dtype: np.dtype[Any]

    def __repr__(self) -> str:
        return f"Spec({self.shape}, {self.dtype.name})"


def spec(shape: Iterable[int] | int, dtype: npt.DTypeLike = "float16") -> Spec:
    """The ``Spec`` of a tensor with this ``shape`` (an int means one dimension) and ``dtype``.

    ``shape``: up to 5 positive ints. ``dtype``: anything numpy takes for float16, float32, bool or
    an integer of 8, 16 or 32 bits. Raises ``ShapeError`` and ``DTypeError`` with the reason.

    >>> spec((1, 64, 768))
    Spec((1, 64, 768), float16)
    >>> spec(7, "int32")
    Spec((7,), int32)
    """
    return Spec(_shape(shape, 1), _dtype(dtype))


def spec_of_result(shape: Iterable[int] | int, dtype: npt.DTypeLike) -> Spec:
    """The same of what a program made, which may be empty: ``non_zero`` finds nothing, a slice ends where it begins."""
    return Spec(_shape(shape, 0), _dtype(dtype))


def _shape(shape: Any, least: int) -> tuple[int, ...]:
    if isinstance(shape, str):
        raise ShapeError(f"shape {shape!r} is a string, not a tuple of ints")
    try:
        dims = tuple(shape)
    except TypeError:
        dims = (shape,)
    if len(dims) > MAX_RANK:
        raise ShapeError(f"shape {dims} has rank {len(dims)}; Core ML stops at {MAX_RANK}: merge dimensions")
    return tuple(_dim(dim, dims, least) for dim in dims)


def _dim(dim: Any, dims: tuple[Any, ...], least: int) -> int:
    try:
        size = operator.index(dim)  # ints and numpy's; neither floats nor coremltools' symbols
    except TypeError:
        size = None
    if size is None or isinstance(dim, bool):
        raise ShapeError(f"shape {dims}: {dim!r} is not an int; anex compiles static shapes only")
    if size < least:
        raise ShapeError(f"shape {dims}: {size} is not a size; the ANE has neither empty nor unknown dimensions")
    return size


def _dtype(dtype: npt.DTypeLike) -> np.dtype[Any]:
    import numpy as np

    try:
        found = np.dtype(dtype)
    except (TypeError, ValueError) as error:
        raise DTypeError(f"{dtype!r} is not a dtype: {error}") from error
    if found.name not in _DTYPES or not found.isnative:
        instead = _INSTEAD.get(found.name, "one of " + ", ".join(_DTYPES))
        raise DTypeError(f"Core ML has no {found} tensors; use {instead}")
    return found
