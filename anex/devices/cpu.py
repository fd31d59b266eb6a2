"""The embedded CPU engine: lowers a MIL program to a plan of C kernels (csrc/cpu)."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, Any

import numpy as np

from .. import _native
from ..errors import CompileError
from ..ops import dtype_name
from ..spec import MAX_RANK
from . import fuse, states

if TYPE_CHECKING:
    from coremltools.converters.mil.mil import Block, Function, Operation, Program, Var

    from ..spec import Spec
    from . import Signature

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
    return getattr(var, "val", None) is not None


def is_folded(op: Operation) -> bool:
    return op.op_type == "const" or (bool(op.outputs) and all(is_constant(var) for var in op.outputs))


@dataclass(frozen=True)
class CpuOptions:
    """``device="cpu"`` has none: ``anex.set_num_threads`` is for all programs."""


class Cpu:
    name = "cpu"
    options = CpuOptions

    def unavailable(self) -> str | None:
        return None

    def objections(self, op: Operation, options: CpuOptions) -> Sequence[str]:
        return [] if is_folded(op) else list(_objections(op))

    def compile(
        self, program: Program, signatures: Mapping[str, Signature], options: CpuOptions
    ) -> Mapping[str, _native.Plan]:
        return {
            name: lower(program.functions[name], {**signature.inputs, **signature.states}, signature.outputs)
            for name, signature in signatures.items()
        }


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
        elif len(var.shape) > MAX_RANK and not op.op_type.startswith("constexpr_"):  # palettes have two axes more
            yield f"rank {len(var.shape)} is above {MAX_RANK}, the limit of Core ML; merge dimensions"
    for block in op.blocks:
        for inner in block.operations:
            if not is_folded(inner):
                yield from (f"in it, {inner.op_type} {inner.name!r}: {reason}" for reason in _objections(inner))


def lower(
    function: Function,
    inputs: Mapping[str, Spec],
    outputs: Mapping[str, Spec],
    isa: str | None = None,
    *,
    strict: bool = False,
) -> _native.Plan:
    """Plan ``function`` for the instruction set ``isa``, or for the best one here.

    ``inputs``, states among them, come in the order the plan takes them. ``strict``: every op rounds
    its result to its dtype, and every instruction set and number of threads gives the same bits;
    otherwise ops are fused, and what stays between them stays float32.
    """
    lowering = _Lowering(isa, strict)
    for name, spec in inputs.items():
        lowering.add_input(function.inputs[name], name, spec.shape, spec.dtype.name)
    return lowering.finish(function, outputs)


class _Lowering:
    """A plan in the making, and the numbers its values have."""

    def __init__(self, isa: str | None, strict: bool) -> None:
        self.isa, self.strict = isa, strict
        self.plan = _native.Plan(isa, strict)
        self.values: dict[Var, int] = {}
        self.in_place: dict[Operation, Var] = {}

    def add_input(self, var: Var, name: str, shape: Sequence[int], dtype: str) -> None:
        self.values[var] = self.plan.add_input(name, shape, dtype)

    def add_op(self, op: Operation, before: Operation | None) -> None:
        """``before``: the op added last, whose result only this one reads."""
        if op in self.in_place:  # what it gives is the state
            self.values[op.outputs[0]] = self.value(self.in_place[op])
            if op.op_type != "slice_update":
                return
        names, _ = kernels()[op.op_type]
        # names that begin with _ are the builder's own: the functions that made the blocks
        arguments = {name: var for name, var in op.inputs.items() if var is not None and name[0] != "_"}
        listed = [var for var in arguments.values() if isinstance(var, (list, tuple))]
        if unknown := [name for name, var in arguments.items() if name not in names and var not in listed]:
            raise CompileError(f"{op.op_type} {op.name!r}: the CPU engine knows no input {', '.join(unknown)}")
        given = [self.value(arguments[name]) if name in arguments else LEFT_OUT for name in names]
        outside = list(dict.fromkeys(var for block in op.blocks for var in free_vars(block)))
        several = [self.value(var) for var in (*(var for vars_ in listed for var in vars_), *outside)]
        blocks = [self.block(block, outside) for block in op.blocks]
        results: list[int] = []
        if op.op_type == "coreml_update_state":  # what it gives is what it was given
            self.values[op.outputs[0]] = self.value(arguments["value"])
        elif op not in self.in_place:
            results = [self.plan.add_value(var.shape, DTYPES[dtype_name(var)]) for var in op.outputs]
            self.values.update(zip(op.outputs, results, strict=True))
        through = LEFT_OUT if before is None else self.values[fuse.through(before, op)]
        self.plan.add_op(op.op_type, op.name, given, several, results, blocks, through)

    def block(self, block: Block, outside: Sequence[Var]) -> _native.Plan:
        """A plan of a block: its inputs, then the values it and its siblings use from outside."""
        inner = _Lowering(self.isa, self.strict)
        for i, var in enumerate((*block.inputs, *outside)):
            inner.add_input(var, str(i), var.shape, DTYPES[dtype_name(var)])
        return inner.finish(block, [var.name for var in block.outputs])

    def finish(self, block: Block, names: Iterable[str]) -> _native.Plan:
        """Add the ops of ``block``; ``names`` are those of its outputs."""
        ops = needed(block)
        self.in_place = states.in_place(ops, block.outputs, reads)
        for chain in [[op] for op in ops] if self.strict else fuse.groups(ops, block.outputs, reads):
            for before, op in zip((None, *chain), chain, strict=False):
                self.add_op(op, before)
        self.plan.finish([(name, self.value(var)) for name, var in zip(names, block.outputs, strict=True)])
        return self.plan

    def value(self, var: Var) -> int:
        if var not in self.values:
            if not is_constant(var):
                raise CompileError(f"{var.name} is used before it is computed")
            self.values[var] = self.plan.add_constant(constant(var))
        return self.values[var]


def needed(block: Block) -> list[Operation]:
    """The ops that outputs or states depend on, in program order, without those whose results are known."""
    wanted = set(block.outputs)
    kept = []
    for op in reversed(block.operations):
        if not is_folded(op) and (writes_state(op) or not wanted.isdisjoint(op.outputs)):
            kept.append(op)
            wanted.update(reads(op))
    return kept[::-1]


def reads(op: Operation) -> list[Var]:
    """The values that an op and its blocks use."""
    return [*fuse.arguments(op), *(var for inner in op.blocks for var in free_vars(inner))]


def writes_state(op: Operation) -> bool:
    return op.op_type == "coreml_update_state" or any(writes_state(inner) for b in op.blocks for inner in b.operations)


def free_vars(block: Block) -> list[Var]:
    """The values that a block uses and does not make, constants left out."""
    made = set(block.inputs)
    used: dict[Var, None] = {}
    for op in needed(block):
        used.update(dict.fromkeys(reads(op)))
        made.update(op.outputs)
    used.update(dict.fromkeys(block.outputs))
    return [var for var in used if var not in made and not is_constant(var)]


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
    if array.dtype.kind in "iu" and (array != array.astype(name)).any():
        raise CompileError(f"constant {var.name} has values outside {name}, the widest integer of Core ML's tensors")
    return np.require(array, name, ["C", "A"])
