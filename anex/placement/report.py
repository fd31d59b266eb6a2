"""What ``explain`` finds, as values; ``print`` shows them as ``text`` does."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from ..cost.program import Cost
from ..errors import ArgumentError
from ..ops import Finding

ON_ANE = "ane"


def speaks_against(finding: Finding) -> bool:
    """Whether it says that the op fails on the engine, or that Core ML puts it elsewhere, however sure it is."""
    return finding.rule.severity in "EF" and not finding.cured and not finding.lifted


@dataclass(frozen=True)
class OpPlacement:
    """One op: where it is expected to run, and everything a rule has to say about that.

    ``likelihood``: "sure", "likely" where a rule of medium confidence speaks against the engine, "contested" where
    only sources that contradict each other do. ``ms``: its share of the predicted time, were it on the engine.
    """

    name: str
    op: str
    shape: tuple[str, ...]
    dtype: str
    unit: str
    likelihood: str
    findings: tuple[Finding, ...]
    reasons: tuple[str, ...]
    ms: float
    flops: float

    @property
    def objections(self) -> list[str]:
        """Why it is not on the device asked for; empty when it is."""
        return list(self.reasons)

    @property
    def why(self) -> str:
        """What was found against it, in short."""
        return next((finding.found for finding in self.findings if finding.refuses), "".join(self.reasons[:1]))

    @property
    def notes(self) -> list[str]:
        """What the rules say beside."""
        return [finding.text for finding in self.findings if not finding.refuses]


@dataclass(frozen=True)
class Segment:
    """Ops that follow each other on one unit."""

    unit: str
    first: str
    last: str
    count: int
    ms: float


@dataclass(frozen=True)
class Transfers:
    """Tensors that cross from one unit to another."""

    count: int
    bytes: float
    between: Mapping[str, int]


@dataclass(frozen=True)
class Explanation:
    """``print`` it, index it by the name of an op or of an output, or keep ``to_json``.

    ``residency``: of 1, the ops on the device asked for; ``residency_by_cost``: their share of the predicted time;
    ``residency_if_contested``: what would be left if every rule held that any source speaks for.
    ``notes``: rules about the program as a whole. ``contested``: whether such rules decided here.
    """

    device: str
    chip: str
    units: str
    ops: tuple[OpPlacement, ...]
    segments: tuple[Segment, ...]
    transfers: Transfers
    cost: Cost | None
    advice: tuple[str, ...]
    notes: tuple[Finding, ...] = ()
    contested: bool = False

    @property
    def residency_if_contested(self) -> float:
        if not self.ops or self.device != ON_ANE:
            return self.residency
        left = sum(op.unit == self.device and not any(map(speaks_against, op.findings)) for op in self.ops)
        return left / len(self.ops)

    @property
    def residency(self) -> float:
        return sum(op.unit == self.device for op in self.ops) / len(self.ops) if self.ops else 1.0

    @property
    def residency_by_cost(self) -> float:
        total = sum(op.ms for op in self.ops)
        return sum(op.ms for op in self.ops if op.unit == self.device) / total if total else self.residency

    @property
    def first_off(self) -> OpPlacement | None:
        """The first op that leaves the device."""
        return next((op for op in self.ops if op.unit != self.device), None)

    def __getitem__(self, name: str) -> OpPlacement:
        for op in self.ops:
            if op.name == name:
                return op
        raise ArgumentError(f"no op is called {name!r}; there are {', '.join(op.name for op in self.ops[:20])}")

    def __str__(self) -> str:
        from .text import lines

        return "\n".join(lines(self))

    def to_json(self) -> str:
        import json

        return json.dumps(self.as_dict(), indent=1)

    def as_dict(self) -> dict[str, Any]:
        """Everything, in plain values."""
        from ..cost.text import as_json

        return {
            "format": "anex.explanation",
            "version": 1,
            "simulated": True,
            "device": self.device,
            "chip": self.chip,
            "units": self.units,
            "residency": self.residency,
            "residency_by_cost": self.residency_by_cost,
            "residency_if_contested": self.residency_if_contested,
            "contested_rules_decide": self.contested,
            "first_off": self.first_off.name if self.first_off else None,
            "transfers": {"count": self.transfers.count, "bytes": self.transfers.bytes,
                          "between": dict(self.transfers.between)},
            "segments": [vars(segment) for segment in self.segments],
            "advice": list(self.advice),
            "notes": [finding_dict(each) for each in self.notes],
            "predicted": {k: v for k, v in as_json([self.cost])[0].items() if k != "ops"} if self.cost else None,
            "ops": [_op(op) for op in self.ops],
        }  # fmt: skip


def _op(op: OpPlacement) -> dict[str, Any]:
    found = {name: value for name, value in vars(op).items() if name not in ("findings", "shape", "reasons")}
    return found | {
        "shape": list(op.shape),
        "objections": list(op.reasons),
        "findings": [finding_dict(each) for each in op.findings],
    }


def finding_dict(finding: Finding) -> dict[str, Any]:
    from .catalogue import names

    rule = finding.rule
    return {
        "rule": rule.id, "names": list(names(rule.id, finding.op_type)), "severity": rule.severity,
        "found": finding.found, "statement": rule.statement,
        "chips": list(rule.chips), "paths": list(rule.path), "os": rule.os, "sources": list(rule.source),
        "confidence": rule.confidence, "fix": rule.fix, "refuses": finding.refuses, "cured_by": rule.cure,
        "cured": finding.cured,
    }  # fmt: skip
