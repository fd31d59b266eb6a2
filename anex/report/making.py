"""``anex.profile``: everything the report says, from one model."""

from __future__ import annotations

import os
import textwrap
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from .. import devices
from .._coremltools import coremltools
from ..cost.chips import chip as chip_named
from ..cost.model import with_calibration
from ..cost.program import Cost
from ..cost.program import cost as predict
from ..errors import ArgumentError, Error, UnsupportedError
from ..load import from_file
from ..miltools.stats import ops_in_file, weights_of
from ..ops.record import stored_bytes, tensors
from ..placement.explaining import explain
from ..program import Program as Compiled
from ..program import compile
from . import core_ml
from .report import Breakdown, Counts, Report, breakdown
from .sequential import MIB, Estimate, entries, estimates

if TYPE_CHECKING:
    from coremltools.converters.mil.mil import Function, Operation, Program

    from ..cost.model import Model
    from ..placement import Explanation
    from ..profiling import Profile
    from ..spec import Spec

SENTENCE = 300  # characters of why nothing was measured
THRESHOLD = 0.005  # of the cost, from which an op is listed


def profile(
    model: Any, *, chip: str | Sequence[str] = "M4", units: str = "CPU_AND_NE", path: str = "private",
    device: str | None = None, run: bool = True, repeat: int | None = None, function: str = "",
    weights: str | os.PathLike[str] | None = None, calibration: str | os.PathLike[str] | None = None,
    threshold: float = THRESHOLD, load_plan: core_ml.Load | None = None,
) -> Report:  # fmt: skip
    """The published profiler's report of ``model``: predicted for the Neural Engine, measured on the device here.

    ``model``: a MIL program, or the path of a ``.mlpackage``, ``.mlmodelc`` or MIL text. ``chip``: one or several to
    predict for; the first is the report's. ``units``, ``path``, ``function`` and ``weights`` as in ``anex.explain``,
    ``calibration`` as in ``anex.cost.predict``. ``device``: what is measured, by default "ane" where there is one and
    "cpu" elsewhere; ``repeat`` times, or 10, 3 or once, by latency. Inputs are made up: numbers between -1 and 1,
    integers of 0; weights of MIL text that are not there are 0. ``run=False`` measures nothing. ``threshold``: the
    share of the cost from which an op is listed. ``load_plan``: what gives Core ML's own plan in place of coremltools.
    What cannot be measured or predicted is said in the report; errors are those of ``anex.explain``.

    >>> @anex.graph(x=(1, 8, 4, 4))
    ... def program(x):
    ...     return mb.conv(x=x, weight=np.zeros((16, 8, 1, 1), np.float16), name="y")
    >>> report = anex.profile(program, chip="M5", run=False)
    >>> report.counts.total, report.counts.const, dict(report.counts.by_unit)
    (7, 6, {'ane': 1})
    """
    chips = [chip] if isinstance(chip, str) else list(chip)
    if not chips:
        raise ArgumentError("chip=[]: name one to predict for")
    for name in chips:
        if not chip_named(name).known:
            raise ArgumentError(f"chip {name!r} is no Apple chip; such as 'M4', 'M5 Max', 'A18 Pro' or 'h16g'")
    if device is not None:
        devices.get(device)
    file = Path(model) if isinstance(model, (str, Path)) else None
    program = from_file(file, function or None, weights, zeros=True) if file is not None else model
    fitted = with_calibration(None if calibration is None else Path(calibration))
    placed = explain(program, chip=chips[0], units=units, path=path, function=function, fitted=fitted)
    with coremltools():
        name = function if function in program.functions else "main"
        chosen = program.functions.get(name) or next(iter(program.functions.values()))
        priced = list(entries(chosen))
        found = [each for each in estimates(priced) if each is not None]
        counts = _counts(chosen, placed, priced)
        weight_mib = sum(map(stored_bytes, weights_of(chosen))) / MIB
    costs = _costs(program, placed, chips, path, function, fitted)
    measured, why_not = _measured(program, chosen.name, device, repeat) if run else (None, "not asked for")
    planned, no_plan = _planned(program, file, units, load_plan)
    return Report(
        file.name if file is not None else "a MIL program",
        _size(file, weights) if file is not None else None,
        chosen.opset_version.name.lower() if chosen.opset_version else "",
        counts,
        weight_mib,
        tuple(found),
        _sequential(found),
        placed,
        costs,
        _predicted(costs[0]) if costs else None,
        fitted.parameters.roofs(chip_named(chips[0])),
        measured,
        _of_profile(measured) if measured else None,
        why_not,
        planned,
        no_plan,
        threshold,
    )


def _counts(function: Function, placed: Explanation, priced: Sequence[Operation]) -> Counts:
    ops, ms = dict[str, int](), dict[str, float]()
    for op in placed.ops:
        ops[op.unit] = ops.get(op.unit, 0) + 1
        ms[op.unit] = ms.get(op.unit, 0.0) + op.ms
    total, all_ms = ops_in_file(function), sum(ms.values())
    alike = {(op.op_type, *(var.sym_type for var in (*tensors(op), *op.outputs))) for op in priced}
    return Counts(
        total, total - len(placed.ops), ops, {unit: each / all_ms if all_ms else 0.0 for unit, each in ms.items()},
        len(priced), len(alike),
    )  # fmt: skip


def _sequential(found: Sequence[Estimate]) -> Breakdown:
    return breakdown("one core", False, ((each.op, each.ms, each.logged, each.mib, each.bound) for each in found))


def _costs(
    program: Program, placed: Explanation, chips: Sequence[str], path: str, function: str, fitted: Model
) -> tuple[Cost, ...]:
    if placed.cost is None:
        return ()
    others = (predict(program, chip_named(name), path=path, model=fitted, function=function) for name in chips[1:])
    return (placed.cost, *others)


def _predicted(cost: Cost) -> Breakdown:
    """Of the chip; what starting the program and its copies take is an op of its own, so that all is there."""
    p = cost.prediction
    around = p.ms - sum(op.ms for op in cost.ops)
    rows = [(op.op, op.ms, op.flops / 1e9, op.bytes / MIB, op.bound) for op in cost.ops]
    return breakdown(cost.chip, False, [*rows, ("(start and copies)", max(0.0, around), 0.0, 0.0, "dispatch")])


def _measured(program: Program, name: str, device: str | None, repeat: int | None) -> tuple[Profile | None, str]:
    """On the device, or why not."""
    target = device or ("ane" if "ane" in devices.available() else "cpu")
    try:
        with compile(program, device=target) as compiled:
            part: Compiled = compiled.functions.get(name, compiled)
            state = {"state": part.make_state()} if part.states else {}
            inputs = made_up(part.inputs)
            return part.profile(**state, **inputs, repeat=repeat), ""
    except Error as error:
        why = textwrap.shorten(str(error) or type(error).__name__, SENTENCE, placeholder=" ...")
        return None, f"device={target!r}: {why}"


def made_up(specs: Any) -> dict[str, Any]:
    """An array for each input: numbers between -1 and 1, integers of 0, True; the same ones every time."""
    random = np.random.default_rng(0)

    def of(spec: Spec) -> Any:
        if spec.dtype.kind == "f":
            return random.uniform(-1, 1, spec.shape).astype(spec.dtype)
        return np.full(spec.shape, spec.dtype.kind == "b", spec.dtype)

    return {name: of(spec) for name, spec in specs.items()}


def _of_profile(found: Profile) -> Breakdown:
    rows = ((row.op, row.seconds * 1e3, row.flops / 1e9, row.bytes / MIB, row.bound) for row in found.rows)
    return breakdown(found.device, True, rows)


def _planned(
    program: Program, file: Path | None, units: str, load: core_ml.Load | None
) -> tuple[tuple[core_ml.PlannedOp, ...], str]:
    try:
        return core_ml.plan(program, file, units, load), ""
    except UnsupportedError as error:
        return (), str(error)
    except Error as error:
        return (), f"none: {error}"


def _size(file: Path, weights: str | os.PathLike[str] | None) -> int:
    """Bytes of all files of the model."""
    places = [file, *([Path(weights)] if weights is not None else [])]
    if not file.is_dir() and (beside := file.parent / "weights").is_dir() and weights is None and file.suffix == ".mil":
        places.append(beside)
    files = (each for place in places for each in (place.rglob("*") if place.is_dir() else [place]))
    return sum(each.stat().st_size for each in files if each.is_file())
