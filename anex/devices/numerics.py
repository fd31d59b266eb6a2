"""``ane_numerics=True``: what the Neural Engine does to numbers past its limits, done and told by the CPU engine.

The limits, and who measured them, are rules of ``anex.ops`` (``Rule.cliff``); csrc/cpu/cliff.c applies them.
"""

from __future__ import annotations

import sys
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from .. import _native
from ..errors import AneWarning, ClosedError
from ..ops import dtype_name
from ..ops.findings import cliffs
from ..ops.rule import Rule, chips
from .fuse import arguments

if TYPE_CHECKING:
    from coremltools.converters.mil.mil import Operation, Var

    from . import Pending
    from .cpu import Lowering

SUM = "anex_narrow_sum"  # in the place of the op; the other kernels follow it
INDEX: Literal["anex_narrow_index"] = "anex_narrow_index"  # of integer results
HAPPENED = {
    "anex_overflow": "value(s) from {limit:g} on became infinite (up to {most:g})",
    "anex_flush": "value(s) below {limit:.3g} became zero (up to {most:.3g})",
    INDEX: "index(es) above {limit:g} came back rounded (up to {most:g})",
    SUM: "addition(s) were rounded because the sum was above {limit:g} (up to {most:g})",
}
LEFT_OUT = -1
PACKAGE = __name__.partition(".")[0]


@dataclass(frozen=True)
class Crossing:
    """Values of one op's results that ``rule``'s limit changed in one call: how many, and the largest magnitude."""

    op: str
    name: str
    kernel: str
    count: int
    most: float
    rule: Rule

    @property
    def happened(self) -> str:
        assert self.rule.cliff is not None
        return f"{self.count} {HAPPENED[self.kernel].format(limit=self.rule.cliff.limit, most=self.most)}"


class Model:
    """Adds the cliffs of a chip, or of all of them, to plans; knows what each node that it added stands for."""

    def __init__(self, chip: str | None) -> None:
        self.chip = chip
        self.rules: dict[tuple[str, str], tuple[str, Rule]] = {}  # (kernel, name): the op's type, the rule
        self.weights: set[Var] = set()  # computed of constants alone, when a program is compiled

    def add_op(self, lowering: Lowering, op: Operation) -> None:
        """The op, and after each float16 result of its own what becomes of it; blocks have had theirs inside."""
        reads = list(arguments(op))
        if all(var.val is not None or var in self.weights for var in reads) and not op.op_type.startswith("random_"):
            self.weights.update(op.outputs)
            lowering.add_kernel(op)
            return
        rules = {} if op.blocks else {rule.cliff.kernel: rule for rule in cliffs(op, self.chip) if rule.cliff}
        index = rules.pop(INDEX, None)
        halves = [var for var in op.outputs if dtype_name(var) == "fp16"] if op.op_type != "coreml_update_state" else []
        for kernel, rule in rules.items() if halves else ():
            self.rules[kernel, op.name] = (op.op_type, rule)
        if SUM in rules and halves:
            self._add_sum(lowering, op, rules.pop(SUM))
        else:
            lowering.add_kernel(op)
        floats = [v for v in reads if dtype_name(v) in ("fp16", "fp32")]
        for var in halves:
            for kernel, rule in rules.items():
                result = lowering.plan.add_value(var.shape, "float16")
                given, operands = [lowering.values[var]], []
                if kernel == "anex_overflow":
                    given.append(_constant(lowering, rule))
                    operands = [lowering.value(v) for v in floats]
                lowering.plan.add_op(kernel, op.name, given, operands, [result])
                lowering.values[var] = result
        if index is not None:
            self._add_indices(lowering, op, index)

    def _add_indices(self, lowering: Lowering, op: Operation, rule: Rule) -> None:
        self.rules[INDEX, op.name] = (op.op_type, rule)
        for var in op.outputs:
            if (dtype := dtype_name(var)) in ("int32", "uint16"):
                result = lowering.plan.add_value(var.shape, dtype)
                lowering.plan.add_op(INDEX, op.name, [lowering.values[var], _constant(lowering, rule)], [], [result])
                lowering.values[var] = result

    def _add_sum(self, lowering: Lowering, op: Operation, rule: Rule) -> None:
        (var,), axes = op.outputs, op.inputs.get("axes")
        result = lowering.plan.add_value(var.shape, "float16")
        given = [lowering.value(op.inputs["x"]), LEFT_OUT if axes is None else lowering.value(axes)]
        mean = lowering.plan.add_constant(np.array(op.op_type == "reduce_mean"))
        lowering.plan.add_op(SUM, op.name, [*given, _constant(lowering, rule), mean], [], [result])
        lowering.values[var] = result

    def warn(self, plan: _native.Plan) -> None:
        """An ``AneWarning`` for each node that changed something since the last call of this."""
        try:
            crossings = plan.take_crossings()
        except ClosedError:
            return
        for kernel, name, count, most in crossings:
            op_type, rule = self.rules[kernel, name]
            crossing = Crossing(op_type, name, kernel, count, most, rule)
            warning = AneWarning(
                f"ane_numerics: {op_type} {name!r}: {crossing.happened}: {rule.statement} "
                f"([{rule.id}] on {chips(rule.chips)}; {', '.join(rule.source)}); {rule.fix}"
            )
            warning.crossing = crossing
            warnings.warn(warning, stacklevel=_outside())


def _outside() -> int:
    """The ``stacklevel`` that blames the line that called anex, however deep: a run may be a step of another."""
    frame, level = sys._getframe(1), 1
    while frame.f_back is not None and str(frame.f_globals.get("__name__")).partition(".")[0] == PACKAGE:
        frame, level = frame.f_back, level + 1
    return level


def _constant(lowering: Lowering, rule: Rule) -> int:
    assert rule.cliff is not None
    return lowering.plan.add_constant(np.float32(rule.cliff.limit).reshape(()))


class Watched:
    """A plan whose runs warn of what they met."""

    def __init__(self, plan: _native.Plan, model: Model) -> None:
        self.plan, self.model = plan, model

    def run(self, arguments: tuple[Any, ...], out: Any = None) -> Any:
        result = self.plan.run(arguments, out)
        self.model.warn(self.plan)
        return result

    def begin(self, arguments: tuple[Any, ...], out: Any = None) -> Pending:
        return _Pending(self, self.plan.begin(arguments, out))

    def nodes(self) -> Sequence[tuple[str, str, int]]:
        return self.plan.nodes()

    def profile(self, arguments: tuple[Any, ...], out: Any) -> Sequence[float]:
        seconds = self.plan.profile(arguments, out)
        self.plan.take_crossings()  # told of the call before
        return seconds

    def stats(self) -> Mapping[str, Any]:
        return self.plan.stats()

    def close(self) -> None:
        self.plan.close()


class _Pending:
    def __init__(self, watched: Watched, submission: _native.Submission) -> None:
        self.watched, self.submission = watched, submission

    def run(self) -> Any:
        result = self.submission.run()
        self.watched.model.warn(self.watched.plan)
        return result
