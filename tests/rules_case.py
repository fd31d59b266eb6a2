"""Uses of single ops, and what the Neural Engine has against them."""

from __future__ import annotations

from typing import Any

import anex
from anex import mb
from anex.ops import ane_findings

CHIPS = ("h13g", "h14g", "h15g", "h16g", "h17s")


def op_of(op_type: str, /, consts: dict[str, Any] | None = None, **inputs: Any) -> Any:
    """One use of an op in a program of its own; arrays and numbers in ``consts``."""
    scope = {"consts": consts or {}, "op_type": op_type, "mb": mb}
    names = list(inputs)
    passed = ", ".join(f"{name}={name}" for name in names)
    exec(f"def one({', '.join(names)}):\n    return getattr(mb, op_type)({passed}, **consts, name='out')", scope)
    program = anex.graph(**inputs)(scope["one"])
    return next(op for op in program.functions["main"].operations if op.op_type == op_type)


def ids(op: Any, chip: str = "h16g", **how: Any) -> set[str]:
    """The rules found, those that only inform left out."""
    return {f.rule.id for f in ane_findings(op, chip, **how) if f.rule.severity != "I"}


def refusals(op: Any, chip: str = "h16g", **how: Any) -> set[str]:
    return {f.rule.id for f in ane_findings(op, chip, **how) if f.refuses}
