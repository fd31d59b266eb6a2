"""An explanation as text."""

from __future__ import annotations

from collections.abc import Iterator

from ..cost.text import summary
from ..ops import Finding
from .catalogue import names
from .report import ON_ANE, Explanation, OpPlacement

SHOWN = 30  # ops off the device, segments, notes
NAME = 36


def lines(found: Explanation, everything: bool = False) -> Iterator[str]:
    off = [op for op in found.ops if op.unit != found.device]
    yield (
        f"device={found.device!r} on {found.chip}, units={found.units!r}: simulated from rules"
        f"{', contested ones too' if found.contested else ''}, nothing was run"
        if found.device == ON_ANE
        else f"device={found.device!r}: from its own objections, nothing was run"
    )
    yield (
        f"residency {found.residency:.1%} of {len(found.ops)} ops, {found.residency_by_cost:.1%} of the predicted "
        f"time; {len(found.segments)} segment(s), {found.transfers.count} transfer(s) of "
        f"{found.transfers.bytes / 2**20:.3g} MiB"
    )
    if found.residency_if_contested < found.residency:
        yield f"  {found.residency_if_contested:.1%} if the rules that sources disagree on held: see the notes"
    if found.cost is not None:
        yield from summary([found.cost])
        yield from (f"note: {note}" for note in found.cost.notes)
    first = found.first_off
    if first is not None:
        yield f"first op to leave: {first.op} {first.name!r}: {first.reasons[0]}"
    yield from (f"* {each}" for each in found.advice)
    if everything or (off and len(found.ops) <= SHOWN):
        yield ""
        yield from table(found.ops)
    elif off:
        yield ""
        yield from table(off[:SHOWN])
        if len(off) > SHOWN:
            yield f"... and {len(off) - SHOWN} more off the device"
    yield from _reasons(off)
    yield from _notes(found)
    if len(found.segments) > 1:
        yield ""
        yield "segments:"
        for segment in found.segments[:SHOWN]:
            yield f"  {segment.unit:<5} {segment.count:>5} ops  {segment.first} .. {segment.last}"
        if len(found.segments) > SHOWN:
            yield f"  ... and {len(found.segments) - SHOWN} more"


def table(ops: tuple[OpPlacement, ...] | list[OpPlacement]) -> Iterator[str]:
    yield f"{'op':<26} {'name':<{NAME}} {'shape':<22} {'dtype':<6} {'unit':<5} {'sure?':<10} rules"
    for op in ops:
        rules = ", ".join(dict.fromkeys(finding.rule.id for finding in op.findings)) or ("" if op.unit else "-")
        shape = "x".join(op.shape)
        yield (
            f"{op.op[:26]:<26} {op.name[:NAME]:<{NAME}} {shape[:22]:<22} {op.dtype:<6} {op.unit:<5} "
            f"{op.likelihood:<10} {rules}"
        )


def _reasons(off: list[OpPlacement]) -> Iterator[str]:
    """Each rule that moves ops, once, with an example."""
    told: dict[str, tuple[str, int]] = {}
    for op in off:
        for finding in op.findings:
            if finding.text in op.reasons:
                text, count = told.get(finding.rule.id, (_named(finding), 0))
                told[finding.rule.id] = text, count + 1
        if not op.findings:
            for reason in op.reasons:
                text, count = told.get(reason, (f"{op.op} {op.name!r}: {reason}", 0))
                told[reason] = text, count + 1
    if told:
        yield ""
        yield "why not:"
    for text, count in told.values():
        yield f"  {count} x {text}"


def _named(finding: Finding) -> str:
    """With the public name of its rule, where it has one."""
    called = ", ".join(names(finding.rule.id, finding.op_type))
    return f"{finding} ({called})" if called else str(finding)


def _notes(found: Explanation) -> Iterator[str]:
    """Each rule that moves nothing, once an op type, with an example."""
    told: dict[tuple[str, str], tuple[str, int]] = {}
    for op in found.ops:
        for finding in op.findings:
            if finding.text not in op.reasons:
                text, count = told.get((finding.rule.id, op.op), (_named(finding), 0))
                told[finding.rule.id, op.op] = text, count + 1
    for finding in found.notes:
        told[finding.rule.id, ""] = _named(finding), 1
    if told:
        yield ""
        yield "notes (they move nothing):"
    for text, count in list(told.values())[:SHOWN]:
        yield f"  {count} x {text}"
    if len(told) > SHOWN:
        yield f"  ... and {len(told) - SHOWN} more"
