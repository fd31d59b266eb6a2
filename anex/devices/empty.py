"""Ops of empty operands, for the CPU engine: what they give when that is not empty too.

Ops whose results are all empty are no work at all, and no kernel sees them. A sum of nothing is 0, a list
joined with nothing is itself; where there is no such answer the op is refused by name.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from ..errors import ShapeError

if TYPE_CHECKING:
    from coremltools.converters.mil.mil import Operation, Var

# What reducing no element gives, as numpy and torch have it.
NOTHING = {
    "reduce_sum": 0, "reduce_l1_norm": 0, "reduce_l2_norm": 0, "reduce_sum_square": 0, "reduce_prod": 1,
    "reduce_log_sum": -np.inf, "reduce_log_sum_exp": -np.inf, "reduce_mean": np.nan,
}  # fmt: skip
PRODUCTS = {"matmul": None, "linear": "bias", "einsum": None}  # sums of no products, and what is added to them
UPDATES = ("scatter", "scatter_along_axis", "scatter_nd")


def is_empty(var: Any) -> bool:
    return 0 in (getattr(var, "shape", None) or ())


def concerns(op: Operation | Any) -> bool:
    """Whether some operand is empty, and some result is not; ``concat`` just has fewer operands then."""
    return (
        not op.blocks
        and op.op_type != "concat"
        and any(map(is_empty, _operands(op)))
        and not all(map(is_empty, op.outputs))
    )


def refused_by_builder(op_type: str, arguments: Mapping[str, Any]) -> np.ndarray[Any, Any] | None:
    """The empty result of arguments, some of them values by now, that coremltools' builder refuses."""
    reps, target = (getattr(given, "val", given) for given in map(arguments.get, ("reps", "shape")))
    x: Any = arguments.get("x")
    if op_type == "tile" and isinstance(reps, np.ndarray) and not reps.all():
        dims = [int(n) * int(rep) for n, rep in zip(x.shape, reps, strict=True)]
    elif op_type == "reshape" and isinstance(target, np.ndarray) and is_empty(x) and 0 in target:
        dims = [max(int(n), 0) for n in target]
    else:
        return None
    return np.empty(dims, x.dtype if isinstance(x, np.ndarray) else _dtype(x))


def instead(op: Operation) -> np.ndarray[Any, Any] | Var:
    """The only result of an op that ``concerns``: its value, or one of its operands."""
    (result,) = op.outputs
    shape, given = tuple(map(int, result.shape)), op.inputs
    if op.op_type in NOTHING:
        value: Any = NOTHING[op.op_type]
        if op.op_type == "reduce_log_sum" and (epsilon := _constant(op, "eps")) is not None:
            value = np.log(epsilon)
    elif op.op_type in PRODUCTS:
        bias = PRODUCTS[op.op_type]
        value = 0 if bias is None or given.get(bias) is None else _constant(op, bias)
    elif op.op_type == "pad" and str(_constant(op, "mode") or "constant") == "constant":
        value = _constant(op, "constant_val") or 0
    elif op.op_type in UPDATES and not is_empty(given["data"]):
        return given["data"]
    else:
        value = None
    if value is None:
        empty = next(var for var in _operands(op) if is_empty(var))
        raise ShapeError(
            f"{op.op_type} {op.name!r}: {empty.name} is empty, shape {tuple(map(int, empty.shape))}, "
            "and the op has no result for that; keep it from being asked"
        )
    with np.errstate(invalid="ignore"):
        return np.full(shape, value, _dtype(result))


def _operands(op: Any) -> list[Any]:
    return [var for given in op.inputs.values() for var in (given if isinstance(given, (list, tuple)) else [given])]


def _constant(op: Operation, name: str) -> Any:
    var = op.inputs.get(name)
    return None if var is None else var.val


def _dtype(var: Var) -> str:
    from ..ops import dtype_name

    return str(dtype_name(var).replace("fp", "float"))
