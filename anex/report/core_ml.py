"""Core ML's own plan of a model, ``MLComputePlan``, through coremltools: on macOS alone, beside what anex expects."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .._coremltools import coremltools
from ..errors import DeviceError, Error, UnsupportedError
from ..store import save

if TYPE_CHECKING:
    from coremltools.converters.mil.mil import Program

NEEDS_MACOS = "Core ML's own plan (MLComputePlan) needs macOS 14.4 or later"
# What the devices' classes are called, wherever they come from.
UNITS = {"NeuralEngine": "ane", "GPU": "gpu", "CPU": "cpu"}

Load = Callable[[Path, Any], Any]
"""(a .mlpackage or .mlmodelc, coremltools.ComputeUnit) to a ``coremltools.models.compute_plan.MLComputePlan``."""


@dataclass(frozen=True)
class PlannedOp:
    """One op of the plan: ``unit`` that Core ML prefers, those it could use, and its share of the cost, 0 to 1.

    ``index``: in its block, constants counted. ``unit`` is "" and ``weight`` None of constants.
    """

    function: str
    index: int
    name: str
    op: str
    unit: str
    supported: tuple[str, ...]
    weight: float | None


def plan(model: Program, path: Path | None, units: str, load: Load | None = None) -> tuple[PlannedOp, ...]:
    """The plan of ``model``, which stands at ``path`` if it was read from a file.

    ``load`` is coremltools' own, after compiling what is not compiled; ``UnsupportedError`` where it cannot work, as on
    Linux.
    """
    with coremltools() as ct, tempfile.TemporaryDirectory(prefix="anex-") as folder:
        wanted = ct.ComputeUnit.ALL if units == "ALL" else ct.ComputeUnit.CPU_AND_NE
        load = load or _loader(ct, Path(folder, "model.mlmodelc"))
        if path is None or path.suffix not in (".mlpackage", ".mlmodelc"):
            path = Path(folder, "model.mlpackage")
            save(model, path)
        try:
            return _ops(load(path, wanted))
        except Error:
            raise
        except Exception as error:  # whatever the framework says
            raise DeviceError(f"Core ML gives no plan of this model: {error}") from error


def _loader(ct: Any, compiled: Path) -> Load:
    from coremltools.models import compute_plan

    if compute_plan._MLModelProxy is None:
        raise UnsupportedError(NEEDS_MACOS)

    def load(path: Path, units: Any) -> Any:
        if path.suffix == ".mlpackage":
            path = Path(ct.models.utils.compile_model(str(path), str(compiled)))
        return compute_plan.MLComputePlan.load_from_path(str(path), units)

    return load


def _ops(found: Any) -> tuple[PlannedOp, ...]:
    program = found.model_structure.program
    if program is None:
        raise UnsupportedError("Core ML sees no ML program in this model")
    ops = []

    def walk(function: str, block: Any) -> None:
        for i, op in enumerate(block.operations):
            usage = found.get_compute_device_usage_for_mlprogram_operation(op)
            cost = found.get_estimated_cost_for_mlprogram_operation(op)
            name = op.outputs[0].name if op.outputs else op.operator_name
            unit = _unit(usage.preferred_compute_device) if usage and cost else ""
            supported = tuple(map(_unit, usage.supported_compute_devices)) if usage else ()
            ops.append(PlannedOp(function, i, name, op.operator_name, unit, supported, cost.weight if cost else None))
            for inner in op.blocks:
                walk(function, inner)

    for name, function in sorted(program.functions.items()):
        walk(name, function.block)
    return tuple(ops)


def _unit(device: Any) -> str:
    kind = type(device).__name__
    return next((unit for word, unit in UNITS.items() if word in kind), kind)
