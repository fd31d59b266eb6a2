"""Where each op of a program runs, and why."""

from __future__ import annotations

import itertools
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .. import devices, passes
from .._coremltools import coremltools
from ..cost.chips import Chip
from ..cost.chips import chip as chip_named
from ..cost.model import Model, path_of
from ..cost.program import Cost, cost, operations, port_bytes
from ..errors import ArgumentError, UnsupportedError
from ..load import from_file, from_mil
from ..ops import Finding, Verdict, ane_findings, dtype_name, verdict
from ..ops.record import is_list
from ..program import Program as Compiled
from .advice import advice
from .catalogue import PROGRAM
from .measured import Known, of_this_machine, preferred
from .report import ON_ANE, Explanation, OpPlacement, Segment, Transfers, speaks_against

if TYPE_CHECKING:
    from coremltools.converters.mil.mil import Operation, Program, Var

UNITS = {"ALL": ("gpu", "cpu"), "CPU_AND_NE": ("cpu",)}
# Ops about control, lists and shapes, which no GPU of Core ML runs either.
HOST_ONLY = ("cond", "while_loop", "call", "shape", "list_", "make_list", "classify", "custom", "non_zero")


def explain(
    model: Any, *, device: str = ON_ANE, chip: str = "M4", units: str = "CPU_AND_NE", path: str = "private",
    function: str = "", weights: str | os.PathLike[str] | None = None, fitted: Model | None = None,
    inputs: Mapping[str, Any] | None = None, contested: bool = False,
) -> Explanation:  # fmt: skip
    """Which ops of ``model`` run on ``device``, why the others do not, and what the program is predicted to take.

    ``model``: a MIL program, an ``anex.Program``, a torch module with the ``inputs`` that ``from_torch`` takes, MIL
    text, or the path of a ``.mlpackage``, ``.mlmodelc`` or MIL text, whose ``weights`` need not be there.
    ``chip``: such as "M4 Max" or "h16g". ``units``: what runs what the engine does not, "ALL" (GPU, then CPU) or
    "CPU_AND_NE". ``path``: the way into the engine: "private", as ``anex.compile`` takes, with its rewriting passes;
    "e5rt" or "coreml", without. Only rules that are well-founded move
    an op off the engine; contested ones are notes, unless ``contested`` lets them decide too.
    For device="cpu" the objections are the CPU engine's. What ``anex probe`` found on this machine goes before what
    was published, where ``chip`` is of its family.

    >>> @anex.graph(x=(1, 4, 1, 8))
    ... def program(x):
    ...     return mb.relu(x=x, name="y")
    >>> anex.explain(program, chip="M1")["y"].unit
    'ane'
    """
    where = chip_named(chip)
    path_of(path)
    if not where.known:
        raise ArgumentError(f"chip {chip!r} is no Apple chip; such as 'M4', 'M5 Max', 'A18 Pro' or 'h16g'")
    if units not in UNITS:
        raise ArgumentError(f"units {units!r} is none of {', '.join(UNITS)}")
    program = program_of(model, function, weights, inputs)
    target = devices.get(device)
    predicted = _predicted(program, where, path, function, fitted)
    with coremltools():
        chosen = program.functions.get(function or "main") or next(iter(program.functions.values()))
        ops = list(operations(chosen))
        on_ane = target.name == ON_ANE
        known = of_this_machine(where, path) if on_ane else {}
        of = _ane(where, path, units, contested, known) if on_ane else _other(target)
        ms = {id(op): each for op, each in zip(ops, predicted.ops, strict=True)} if predicted else {}
        placed = [_place(op, of, ms.get(id(op))) for op in ops]
        transfers = _transfers(ops, placed)
        notes = _program_notes(chosen, where, path, known) if on_ane else ()
    found = Explanation(
        target.name, where.name, units, tuple(placed), _segments(placed), transfers, predicted, (), notes, contested
    )
    return replace(found, advice=tuple(advice(found)))


def explain_op(name: str, chip: str = "M4") -> Verdict:
    """Whether the engine of ``chip`` takes a MIL op at all, by its name: every source's word, and the way out.

    >>> explain_op("lstm", "M1").taken, explain_op("relu", "M5").taken, explain_op("concat").taken
    ('no', 'yes', 'contested')
    """
    where = chip_named(chip)
    if not where.known:
        raise ArgumentError(f"chip {chip!r} is no Apple chip; such as 'M4', 'M5 Max', 'A18 Pro' or 'h16g'")
    return verdict(name, where.family)


def program_of(
    model: Any, function: str = "", weights: str | os.PathLike[str] | None = None,
    inputs: Mapping[str, Any] | None = None,
) -> Program:  # fmt: skip
    """The MIL program of whatever ``explain`` takes."""
    if isinstance(model, str) and ("program(" in model or "\n" in model):
        return from_mil(model, weights, function or None)
    if isinstance(model, (str, Path)):
        return from_file(model, function or None, weights, zeros=True)
    if isinstance(model, Compiled):
        return model.source
    if type(model).__module__.partition(".")[0] == "torch" or any(
        base.__module__.startswith("torch.nn") for base in type(model).__mro__
    ):
        from ..torch_frontend import from_torch

        if not inputs:
            raise ArgumentError("a torch module needs inputs=, such as inputs={'x': (1, 3, 224, 224)}")
        return from_torch(model, **inputs)
    if not hasattr(model, "functions"):
        raise ArgumentError(f"{type(model).__name__} is no MIL program, anex.Program, torch module or path of a model")
    found: Program = model
    return found


def _predicted(program: Program, chip: Chip, path: str, function: str, fitted: Model | None) -> Cost | None:
    """None where the program has nothing with a known cost."""
    try:
        return cost(program, chip, path=path, model=fitted, function=function)
    except UnsupportedError:
        return None


Placed = tuple[str, tuple[Finding, ...], tuple[str, ...]]
"""The unit, what the rules found, and why it is not the one asked for."""


def _program_notes(function: Any, chip: Chip, path: str, known: Known) -> tuple[Finding, ...]:
    """What the rules about whole programs say."""
    found = ((rule, rule.check(function, chip.family)) for rule in PROGRAM
             if chip.family in rule.chips and path in rule.path)  # fmt: skip
    return tuple(preferred(Finding(rule, text, "program", "main"), known) for rule, text in found if text is not None)


def _ane(chip: Chip, path: str, units: str, contested: bool, known: Known) -> Callable[[Operation], Placed]:
    # anex rewrites what it compiles itself; Core ML gives e5rt's compiler what the model has
    cures = passes.chosen(None, chip.family) if path == "private" else ()
    paths = ("e5rt", "coreml") if path == "coreml" else (path,)

    def place(op: Operation) -> Placed:
        each = (finding for way in paths for finding in ane_findings(op, chip.family, cures=cures, path=way))
        findings = tuple({finding.rule.id: preferred(finding, known) for finding in each}.values())
        reasons = tuple(
            finding.text for finding in findings if finding.refuses or (contested and speaks_against(finding))
        )
        return (_fallback(op, units) if reasons else ON_ANE), findings, reasons

    return place


def _other(device: devices.Device) -> Callable[[Operation], Placed]:
    objections = device.objections(device.options())

    def place(op: Operation) -> Placed:
        reasons = tuple(objections(op))
        return ("none" if reasons else device.name), (), reasons

    return place


def _fallback(op: Operation, units: str) -> str:
    """Which other unit runs it: the GPU computes with floating tensors of fixed shape."""
    kinds = {dtype_name(var) for var in op.outputs}
    first = UNITS[units][0]
    floating = all(kind.startswith("fp") for kind in kinds) and bool(kinds)
    return first if floating and not op.op_type.startswith(HOST_ONLY) else "cpu"


def _place(op: Operation, of: Callable[[Operation], Placed], estimate: Any) -> OpPlacement:
    unit, findings, reasons = of(op)
    against = {finding.rule.confidence for finding in findings if speaks_against(finding) and not finding.refuses}
    likelihood = "sure" if reasons or not against else "likely" if "medium" in against else "contested"
    out = op.outputs[0] if op.outputs else None
    shape = () if out is None or is_list(out) else out.shape or ()
    return OpPlacement(
        op.name, op.op_type, tuple(map(str, shape)), dtype_name(out) if out is not None else "", unit, likelihood,
        findings, reasons, estimate.ms if estimate else 0.0, estimate.flops if estimate else 0.0,
    )  # fmt: skip


def _segments(placed: Sequence[OpPlacement]) -> tuple[Segment, ...]:
    found = []
    for unit, group in itertools.groupby(placed, key=lambda op: op.unit):
        ops = list(group)
        found.append(Segment(unit, ops[0].name, ops[-1].name, len(ops), sum(op.ms for op in ops)))
    return tuple(found)


def _transfers(ops: Sequence[Operation], placed: Sequence[OpPlacement]) -> Transfers:
    """Each tensor once for each other unit that reads it."""
    units = {id(op): place.unit for op, place in zip(ops, placed, strict=True)}
    crossing: dict[tuple[int, str], tuple[str, Var]] = {}
    for op, place in zip(ops, placed, strict=True):
        for argument in op.inputs.values():
            for var in argument if isinstance(argument, (list, tuple)) else (argument,):
                origin = units.get(id(getattr(var, "op", None)))
                if origin is not None and origin != place.unit:
                    crossing[id(var), place.unit] = (f"{origin} to {place.unit}", var)
    between: dict[str, int] = {}
    for way, _ in crossing.values():
        between[way] = between.get(way, 0) + 1
    return Transfers(len(crossing), sum(port_bytes(var) for _, var in crossing.values()), between)
