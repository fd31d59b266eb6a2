"""Ranges of activations, measured on the CPU engine: coremltools' own calibration needs Core ML, and so macOS.

Its passes then write ``quantize`` and ``dequantize`` into the program, as they do there. Unlike in coremltools 9.0,
whose statistics forget all samples but the last, a range is that of every sample.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from .._coremltools import coremltools
from ..comparison.inputs import checked, drawn, specs
from ..comparison.runs import BUDGET, Side, is_value, operands, parts
from ..devices.stepwise import is_static
from ..errors import ArgumentError
from ..ops import dtype_name

if TYPE_CHECKING:
    from coremltools.converters.mil.mil import Function, Program

RANDOM_SAMPLES = 8

Samples = list["dict[str, np.ndarray]"]
Stats = dict[str, "dict[str, float]"]


def samples(function: Function, given: Any, seed: int) -> Samples:
    """Calibration data: a mapping from inputs to arrays, or several; an axis more before an input's own counts them.

    Without any, random inputs by the rule of ``anex.comparison.inputs``.
    """
    if given is None:
        return [drawn(function, seed + i) for i in range(RANDOM_SAMPLES)]
    several: Iterable[Any] = [given] if isinstance(given, Mapping) else given
    found = [checked(each, function) for one in several for each in _split(one, function)]
    if not found:
        raise ArgumentError("calibrate: there is no sample")
    return found


def _split(one: Any, function: Function) -> list[dict[str, Any]]:
    if not isinstance(one, Mapping):
        raise ArgumentError(f"calibrate: {type(one).__name__} is no mapping from inputs to arrays")
    wanted = specs(function)
    arrays = {name: np.asarray(value) for name, value in one.items()}
    stacked = {name: len(a) for name, a in arrays.items() if name in wanted and a.ndim == len(wanted[name].shape) + 1}
    if not stacked:
        return [arrays]
    counts = {*stacked.values()}
    if len(stacked) != len(arrays) or len(counts) != 1:
        raise ArgumentError(
            f"calibrate: some inputs have an axis of samples and others do not, or another number: {stacked}"
        )
    return [{name: a[i] for name, a in arrays.items()} for i in range(counts.pop())]


def ranges(program: Program, data: Samples) -> Stats:
    """The least and the largest value of every floating variable of ``program`` over all samples, by name."""
    side = Side(program)
    found: Stats = {}
    for given in data:
        for part in parts(side.ops, BUDGET):
            wanted = [var for op in part for var in (*operands(op), *op.outputs)]
            wanted = [var for var in wanted if is_value(var) and dtype_name(var).startswith("fp")]
            for name, array in side.values(list(dict.fromkeys(wanted)), given).items():
                low, high = float(array.min()), float(array.max())
                known = found.setdefault(name, {"rmin": low, "rmax": high})
                known["rmin"], known["rmax"] = min(known["rmin"], low), max(known["rmax"], high)
    return found


def quantize_activations(program: Program, config: Any, stats: Stats) -> None:
    """coremltools' three passes, in its order, on ``program`` in place."""
    from coremltools.converters.mil.mil.passes.graph_pass import PassOption
    from coremltools.converters.mil.mil.passes.pass_registry import PASS_REGISTRY
    from coremltools.optimize.coreml.experimental import _post_training_quantization as theirs

    concats = [
        [*(var.name for var in op.inputs["values"]), op.outputs[0].name]
        for function in program.functions.values()
        for op in function.operations
        if op.op_type == "concat" and any(var.name in stats for var in op.outputs)
    ]
    theirs._adjust_concat_surrounding_activation_stats(concats, stats)
    with coremltools():
        for name in ("insert_prefix_quantize_dequantize_pair", "insert_suffix_quantize_dequantize_pair"):
            each = PASS_REGISTRY[f"compression::{name}"]
            each.set_options([PassOption("config", config), PassOption("activation_stats", stats)])
            each.apply(program)
        PASS_REGISTRY["common::dequantize_quantize_pair_elimination"].apply(program)


def cannot(program: Program, stats: Stats, types: Sequence[str]) -> list[str]:
    """Names of the ops that coremltools' passes would take and must not: integers, unmeasured or infinite values."""
    found = []
    for function in program.functions.values():
        outer = {*function.operations}
        for op in _all(function):
            if op.op_type not in types:
                continue
            floats = [var for var in (op.inputs.get("x"), op.inputs.get("y"), *op.outputs) if var is not None]
            if op not in outer or not all(_is_measured(var, stats) for var in floats):
                found.append(op.name)
    return found


def _all(block: Any) -> Iterable[Any]:
    for op in block.operations:
        yield op
        for inner in op.blocks:
            yield from _all(inner)


def _is_measured(var: Any, stats: Stats) -> bool:
    if not is_value(var) or not var.shape or not is_static(var) or not dtype_name(var).startswith("fp"):
        return False
    return var.val is not None or (var.name in stats and all(np.isfinite([*stats[var.name].values()])))
