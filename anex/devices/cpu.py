"""The embedded CPU engine: lowers a MIL program to a plan of C kernels (csrc/cpu)."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache, partial
from typing import TYPE_CHECKING, Any

import numpy as np

from .. import _native
from ..errors import ArgumentError, CompileError
from ..ops import dtype_name, family
from ..spec import MAX_RANK
from . import attention, empty, fuse, numerics, quantized, siblings, states, stepwise

if TYPE_CHECKING:
    from coremltools.converters.mil.mil import Block, Function, Operation, Program, Var

    from ..spec import Spec
    from . import Executable, Signature

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
    """{op: (names of its inputs in the kernel's order, dtypes of the first)}; the engine's own begin with anex_"""
    return _native.kernels()


def is_constant(var: Var) -> bool:
    """Known when the program was built: a const, or an op that coremltools has evaluated."""
    return getattr(var, "val", None) is not None


def is_folded(op: Operation) -> bool:
    return op.op_type == "const" or (bool(op.outputs) and all(is_constant(var) for var in op.outputs))


@dataclass(frozen=True)
class CpuOptions:
    """How ``device="cpu"`` computes; ``anex.set_num_threads`` is for all programs.

    ``strict``: each op rounds its result to its dtype, as the Neural Engine does, and a program gives the
    same bytes on every number of threads and instruction set. By default ops are fused, which is faster, and
    what stays inside a fused group is not rounded; the number of threads changes nothing then either.

    ``ane_numerics``: strict, and float16 values past a documented limit of the Neural Engine become what
    they become there: long sums round, large products and slices overflow, subnormal numbers are zero. Each
    call in which that happens is an ``AneWarning`` with the op, the values, the limit and who measured it.
    ``chip`` (``"h13g"`` .. ``"h17s"``): the limits of that one; of all of them by default.
    """

    strict: bool = False
    ane_numerics: bool = False
    chip: str | None = None

    def __post_init__(self) -> None:
        for name in ("strict", "ane_numerics"):
            if not isinstance(getattr(self, name), bool):
                raise ArgumentError(f"{name}={getattr(self, name)!r} is neither True nor False")
        if self.chip is not None:
            if not self.ane_numerics:
                raise ArgumentError("chip= says whose numbers ane_numerics=True models; it does nothing without")
            family(self.chip)


class Cpu:
    name = "cpu"
    options = CpuOptions

    def unavailable(self) -> str | None:
        return None

    def objections(self, options: CpuOptions) -> Callable[[Operation], Sequence[str]]:
        return lambda op: [] if is_folded(op) else list(_objections(op))

    def compile(
        self, program: Program, signatures: Mapping[str, Signature], options: CpuOptions
    ) -> Mapping[str, Executable]:
        compiled: dict[str, Executable] = {}
        for name, signature in signatures.items():
            function = program.functions[name]
            if stepwise.is_needed(function):
                compiled[name] = stepwise.Stepwise(function, signature, partial(self._plan, options))
            else:
                takes = {**signature.inputs, **signature.states}
                compiled[name] = self._plan(options, function, takes, signature.outputs)
        return compiled

    def _plan(
        self, options: CpuOptions, function: Function, inputs: Mapping[str, Spec], outputs: Mapping[str, Spec]
    ) -> Executable:
        model = numerics.Model(options.chip) if options.ane_numerics else None
        strict = options.strict or options.ane_numerics
        plan = lower(function, inputs, outputs, strict=strict, model=model)
        return numerics.Watched(plan, model) if model else plan


def _objections(op: Operation, *, in_block: bool = False) -> Iterator[str]:
    if op.op_type not in kernels() and op.op_type not in stepwise.FOUND:
        yield "the CPU engine has no kernel for this op"
        return
    for var in op.outputs:
        if dtype_name(var) not in DTYPES:
            yield f"{dtype_name(var)} is not a dtype of the CPU engine"
        elif var.shape is None or (in_block and not stepwise.is_static(var)):
            yield f"in control flow, the shape of {var.name} is only known while the program runs"
        elif len(var.shape) > MAX_RANK and not op.op_type.startswith("constexpr_"):  # palettes have two axes more
            yield f"rank {len(var.shape)} is above {MAX_RANK}, the limit of Core ML; merge dimensions"
    for block in op.blocks:
        for inner in block.operations:
            if not is_folded(inner):
                reasons = _objections(inner, in_block=True)
                yield from (f"in it, {inner.op_type} {inner.name!r}: {reason}" for reason in reasons)


def lower(
    function: Function,
    inputs: Mapping[str, Spec],
    outputs: Mapping[str, Spec],
    isa: str | None = None,
    *,
    strict: bool = False,
    model: numerics.Model | None = None,
) -> _native.Plan:
    """Plan ``function`` for the instruction set ``isa``, or for the best one here.

    ``inputs``, states among them, come in the order the plan takes them. ``strict``: every op rounds
    its result to its dtype, and every instruction set and number of threads gives the same bits;
    otherwise ops are fused, and what stays between them stays float32. ``model``: what the Neural Engine
    does to numbers, for strict plans.
    """
    lowering = Lowering(isa, strict, model)
    for name, spec in inputs.items():
        lowering.add_input(function.inputs[name], name, spec.shape, spec.dtype.name)
    return lowering.finish(function, outputs)


class Lowering:
    """A plan in the making, and the numbers its values have."""

    def __init__(self, isa: str | None, strict: bool, model: numerics.Model | None) -> None:
        self.isa, self.strict, self.model = isa, strict, model
        self.plan = _native.Plan(isa, strict)
        self.values: dict[Var, int] = {}
        self.in_place: dict[Operation, Var] = {}

    def add_input(self, var: Var, name: str, shape: Sequence[int], dtype: str) -> None:
        self.values[var] = self.plan.add_input(name, shape, dtype)

    def add_op(self, op: Operation | quantized.Step, before: Operation | quantized.Step | None) -> None:
        """``before``: the op added last, whose result only this one reads."""
        if empty.concerns(op):
            self.values[op.outputs[0]] = self.value(empty.instead(op))
            return
        if op in self.in_place:  # what it gives is the state
            self.values[op.outputs[0]] = self.value(self.in_place[op])
            if op.op_type != "slice_update":
                return
        if self.model is not None:
            self.model.add_op(self, op)
            return
        self.add_kernel(op, before)

    def add_kernel(self, op: Operation | quantized.Step, before: Operation | quantized.Step | None = None) -> None:
        names, _ = kernels()[op.op_type]
        # names that begin with _ are the builder's own: the functions that made the blocks
        arguments = {name: var for name, var in op.inputs.items() if var is not None and name[0] != "_"}
        lists = {name: var for name, var in arguments.items() if isinstance(var, (list, tuple))}
        if unknown := [name for name in arguments if name not in names and name not in lists]:
            raise CompileError(f"{op.op_type} {op.name!r}: the CPU engine knows no input {', '.join(unknown)}")
        given = [self.value(arguments[name]) if name in arguments else LEFT_OUT for name in names]
        outside = list(dict.fromkeys(var for block in op.blocks for var in free_vars(block, self.strict)))
        listed = [var for vars_ in lists.values() for var in vars_]
        if op.op_type == "concat":  # what is empty adds nothing
            listed = [var for var in listed if not empty.is_empty(var)] or listed
        several = [self.value(var) for var in (*listed, *outside)]
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
        inner = Lowering(self.isa, self.strict, self.model)
        for i, var in enumerate((*block.inputs, *outside)):
            inner.add_input(var, str(i), var.shape, DTYPES[dtype_name(var)])
        return inner.finish(block, [var.name for var in block.outputs])

    def finish(self, block: Block, names: Iterable[str]) -> _native.Plan:
        """Add the ops of ``block``; ``names`` are those of its outputs."""
        ops = needed(block, self.strict)
        if not self.strict:
            ops = siblings.joined(ops, block.outputs)

        def read(op: Operation) -> Sequence[Var]:
            return reads(op, self.strict)

        self.in_place = states.in_place(ops, block.outputs, read)
        for chain in [[op] for op in ops] if self.strict else fuse.groups(ops, block.outputs, read):
            for before, op in zip((None, *chain), chain, strict=False):
                self.add_op(op, before)
        self.plan.finish([(name, self.value(var)) for name, var in zip(names, block.outputs, strict=True)])
        return self.plan

    def value(self, var: Var | np.ndarray) -> int:
        if isinstance(var, np.ndarray):
            return self.plan.add_constant(var)
        if var not in self.values:
            if not is_constant(var):
                raise CompileError(f"{var.name} is used before it is computed")
            self.values[var] = self.plan.add_constant(constant(var))
        return self.values[var]


def needed(block: Block, strict: bool = True) -> list[Operation | quantized.Step]:
    """The ops that outputs or states depend on, in program order, without those whose results are known.

    Not ``strict``: products of quantised operands, and attention with the transposes around it, are ops of the engine's
    own.
    """
    wanted = set(block.outputs)
    kept = []
    for op in reversed(block.operations):
        if not is_folded(op) and (writes_state(op) or not wanted.isdisjoint(op.outputs)):
            kept.append(op if strict else attention.step(quantized.step(op)))
            wanted.update(reads(kept[-1], strict))
    return kept[::-1]


def reads(op: Operation | quantized.Step, strict: bool = True) -> list[Var]:
    """The values that an op and its blocks use."""
    return [*fuse.arguments(op), *(var for inner in op.blocks for var in free_vars(inner, strict))]


def free_vars(block: Block, strict: bool = True) -> list[Var]:
    """The values that a block uses and does not make, constants left out."""
    made = set(block.inputs)
    used: dict[Var, None] = {}
    for op in needed(block, strict):
        used.update(dict.fromkeys(reads(op, strict)))
        made.update(op.outputs)
    used.update(dict.fromkeys(block.outputs))
    return [var for var in used if var not in made and not is_constant(var)]


def writes_state(op: Operation) -> bool:
    return op.op_type == "coreml_update_state" or any(writes_state(inner) for b in op.blocks for inner in b.operations)


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
