"""Making tensors, in numpy's words. A tensor is memory: ``np.asarray(t)`` is a view of it, never a copy."""

from __future__ import annotations

import functools
import math
from collections.abc import Iterable
from typing import Any

import numpy as np
import numpy.typing as npt

from ._native import Tensor, ane_is_open, ane_open
from .errors import ArgumentError, DTypeError
from .spec import Spec, spec

# Native ones, between which the native layer converts.
FLOATS: dict[np.dtype[Any], str] = {np.dtype(name): name for name in ("float16", "float32")}
# As people mostly write them
FLOAT_NAMES: dict[Any, str] = {**FLOATS, **{name: name for name in FLOATS.values()}, np.float16: "float16",
                               np.float32: "float32"}  # fmt: skip
PACKED_DTYPES = {"int4": (-8, 7), "uint4": (0, 15)}


def _restore(shape: tuple[int, ...], dtype: str, padded: bool, values: npt.NDArray[Any]) -> Tensor:
    tensor = Tensor(shape, dtype, padded)
    np.asarray(tensor)[...] = values
    return tensor


@functools.cache
def _opened() -> bool:
    return ane_open() is None


def are_surfaces() -> bool:
    """Whether new tensors are made of surfaces, which the Neural Engine reads and writes; opens it the first time."""
    return ane_is_open() or _opened()


def empty(shape: Iterable[int] | int, dtype: npt.DTypeLike = "float16", *, padded: bool | None = None) -> Tensor:
    """A tensor of ``shape`` (rank 0 to 5, no axis of 0) of unchosen values; fp16 unless ``dtype`` says otherwise.

    ``dtype``: anything numpy takes for float16, float32, bool or an integer of 8, 16 or 32 bits, or
    ``"int4"``/``"uint4"``. ``padded``: rows, the last axis, start at multiples of 64 bytes, as the
    Neural Engine wants them; every program takes both kinds. None: they do where tensors are surfaces,
    that is where the Neural Engine is. Raises ``ShapeError``, ``DTypeError``.

    >>> anex.empty((1, 64, 1, 5), padded=True).strides
    (4096, 64, 64, 2)
    """
    return _new(shape, dtype, padded, zeroed=False)


def _new(shape: Iterable[int] | int, dtype: npt.DTypeLike, padded: bool | None, *, zeroed: bool) -> Tensor:
    name = dtype if isinstance(dtype, str) and dtype in PACKED_DTYPES else None
    found = spec(shape, "uint8" if name else dtype)
    surfaces = are_surfaces()
    return Tensor(found.shape, name or found.dtype.name, surfaces if padded is None else padded, zeroed)


def zeros(shape: Iterable[int] | int, dtype: npt.DTypeLike = "float16", *, padded: bool | None = None) -> Tensor:
    """As ``empty``, filled with 0."""
    return _new(shape, dtype, padded, zeroed=True)


def ones(shape: Iterable[int] | int, dtype: npt.DTypeLike = "float16", *, padded: bool | None = None) -> Tensor:
    """As ``empty``, filled with 1."""
    return full(shape, 1, dtype, padded=padded)


def full(
    shape: Iterable[int] | int, value: float, dtype: npt.DTypeLike = "float16", *, padded: bool | None = None
) -> Tensor:
    """As ``empty``, filled with ``value``.

    >>> anex.full((2,), 7, "int32")
    anex.Tensor([7, 7], shape=(2,), dtype=int32)
    """
    result = empty(shape, dtype, padded=padded)
    if result.dtype_name in PACKED_DTYPES:
        value = _pack(np.full(2, value), result.dtype_name).item()
    else:
        _refuse_overflow(np.asarray(value), result.dtype_name)
    np.asarray(result)[...] = value
    return result


def empty_like(prototype: Tensor | npt.NDArray[Any] | Spec, *, dtype: npt.DTypeLike | None = None) -> Tensor:
    """A tensor with the shape, dtype and row padding of ``prototype``: a tensor, an array or a ``Spec``."""
    padded = not prototype.packed if isinstance(prototype, Tensor) else None
    return empty(prototype.shape, prototype.dtype if dtype is None else dtype, padded=padded)


def tensor(data: npt.ArrayLike, dtype: npt.DTypeLike | None = None, *, padded: bool | None = None) -> Tensor:
    """A tensor with a copy of ``data``: an array, a nested sequence, a number, another tensor.

    Without ``dtype`` an array keeps its own, and Python's numbers become float32, int32 or bool.
    float64 and int64 arrays are refused unless ``dtype`` says what they shall become: Core ML has no
    such tensors, and nothing is narrowed in silence. int4 and uint4 pack values in their range.

    >>> anex.tensor([[1, 2], [3, 4]]).shape
    (2, 2)
    """
    if (floats := _floats(data, dtype)) is not None:
        shape = data.shape  # type: ignore[union-attr]
        result = Tensor(shape, floats, are_surfaces() if padded is None else padded, False)
        result.copy_from(data)  # in C: numpy converts float16 an element at a time
        return result
    typed = hasattr(data, "dtype") or hasattr(data, "__array__") or hasattr(data, "__dlpack__")
    array = _as_array(data)
    if dtype is None:
        dtype = data.dtype if isinstance(data, Tensor) else array.dtype
        if not typed:
            dtype = {"f": np.float32, "i": np.int32, "u": np.int32, "b": np.bool_}.get(array.dtype.kind, array.dtype)
            if dtype is np.int32 and array.size and (array.min() < -(2**31) or array.max() >= 2**31):
                raise DTypeError("an int outside 32 bits: Core ML has no int64 tensors")
    shape = data.shape if isinstance(data, Tensor) else array.shape
    result = empty(shape, dtype, padded=padded)
    if result.dtype_name in PACKED_DTYPES:
        packed = isinstance(data, Tensor) and data.dtype_name == result.dtype_name
        np.asarray(result)[...] = array if packed else _pack(array, result.dtype_name)
    elif array.dtype in FLOATS and result.dtype_name in FLOATS.values():
        result.copy_from(array)
    else:
        _refuse_overflow(array, result.dtype_name)
        np.asarray(result)[...] = array
    return result


def _floats(data: Any, dtype: npt.DTypeLike | None) -> str | None:
    """The name of the result's dtype where an array or tensor and the result are floats of Core ML's; else None."""
    kind = type(data)
    source = FLOAT_NAMES.get(data.dtype_name if kind is Tensor else data.dtype if kind is np.ndarray else None)
    if source is None or not data.size:  # an empty one is refused like any other
        return None
    if dtype is None:
        return source
    try:
        return FLOAT_NAMES.get(dtype) or FLOATS.get(np.dtype(dtype))
    except TypeError:
        return None  # "int4", or nonsense


def _refuse_overflow(array: npt.NDArray[Any], name: str) -> None:
    """numpy wraps integers around, and makes some integer of a NaN."""
    dtype = np.dtype(name)
    if dtype.kind not in "iu" or np.can_cast(array.dtype, dtype):
        return
    limits = np.iinfo(dtype)
    if not ((array >= limits.min) & (array <= limits.max)).all():
        raise DTypeError(f"{dtype} holds integers from {limits.min} to {limits.max}; some of the values are outside")


def _as_array(data: Any) -> npt.NDArray[Any]:
    try:
        if not hasattr(data, "__array__") and hasattr(data, "__dlpack__"):
            return np.from_dlpack(data)
        array = np.asarray(data)
    except (TypeError, ValueError, RuntimeError, BufferError) as error:
        raise ArgumentError(f"a {type(data).__name__} is not an array: {error}") from error
    if array.dtype.kind not in "biuf":
        raise DTypeError(f"Core ML has no {array.dtype} tensors: {type(data).__name__} cannot become one")
    return array


def _pack(values: npt.NDArray[Any], dtype: str) -> npt.NDArray[np.uint8]:
    """Two 4-bit values a byte, the first in the low half, as in MIL's weight files."""
    low, high = PACKED_DTYPES[dtype]
    if values.dtype.kind not in "iu" or values.min() < low or values.max() > high:
        raise DTypeError(f"{dtype} holds integers from {low} to {high}; got {values.dtype} values")
    flat = np.zeros(2 * math.ceil(values.size / 2), np.uint8)
    flat[: values.size] = values.ravel().astype(np.int8).view(np.uint8) & 15
    return (flat[0::2] | flat[1::2] << 4).astype(np.uint8)


def from_dlpack(exporter: Any) -> Tensor:
    """A tensor on the memory of a numpy array, a torch CPU tensor, or any DLPack exporter: no copy.

    It keeps the exporter's memory alive and is read-only if that is. Raises ``ArgumentError`` for
    memory that is not the CPU's, ``DTypeError`` for dtypes Core ML lacks.

    >>> a = np.zeros(3, np.float32)
    >>> anex.from_dlpack(a)[1] = 5
    >>> a.tolist()
    [0.0, 5.0, 0.0]
    """
    try:
        array = np.from_dlpack(exporter)
    except (AttributeError, BufferError, RuntimeError, TypeError, ValueError) as error:
        raise ArgumentError(f"a {type(exporter).__name__} cannot be shared through DLPack: {error}") from error
    spec(array.shape, array.dtype)  # refuses what Core ML lacks, and says what to use
    return Tensor.wrap(array)
