"""What a program is made of: ops, parameters, bytes, depth, FLOP, the memory of what lies between its ops."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .._coremltools import coremltools
from ..cost.program import operations
from ..errors import ArgumentError
from ..load import from_file
from ..ops import OPS, dtype_name
from ..ops.record import nbytes, size, stored_bytes, tensors
from ..ops.rules import is_weight

if TYPE_CHECKING:
    from coremltools.converters.mil.mil import Block, Function, Operation, Program, Var

MIB = 2**20


@dataclass(frozen=True)
class Stats:
    """One function. ``total``: ops as its file counts them; ``ops``: those that run, by type, the most first.

    ``parameters``: elements of the weights, unpacked; ``weight_bytes``: as they are stored; ``bytes``: of all constants
    by dtype. ``depth``: the most ops that follow from each other. ``flops``: of one call. ``peak_activation``: the most
    bytes of inputs and results alive at once when the ops run one by one in their order, nothing fused. Both leave out
    the ops in ``unknown``, whose shapes are not fixed.
    """

    function: str
    total: int
    ops: Mapping[str, int]
    parameters: int
    weight_bytes: int
    bytes: Mapping[str, int]
    depth: int
    flops: int
    peak_activation: int
    unknown: Mapping[str, int]

    @property
    def running(self) -> int:
        """Ops that run."""
        return sum(self.ops.values())

    def as_dict(self) -> dict[str, Any]:
        return asdict(self) | {"running": self.running}

    def __str__(self) -> str:
        return "\n".join(self._lines())

    def _lines(self) -> Iterator[str]:
        yield f"function {self.function}: {self.total} ops, {self.running} of which run, {self.depth} deep"
        yield (
            f"  {self.parameters:,} parameters in {self.weight_bytes / MIB:.4g} MiB, {self.flops / 1e9:.4g} GFLOP, "
            f"at most {self.peak_activation / MIB:.4g} MiB between ops"
        )
        yield "  constants: " + (", ".join(f"{n / MIB:.4g} MiB {kind}" for kind, n in self.bytes.items()) or "none")
        if self.unknown:
            yield "  not counted in GFLOP: " + ", ".join(f"{count} {op}" for op, count in self.unknown.items())
        width = max(map(len, self.ops), default=0)
        yield from (f"  {op:<{width}} {count:>7}" for op, count in self.ops.items())


def stats(model: Any, weights: str | os.PathLike[str] | None = None) -> list[Stats]:
    """Of each function of a MIL program or a file, whose weights need not be there."""
    program = program_of(model, weights, "*")
    with coremltools():
        return [_stats(name, function) for name, function in program.functions.items()]


def program_of(model: Any, weights: str | os.PathLike[str] | None, function: str | None) -> Program:
    """A MIL program, or that of a file."""
    if isinstance(model, (str, Path)):
        return from_file(model, function, weights, zeros=True)
    if not hasattr(model, "functions"):
        raise ArgumentError(
            f"{type(model).__name__} is no MIL program, and no path; anex.from_torch makes one of torch"
        )
    found: Program = model
    return found


def _stats(name: str, function: Function) -> Stats:
    ops = list(operations(function))
    weights = list(weights_of(function))
    flops, unknown = 0, Counter[str]()
    for op in ops:
        try:
            flops += OPS[op.op_type].flops(op)
        except (TypeError, ValueError, KeyError, IndexError, AttributeError):  # symbolic, absent
            unknown[op.op_type] += 1
    return Stats(
        name, ops_in_file(function), dict(Counter(op.op_type for op in ops).most_common()),
        sum(map(size, weights)), sum(map(stored_bytes, weights)), dict(_bytes_by_dtype(function).most_common()),
        depth(ops), flops, _peak(function, ops), dict(unknown),
    )  # fmt: skip


def ops_in_file(block: Block) -> int:
    """Ops as a file has them: the constants that are unpacked stand inside the ops that unpack them."""
    return sum((0 if _is_inside(op) else 1) + sum(map(ops_in_file, op.blocks)) for op in block.operations)


def _is_inside(op: Operation) -> bool:
    users = op.outputs[0].child_ops if op.op_type == "const" else []
    return len(users) > 0 and all(user.op_type.startswith("constexpr_") for user in users)


def weights_of(block: Block) -> Iterator[Var]:
    """Every constant that a running op reads as data, unpacked, once."""
    seen: set[int] = set()

    def walk(block: Block) -> Iterator[Var]:
        for op in block.operations:
            if op.op_type != "const" and not op.op_type.startswith("constexpr_"):
                for var in tensors(op):
                    if id(var) not in seen and is_weight(var) and _is_fixed(var):
                        seen.add(id(var))
                        yield var
            for inner in op.blocks:
                yield from walk(inner)

    yield from walk(block)


def _bytes_by_dtype(block: Block) -> Counter[str]:
    found = Counter[str]()
    for op in block.operations:
        if op.op_type == "const" and op.outputs[0].child_ops and _is_fixed(op.outputs[0]):
            kind = dtype_name(op.outputs[0])
            if kind != "string":
                found[kind] += nbytes(op.outputs[0])
        for inner in op.blocks:
            found += _bytes_by_dtype(inner)
    return found


def _is_fixed(var: Var) -> bool:
    return (hasattr(var.sym_type, "get_shape") and all(hasattr(n, "__index__") for n in var.shape)) or not var.shape


def depth(ops: list[Operation], counted: frozenset[str] | None = None) -> int:
    """The most ops of the types ``counted``, or of any, each of which follows from the one before."""
    deep: dict[int, int] = {}
    for op in ops:
        before = max((deep.get(id(var), 0) for var in _reads(op)), default=0)
        here = before + (counted is None or op.op_type in counted)
        for var in op.outputs:
            deep[id(var)] = here
    return max(deep.values(), default=0)


def _reads(op: Operation) -> Iterator[Var]:
    for argument in op.inputs.values():
        for var in argument if isinstance(argument, (list, tuple)) else (argument,):
            if hasattr(var, "sym_type"):
                yield var


def _peak(function: Function, ops: list[Operation]) -> int:
    """Values live from the op that makes them, inputs from the first, to the last that reads them."""
    born: dict[int, tuple[int, int]] = {}
    last: dict[int, int] = {}

    def bear(var: Var, at: int) -> None:
        if _is_fixed(var):
            born[id(var)] = at, nbytes(var)
            last[id(var)] = at

    for var in function.inputs.values():
        bear(var, 0)
    for at, op in enumerate(ops):
        for var in _reads(op):
            if id(var) in born:
                last[id(var)] = at
        for var in op.outputs:
            bear(var, at)
    for var in function.outputs:
        if id(var) in born:
            last[id(var)] = len(ops)
    change = [0] * (len(ops) + 2)
    for key, (at, count) in born.items():
        change[at] += count
        change[last[key] + 1] -= count
    most = now = 0
    for each in change:
        now += each
        most = max(most, now)
    return most
