"""What the Neural Engine has against an op, and how a user hears of it."""

from __future__ import annotations

import warnings
from collections.abc import Collection, Iterable, Iterator
from typing import TYPE_CHECKING

from ..errors import AneWarning
from .acceptance import refused
from .foreign import rules_of
from .record import OPS
from .rule import ABOUT_THE_OP, FAMILIES, Cliff, Finding, Rule, family
from .rules import GENERIC, is_static, moving

if TYPE_CHECKING:
    from coremltools.converters.mil.mil import Block, Operation, Program

# Passes that anex.passes.prepare applies unless switched off; a test compares.
CURES = frozenset({
    "conv_bias", "fp16_compute", "gelu_tanh", "rewrite_refused", "sdpa_decompose", "softmax_decompose",
})  # fmt: skip
UNKNOWN = refused("is not among the ops anyone ran on the Neural Engine", source=("no record",))


def ane_findings(op: Operation, chip: str, *, cures: Collection[str] = CURES, path: str = "private") -> list[Finding]:
    """Every rule of the Neural Engine that ``op`` comes up against on ``chip`` (``"h13g"`` .. ``"h17s"``).

    ``cures``: the passes that will still run; findings they rewrite neither refuse nor warn. Give
    ``()`` for a program that is prepared already. ``path``: private, e5rt or coreml. Ops that were
    computed when the program was built have none.
    """
    if op.op_type == "const" or (op.outputs and all(var.val is not None for var in op.outputs)):
        return []
    on = family(chip)
    generic: tuple[Rule, ...] = () if op.op_type.startswith("constexpr_") else GENERIC
    own = rules_of(op.op_type) or (UNKNOWN,)
    if not all(map(is_static, moving(op))):  # rules about extents look at fixed shapes
        own = tuple(rule for rule in own if rule.id in ABOUT_THE_OP)
    found = []
    for rule in (*own, *generic):
        if on in rule.chips and path in rule.path and (text := rule.check(op, on)) is not None:
            found.append(Finding(rule, text, op.op_type, op.name, bool(rule.cure) and rule.cure in cures))
    return found


def cliffs(op: Operation, chip: str | None) -> list[Rule]:
    """The rules of values that ``op`` is under on ``chip``, or, None, on any chip; one for each cliff."""
    on = {*FAMILIES} if chip is None else {family(chip)}
    own = OPS[op.op_type].ane if op.op_type in OPS else ()
    found: dict[Cliff, Rule] = {}
    for rule in (*own, *GENERIC):
        cliff = rule.cliff
        if cliff is not None and not on.isdisjoint(rule.chips) and (cliff.where is None or cliff.where(op)):
            known = found.get(cliff, rule).chips + rule.chips
            found[cliff] = found.get(cliff, rule).on(*(each for each in FAMILIES if each in known))
    return list(found.values())


def program_findings(program: Program, chip: str, *, cures: Collection[str] = CURES) -> list[Finding]:
    """The findings of every op of every function, in order, nested blocks included."""
    return [f for function in program.functions.values() for f in function_findings(function, chip, cures=cures)]


def function_findings(function: Block, chip: str, *, cures: Collection[str] = CURES) -> list[Finding]:
    """The same of one function."""

    def walk(block: Block) -> Iterator[Finding]:
        for op in block.operations:
            yield from ane_findings(op, chip, cures=cures)
            for inner in op.blocks:
                yield from walk(inner)

    return list(walk(function))


def warn_contested(findings: Iterable[Finding], stacklevel: int = 1) -> None:
    """An ``AneWarning`` for each rule and op type among ``findings`` that warns, the first op as example.

    ``stacklevel`` as ``warnings.warn`` has it: 1 blames the line that calls this.
    """
    told: dict[tuple[str, str], list[Finding]] = {}
    for finding in findings:
        if finding.warns:
            told.setdefault((finding.rule.id, finding.op_type), []).append(finding)
    for first, *others in told.values():
        more = f" (and {len(others)} more)" if others else ""
        warnings.warn(f"device='ane': {first}{more}", AneWarning, stacklevel=stacklevel + 1)
