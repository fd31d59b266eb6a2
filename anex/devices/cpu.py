"""The embedded CPU engine: lowers a MIL program to a plan of C kernels (csrc/cpu)."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from functools import cache
from typing import TYPE_CHECKING, Any

import numpy as np

from .. import _native
from ..errors import CompileError
from ..spec import MAX_RANK
from . import fuse

if TYPE_CHECKING:
    from coremltools.converters.mil.mil import Function, Operation, Program, Var

    from ..spec import Spec

LEFT_OUT = -1

# MIL's dtypes by what coremltools calls them. Constants of less than a byte arrive unpacked.
DTYPES = {
    "fp16": "float16", "fp32": "float32", "bool": "bool",
    "int8": "int8", "int16": "int16", "int32": "int32",
    "uint8": "uint8", "uint16": "uint16", "uint32": "uint32",
    "int4": "int8", "uint1": "uint8", "uint2": "uint8", "uint3": "uint8", "uint4": "uint8", "uint6": "uint8",
}  # fmt: skip


@cache
def kernels() -> Mapping[str, tuple[tuple[str, ...], tuple[str, ...]]]:
    """{op: (names of its inputs in the kernel's order, dtypes of the first)}"""
    return _native.kernels()


def is_constant(var: Var) -> bool:
    """Known when the program was built: a const, or an op that coremltools has evaluated."""
    return var.val is not None


def is_folded(op: Operation) -> bool:
    return op.op_type == "const" or (bool(op.outputs) and all(is_constant(var) for var in op.outputs))


class Cpu:
    name = "cpu"

    def unavailable(self) -> str | None:
        return None

    def objections(self, op: Operation) -> Sequence[str]:
        return [] if is_folded(op) else list(_objections(op))

    def compile(self, program: Program, inputs: Mapping[str, Spec], outputs: Mapping[str, Spec]) -> _native.Executable:
        return lower(program.functions["main"], inputs, outputs)


def _objections(op: Operation) -> Iterator[str]:
    kernel = kernels().get(op.op_type)
    if kernel is None:
        yield "the CPU engine has no kernel for this op"
        return
    for var in op.outputs:
        if dtype_name(var) not in DTYPES:
            yield f"{dtype_name(var)} is not a dtype of the CPU engine"
        elif var.shape is None or not all(isinstance(dim, (int, np.integer)) for dim in var.shape):
            yield f"the shape of {var.name} is only known while the program runs; give every input a fixed shape"
        elif len(var.shape) > MAX_RANK:
            yield f"rank {len(var.shape)} is above {MAX_RANK}, the limit of Core ML; merge dimensions"


def dtype_name(var: Var) -> str:
    from coremltools.converters.mil.mil import types

    return str(types.builtin_to_string(var.dtype))


def lower(
    function: Function,
    inputs: Mapping[str, Spec],
    outputs: Mapping[str, Spec],
    isa: str | None = None,
    *,
    strict: bool = False,
) -> _native.Executable:
    """Plan ``function`` for the instruction set ``isa``, or for the best one here.

    ``strict``: every op rounds its result to its dtype. Otherwise ops are fused, and what stays
    between them stays float32.
    """
    plan = _native.Executable(isa)
    values: dict[Var, int] = {}
    for name, var in function.inputs.items():
        values[var] = plan.add_input(name, inputs[name].shape, inputs[name].dtype.name)
    ops = needed(function)
    for chain in [[op] for op in ops] if strict else fuse.groups(ops, function.outputs):
        before = None
        for op in chain:
            _lower_op(plan, op, values, before)
            before = op
    named = zip(outputs.items(), function.outputs, strict=True)
    plan.finish([(name, _value(plan, var, values), spec.shape, spec.dtype.name) for (name, spec), var in named])
    return plan


def needed(function: Function) -> list[Operation]:
    """The ops that outputs depend on, in program order, without those whose results are known."""
    wanted = set(function.outputs)
    kept = []
    for op in reversed(function.operations):
        if not is_folded(op) and not wanted.isdisjoint(op.outputs):
            kept.append(op)
            wanted.update(fuse.arguments(op))
    return kept[::-1]


def _lower_op(plan: _native.Executable, op: Operation, values: dict[Var, int], before: Operation | None) -> None:
    names, _ = kernels()[op.op_type]
    arguments = {name: var for name, var in op.inputs.items() if var is not None}
    listed = [var for var in arguments.values() if isinstance(var, (list, tuple))]
    if unknown := [name for name, var in arguments.items() if name not in names and var not in listed]:
        raise CompileError(f"{op.op_type} {op.name!r}: the CPU engine knows no input {', '.join(unknown)}")
    given = [_value(plan, arguments[name], values) if name in arguments else LEFT_OUT for name in names]
    several = [_value(plan, var, values) for vars_ in listed for var in vars_]
    for var in op.outputs:
        values[var] = plan.add_value(var.shape, DTYPES[dtype_name(var)])
    through = LEFT_OUT if before is None else values[fuse.through(before, op)]
    plan.add_op(op.op_type, op.name, given, several, [values[var] for var in op.outputs], through)


def _value(plan: _native.Executable, var: Var, values: dict[Var, int]) -> int:
    if var not in values:
        if not is_constant(var):
            raise CompileError(f"{var.name} is used before it is computed")
        values[var] = plan.add_constant(constant(var))
    return values[var]


def constant(var: Var) -> Any:
    """The value of a constant as the engine reads it: a packed array, or a str."""
    if isinstance(var.val, str):
        return var.val
    array = np.asarray(var.val)
    name = DTYPES.get(dtype_name(var))
    if name is None and array.dtype.kind in "iu":
        name = "int32"  # int64 shapes and the like
    if name is None:
        raise CompileError(f"constant {var.name} is {dtype_name(var)}, which the CPU engine does not hold")
    return np.ascontiguousarray(array, dtype=name).reshape(array.shape)
