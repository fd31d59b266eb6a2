"""One program on a device against a reference, op by op: what each op makes, and what it hands on."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from .._coremltools import coremltools
from ..ops import dtype_name
from .inputs import specs
from .metrics import Difference, difference
from .runs import BUDGET, Arrays, Side, copied, is_value, isolated, operands, parts
from .widen import widen

if TYPE_CHECKING:
    from coremltools.converters.mil.mil import Operation, Program, Var

MADE_TO_FP16 = "_cast_fp16"  # what coremltools appends to an op's name, for it and its result, made float16

Observer = Callable[["Operation", Mapping[str, np.ndarray], Mapping[str, np.ndarray]], None]
"""Called for each op with the values of its operands and results on the device, and of its results in the
reference, by the names the program has them under."""


@dataclass(frozen=True)
class OpDifference:
    """One result of one op of the program under test; ``output`` is its name, ``name`` the op's.

    ``total``: from the reference's value. ``own``: from what the reference's op gives for the operands that the
    device had, so what this op adds; the rest of ``total`` came in with its operands. None where the reference has no
    such op on such operands.
    """

    op: str
    name: str
    output: str
    dtype: str
    shape: tuple[int, ...]
    total: Difference
    own: Difference | None

    @property
    def makes(self) -> bool:
        """Whether at least half of the error is its own."""
        return self.own is None or self.own.relative >= self.total.relative / 2


def sides(
    program: Program, reference: Program | None = None, *, function: str = "main", device: str = "cpu",
    options: Mapping[str, Any] | None = None, exact: bool = True,
) -> tuple[Side, Side]:  # fmt: skip
    """``program`` on ``device``, and ``reference`` (``program`` itself without) on the CPU engine.

    ``exact``: the reference computes in float32 throughout; otherwise as it is, every op rounding to its dtype.
    """
    tested = Side(copied(program, function), device, options or {})
    source = tested.program if reference is None else reference
    name = "main" if reference is None else function
    twin = widen(source, name if name in source.functions else next(iter(source.functions))) if exact else copied(
        source, name)  # fmt: skip
    return tested, Side(twin, "cpu", {"strict": True})


def as_inputs_of(side: Side, given: Mapping[str, np.ndarray]) -> Arrays:
    """The same numbers in the dtypes that a side takes."""
    return {name: np.asarray(given[name]).astype(each.dtype) for name, each in specs(side.function).items()}


def compare(
    tested: Side, reference: Side, given: Mapping[str, np.ndarray], *, budget: int = BUDGET,
    observers: Sequence[Observer] = (),
) -> list[OpDifference]:  # fmt: skip
    """Each op of ``tested`` whose results the reference has by the same name and shape, in order.

    ``given``: the inputs in ``tested``'s dtypes. What is looked at is an output of the program while it is: devices
    that fuse ops, such as "cpu" without ``strict``, round there, and do not in a whole run (``outputs``).
    """
    theirs = as_inputs_of(reference, given)
    named = {op.name: op.outputs[0] for op in reference.ops if len(op.outputs) == 1 and is_value(op.outputs[0])}
    named |= {var.name: var for op in reference.ops for var in op.outputs if is_value(var)}
    named |= dict(reference.function.inputs)
    pairs = _pairs(tested, named)  # tested variable -> the reference's
    back = {there: here for here, there in pairs.items()}
    back |= {there: tested.function.inputs[name] for name, there in reference.function.inputs.items()}
    found: list[OpDifference] = []
    for part in parts(tested.ops, budget):
        results = [var for op in part for var in op.outputs if var in pairs]
        makers = list(dict.fromkeys(op for var in results if (op := pairs[var].op) is not None))
        needed = [back[var] for op in makers for var in operands(op) if var in back]
        read = [var for op in part for var in operands(op) if is_value(var)] if observers else []
        here = tested.values([*results, *needed, *read], given)
        there = reference.values([pairs[var] for var in results], theirs)
        read_by_makers = [(var.name, back[var].name) for op in makers for var in operands(op) if var in back]
        operand_values = {name: here[known] for name, known in read_by_makers if known in here}
        alone = isolated(makers, operand_values)
        for op in part:
            for observe in observers:
                observe(op, here, {var.name: there[pairs[var].name] for var in op.outputs if var in pairs})
            found += [_difference(op, var, pairs[var], here, there, alone) for var in op.outputs if var in pairs]
    return found


def outputs(tested: Side, reference: Side, given: Mapping[str, np.ndarray]) -> dict[str, Difference]:
    """The programs' own outputs, of whole runs, in order: nothing is added that would keep ops from being fused."""
    here, there = tested.results(given), reference.results(as_inputs_of(reference, given))
    pairs = zip(here.items(), there.values(), strict=True)
    return {name: difference(expected, array) for (name, array), expected in pairs}


def _difference(op: Operation, var: Var, twin: Var, here: Arrays, there: Arrays, alone: Arrays) -> OpDifference:
    found = here[var.name]
    own = difference(alone[twin.name], found) if twin.name in alone else None
    total = difference(there[twin.name], found)
    return OpDifference(op.op_type, op.name, var.name, dtype_name(var), found.shape, total, own)


def _alike(twin: Var, var: Var) -> bool:
    """Of one shape, as far as it is fixed."""
    a, b = ([int(n) if hasattr(n, "__index__") else None for n in each.shape] for each in (twin, var))
    return a == b


def _pairs(tested: Side, named: Mapping[str, Var]) -> dict[Var, Var]:
    found: dict[Var, Var] = {}
    taken: set[Var] = set()
    with coremltools():
        for op in tested.ops:
            for var in op.outputs:
                twin = named.get(var.name) or named.get(var.name.removesuffix(MADE_TO_FP16))
                if twin is not None and is_value(var) and _alike(twin, var) and twin not in taken:
                    found[var] = twin
                    taken.add(twin)
    return found
