"""The values of a program's intermediates: run with them as outputs, a part at a time.

A part is as many ops in a row as ``budget`` bytes hold; for each part the program runs again from its start, up to
the last op of the part. So memory is bounded, whatever the size of the program.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from .._coremltools import coremltools
from ..devices import cpu, fuse
from ..devices.stepwise import is_static
from ..errors import AneWarning
from ..ops import dtype_name
from ..ops.record import is_list, nbytes
from ..program import compile
from ..store import dumps, loads

if TYPE_CHECKING:
    from coremltools.converters.mil.mil import Function, Operation, Program, Var

BUDGET = 256 << 20  # bytes of intermediate values held at once, by each of the programs compared
MOST_OUTPUTS = 48  # of a program for the Neural Engine, whose compiler nobody has seen take hundreds
STATES = frozenset({"read_state", "coreml_update_state"})

Arrays = dict[str, "np.ndarray[Any, Any]"]


def runs(op: Operation) -> bool:
    """Whether it computes when the program runs: no constant, and no weight that is unpacked before."""
    return not cpu.is_folded(op) and not op.op_type.startswith("constexpr_")


def is_value(var: Var) -> bool:
    """Whether a program could give it: a tensor of a dtype that inputs and outputs have."""
    if not hasattr(var, "sym_type") or is_list(var) or var.shape is None or not hasattr(var, "dtype"):
        return False
    kind = dtype_name(var)
    return cpu.DTYPES.get(kind) == kind.replace("fp", "float")


@dataclass
class Side:
    """One of two programs that are compared: a copy of its own, and how it runs.

    ``device`` and ``options`` as ``anex.compile`` takes them.
    """

    program: Program
    device: str = "cpu"
    options: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.function: Function = next(iter(self.program.functions.values()))
        self.outputs = list(self.function.outputs)

    @property
    def ops(self) -> list[Operation]:
        """Those that run, of the function itself, in order."""
        return [op for op in self.function.operations if runs(op)]

    def values(self, wanted: Sequence[Var], given: Mapping[str, np.ndarray]) -> Arrays:
        """The value of each of these variables, by name; ``given``: the inputs, in the dtypes of this program.

        States are zero at first.
        """
        inputs = {var.name: given[var.name] for var in wanted if var.name in given}
        computed = list(dict.fromkeys(var for var in wanted if var.name not in self.function.inputs))  # nor states
        if not computed:
            return inputs
        limit = MOST_OUTPUTS if self.device == "ane" else len(computed)
        for start in range(0, len(computed), limit):
            part = computed[start : start + limit]
            with coremltools():
                self.function.set_outputs(part)
            try:
                inputs |= self._run(given)
            finally:
                with coremltools():
                    self.function.set_outputs(self.outputs)
        return inputs

    def results(self, given: Mapping[str, np.ndarray]) -> Arrays:
        """The program's own outputs, of a run without any other."""
        return self._run(given)

    def _run(self, given: Mapping[str, np.ndarray]) -> Arrays:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", AneWarning)
            with compile(self.program, device=self.device, **self.options) as program:
                arguments = {name: given[name] for name in program.inputs}
                state = program.make_state() if program.states else None
                found = program(**arguments, state=state) if arguments else program(state=state)
                several = found if isinstance(found, tuple) else (found,)
                return {name: np.array(y) for name, y in zip(program.outputs, several, strict=True)}


def copied(program: Program, function: str = "main") -> Program:
    """A program of one function, ``main``, that may be changed; names that MIL text cannot hold are replaced."""
    copy = loads(dumps(program))
    chosen = copy.functions[function if function in copy.functions else next(iter(copy.functions))]
    with coremltools():
        copy.functions.clear()
        copy.add_function("main", chosen)
        copy.default_function_name = "main"
    return copy


def parts(ops: Sequence[Operation], budget: int = BUDGET) -> Iterator[list[Operation]]:
    """The ops in order, in groups whose outputs and operands take ``budget`` bytes at most, or one op."""
    group: list[Operation] = []
    held: dict[Var, int] = {}
    for op in ops:
        more = {var: _bytes(var) for var in (*op.outputs, *operands(op)) if var not in held}
        if group and sum(held.values()) + sum(more.values()) > budget:
            yield group
            group, held = [], {}
            more = {var: _bytes(var) for var in (*op.outputs, *operands(op))}
        group.append(op)
        held.update(more)
    if group:
        yield group


def operands(op: Operation) -> list[Var]:
    """What an op and its blocks read that the program computes, each once."""
    found: dict[Var, None] = {}
    for var in cpu.reads(op):
        if not cpu.is_constant(var) and not (var.op is not None and var.op.op_type.startswith("constexpr_")):
            found[var] = None
    return list(found)


def isolated(ops: Sequence[Operation], given: Mapping[str, np.ndarray]) -> Arrays:
    """What each op gives on the CPU engine for operands that are given by name, whatever other ops gave.

    Ops whose operands are not all given, or whose shapes are not fixed, are left out.
    """
    lowering = cpu.Lowering(None, True, None)
    arguments: list[np.ndarray] = []
    inputs: dict[Var, int] = {}
    results: list[tuple[str, int]] = []
    with coremltools():
        for op in ops:
            read = operands(op)
            if op.op_type in STATES or not all(map(_is_plain, (*read, *op.outputs))):
                continue
            if not all(var.name in given for var in read):
                continue
            for var in read:
                if var not in inputs:
                    array = given[var.name].astype(cpu.DTYPES[dtype_name(var)], copy=False)
                    lowering.add_input(var, str(len(inputs)), array.shape, array.dtype.name)
                    inputs[var] = lowering.values[var]
                    arguments.append(array)
                lowering.values[var] = inputs[var]
            for var in cpu.reads(op):
                _unpack(lowering, var)
            lowering.add_kernel(op)
            results += [(var.name, lowering.values[var]) for var in op.outputs]
    if not results:
        return {}
    lowering.plan.finish(results)
    try:
        found = lowering.plan.run(tuple(arguments))
        several = found if isinstance(found, tuple) else (found,)
        return {name: np.array(y) for (name, _), y in zip(results, several, strict=True)}
    finally:
        lowering.plan.close()


def _unpack(lowering: cpu.Lowering, var: Var) -> None:
    """A compressed weight, and what it is made of."""
    op = var.op
    if op is None or cpu.is_constant(var) or not op.op_type.startswith("constexpr_") or var in lowering.values:
        return
    for each in fuse.arguments(op):
        _unpack(lowering, each)
    lowering.add_kernel(op)


def _is_plain(var: Var) -> bool:
    return is_value(var) and is_static(var)


def _bytes(var: Var) -> int:
    try:
        return int(nbytes(var))
    except (TypeError, ValueError, AttributeError):
        return 0
