"""What a program is run on when nobody says: random numbers that each input can be given.

Floating inputs are standard normal. Integers that choose rows, through ``gather``, ``one_hot``, ``slice`` and the like,
are uniform over the rows there are; others, and bools, are 0 or 1. States are zero. Each input has a generator of its
own, seeded by ``seed`` and its name, so that an input more leaves the others as they were.
"""

from __future__ import annotations

import math
import os
import zlib
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from ..errors import ArgumentError, DTypeError, MissingFileError, ShapeError
from ..ops import dtype_name
from ..program import is_state
from ..spec import Spec, spec

if TYPE_CHECKING:
    from coremltools.converters.mil.mil import Function, Operation, Var

# Ops behind which an integer still chooses what it chose before.
MOVES = frozenset({
    "cast", "reshape", "expand_dims", "squeeze", "transpose", "identity", "concat", "stack", "tile", "slice_by_index",
    "slice_by_size", "split", "select", "maximum", "minimum", "relu", "gather", "pad",
})  # fmt: skip
DEEP = 24  # ops that are followed


def specs(function: Function) -> dict[str, Spec]:
    """The inputs of a function whose shapes are fixed, states left out."""
    return {
        name: spec(tuple(map(int, var.shape)), dtype_name(var).replace("fp", "float"))
        for name, var in function.inputs.items()
        if not is_state(var)
    }


def drawn(function: Function, seed: int = 0) -> dict[str, np.ndarray]:
    """One array for each input of ``function``, by the rule above."""
    return {name: _drawn(name, each, function.inputs[name], seed) for name, each in specs(function).items()}


def _drawn(name: str, wanted: Spec, var: Var, seed: int) -> np.ndarray:
    rng = np.random.default_rng([seed, zlib.crc32(name.encode())])
    rows = choices(var)
    if wanted.dtype.kind == "b":
        return rng.integers(0, 2, wanted.shape).astype(bool)
    if wanted.dtype.kind == "f" and rows is None:
        return rng.standard_normal(wanted.shape).astype(wanted.dtype)
    most = np.iinfo(wanted.dtype).max if wanted.dtype.kind != "f" else 2048
    return rng.integers(0, min(rows or 2, most), wanted.shape).astype(wanted.dtype)


def choices(var: Var) -> int | None:
    """How many rows the elements of ``var`` choose among, the fewest of all uses; None where they choose nothing."""
    return min((limit for limit in _limits(var, 0, {}) if limit > 0), default=None)


def _limits(var: Var, depth: int, known: dict[Var, set[int]]) -> set[int]:
    if var not in known and depth <= DEEP:
        known[var] = {limit for op in var.child_ops for limit in _beyond(op, var, depth, known)}
    return known.get(var, set())


def _beyond(op: Operation, var: Var, depth: int, known: dict[Var, set[int]]) -> set[int]:
    """The limits of ``var`` that come of its use by ``op``."""
    limit = _limit(op, var)
    if limit is not None:
        return {limit}
    shift = _shift(op, var) if op.op_type in ("add", "sub") else 0
    if shift is None or (op.op_type not in MOVES and op.op_type not in ("add", "sub")) or _decides(op, var):
        return set()
    return {each - shift for result in op.outputs for each in _limits(result, depth + 1, known)}


def _limit(op: Operation, var: Var) -> int | None:
    """The rows that ``var`` chooses among as an argument of ``op``."""
    kind = op.op_type
    try:
        if kind in ("gather", "gather_along_axis") and op.inputs["indices"] is var:
            return _extent(op.inputs["x"], op.inputs["axis"])
        if kind == "gather_nd" and op.inputs["indices"] is var:
            return min(map(int, op.inputs["x"].shape[: int(var.shape[-1])]))
        if kind in ("scatter", "scatter_along_axis") and op.inputs["indices"] is var:
            return _extent(op.inputs["data"], op.inputs["axis"])
        if kind == "scatter_nd" and op.inputs["indices"] is var:
            return min(map(int, op.inputs["data"].shape[: int(var.shape[-1])]))
        if kind == "one_hot" and op.inputs["indices"] is var:
            return int(op.inputs["one_hot_vector_size"].val)
        if kind in ("slice_by_size", "slice_by_index") and op.inputs["begin"] is var:
            out, x = op.outputs[0].shape, op.inputs["x"].shape
            return 1 + min(int(there) - int(taken) for there, taken in zip(x, out, strict=True))
    except (TypeError, ValueError, KeyError, AttributeError):  # symbolic, or left out
        return None
    return None


def _extent(x: Var, axis: Var | None) -> int:
    return int(x.shape[0 if axis is None or axis.val is None else int(axis.val)])


def _decides(op: Operation, var: Var) -> bool:
    """Whether the op does something by ``var`` and does not hand it on."""
    return any(op.inputs.get(name) is var for name in ("cond", "shape", "begin", "end", "size", "reps", "pad"))


def _shift(op: Operation, var: Var) -> int | None:
    """The most that a constant adds to ``var``."""
    x, y = op.inputs["x"], op.inputs["y"]
    other = y if x is var else x
    if other.val is None or (op.op_type == "sub" and x is not var):
        return None
    values = np.asarray(other.val)
    return math.ceil(float(values.max() if op.op_type == "add" else -values.min()))


# ---- given -------------------------------------------------------------------------------------------------------


def read(path: str | os.PathLike[str]) -> dict[str, np.ndarray]:
    """The arrays of a ``.npz`` file by name."""
    import zipfile

    try:
        file = np.load(path, allow_pickle=False)
        if isinstance(file, np.ndarray):
            raise ArgumentError(f"{path} holds one array; np.savez writes several by name")
        with file:
            return {name: file[name] for name in file.files}
    except FileNotFoundError as error:
        raise MissingFileError(f"{path} does not exist") from error
    except (OSError, ValueError, EOFError, zipfile.BadZipFile) as error:
        raise ArgumentError(f"{path} is no .npz file of numpy arrays: {error}") from error


def checked(given: Mapping[str, Any], function: Function) -> dict[str, np.ndarray]:
    """``given`` in the dtypes of the program's inputs; every one must be there, in its shape.

    Floats become the input's float, and integers its integer where they fit.
    """
    wanted = specs(function)
    if missing := [name for name in wanted if name not in given]:
        raise ArgumentError(f"inputs: {', '.join(missing)} missing; the program takes {', '.join(wanted)}")
    if unknown := [name for name in given if name not in wanted]:
        raise ArgumentError(f"inputs: {', '.join(unknown)} unknown; the program takes {', '.join(wanted)}")
    return {name: _checked(name, given[name], each) for name, each in wanted.items()}


def _checked(name: str, value: Any, wanted: Spec) -> np.ndarray:
    array = np.asarray(value)
    if array.shape != wanted.shape:
        raise ShapeError(f"input {name!r} has the shape {array.shape}; the program takes {wanted.shape}")
    if array.dtype == wanted.dtype:
        return array
    kinds = array.dtype.kind, wanted.dtype.kind
    if kinds[1] in "iu" and kinds[0] in "iub":
        info = np.iinfo(wanted.dtype)
        if array.size and (array.min() < info.min or array.max() > info.max):
            raise DTypeError(f"input {name!r} has values that {wanted.dtype} does not hold")
    elif kinds not in (("f", "f"), ("i", "f"), ("u", "f"), ("b", "f")):
        raise DTypeError(f"input {name!r} is {array.dtype}; the program takes {wanted.dtype}")
    with np.errstate(over="ignore"):
        return array.astype(wanted.dtype)
