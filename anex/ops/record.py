"""What is known about an op beside its signature, which coremltools has.

A FLOP is one arithmetic operation on one element: an addition, a comparison, a square root or an
exponential each count one, a multiply-add two; biases of products and conversions count none.
Costs are read from the shapes and dtypes of one MIL op and are those of its definition: a device
that does less work, or touches less memory, does so to its credit.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from .gradient import Vjp
from .rule import Rule

if TYPE_CHECKING:
    from coremltools.converters.mil.mil import Operation, Var

Cost = Callable[["Operation"], int]
CACHED = 1 << 12  # types, which coremltools keeps one of each; asking it for a shape takes long


@dataclass(frozen=True)
class Op:
    """One op of MIL: ``flops(op)`` in FLOP and ``bytes(op)`` in bytes, for one of its uses.

    ``ane``: the Neural Engine's rules for it; the first says whether it is taken at all. ``vjp``: how the gradient
    goes back through it, or why it does not (``anex.ops.gradient``).
    """

    name: str
    flops: Cost
    bytes: Cost
    ane: tuple[Rule, ...]
    vjp: Vjp


OPS: dict[str, Op] = {}


def define(
    name: str, *, flops: Cost | None = None, bytes: Cost | None = None, ane: Sequence[Rule] = (), vjp: Vjp
) -> None:
    """Enter the op; without ``flops`` it only moves data, without ``bytes`` it touches every operand once.

    ``ane``: one of ``anex.ops.acceptance``, then the rules of this op alone.
    """
    if name in OPS:
        raise ValueError(f"{name} is defined twice")
    OPS[name] = Op(name, flops or nothing, bytes or operands, tuple(ane), vjp)


# ---- FLOP ---------------------------------------------------------------------------------------


def nothing(_: Operation) -> int:
    return 0


def per_element(count: int) -> Cost:
    """So many for each element of the first output."""
    return lambda op: count * size(op.outputs[0])


def per_input_element(count: int, name: str = "x") -> Cost:
    """So many for each element of the input ``name``."""
    return lambda op: count * size(op.inputs[name])


# ---- bytes --------------------------------------------------------------------------------------


def operands(op: Operation) -> int:
    """Inputs and outputs, weights among them, once each."""
    return sum(map(nbytes, (*tensors(op), *op.outputs)))


def outputs_twice(op: Operation) -> int:
    """As much read as written: ops that take out part of a tensor."""
    return 2 * outputs_once(op)


def outputs_once(op: Operation) -> int:
    return sum(map(nbytes, op.outputs))


def indexed(op: Operation) -> int:
    """The indices, and the elements they choose, read and written."""
    return outputs_twice(op) + nbytes(op.inputs["indices"])


# ---- vars ---------------------------------------------------------------------------------------


def tensors(op: Operation) -> Iterator[Var]:
    """The inputs that hold data; strides, axes, modes and the like are constants that say what to do with it."""
    for argument in op.inputs.values():
        for var in argument if isinstance(argument, (list, tuple)) else (argument,):
            # cond and while_loop also keep, among their inputs, the functions that made their blocks
            if hasattr(var, "sym_type") and not is_list(var) and not _is_parameter(var):
                yield var


def is_list(var: Any) -> bool:
    """A list of tensors, which has no dtype or shape of its own."""
    return hasattr(var, "elem_type")


def _is_parameter(var: Var) -> bool:
    if var.val is None:
        return False
    rank = rank_of(var)
    return rank == 0 or (rank == 1 and dtype_name(var) in ("int32", "bool", "string"))


def shape(var: Var) -> tuple[int, ...]:
    kind = var.sym_type
    return _shape_of_tensors(kind) if hasattr(kind, "get_shape") else tuple(map(int, var.shape))


@functools.lru_cache(maxsize=CACHED)
def _shape_of_tensors(kind: Any) -> tuple[int, ...]:
    return tuple(map(int, kind.get_shape()))


def rank_of(var: Var) -> int:
    kind = var.sym_type
    return _rank_of_tensors(kind) if hasattr(kind, "get_shape") else len(var.shape or ())


@functools.lru_cache(maxsize=CACHED)
def _rank_of_tensors(kind: Any) -> int:
    return len(kind.get_shape())


def size(var: Var) -> int:
    """Elements."""
    return math.prod(shape(var))


def nbytes(var: Var) -> int:
    """Bytes of the elements, packed: a 4-bit element is half a byte."""
    return -(-size(var) * _bits(dtype_name(var)) // 8)


def stored_bytes(var: Var) -> int:
    """Bytes of what a constexpr op or ``dequantize`` makes ``var`` of, those of its own elements otherwise."""
    op = var.op
    if op is None or not (op.op_type.startswith("constexpr_") or op.op_type == "dequantize"):
        return nbytes(var)
    return sum(map(stored_bytes, tensors(op)))


def dtype_name(var: Var) -> str:
    """As MIL spells it: ``fp16``, ``int32``, ``bool``; of what is no tensor ``list`` or ``dict``."""
    return _name_of_dtype(var.sym_type)


@functools.lru_cache(maxsize=CACHED)
def _name_of_dtype(kind: Any) -> str:
    from coremltools.converters.mil.mil import types

    if types.is_list(kind) or types.is_dict(kind):
        return "list" if types.is_list(kind) else "dict"
    kind = kind.wrapped_type() if types.is_state(kind) else kind
    return str(types.builtin_to_string(kind.get_primitive() if types.is_tensor(kind) else kind))


def _bits(dtype: str) -> int:
    digits = "".join(filter(str.isdigit, dtype))
    return int(digits) if digits else 8


def value(op: Operation, name: str, otherwise: Any = None) -> Any:
    """A constant input of the op."""
    var = op.inputs.get(name)
    return otherwise if var is None or var.val is None else var.val
