"""``anex.verify``."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from .. import devices, passes
from .._coremltools import coremltools
from ..comparison import coreml
from ..comparison.compare import OpDifference, compare, outputs, sides
from ..comparison.inputs import checked, drawn
from ..comparison.metrics import Difference, difference
from ..comparison.runs import BUDGET, Side, is_value, parts
from ..comparison.shapes import fixed
from ..cost.chips import chip as chip_named
from ..devices.info import label
from ..errors import ArgumentError, UnsupportedError
from ..load import default_shapes, from_file
from ..ops import ane_findings, dtype_name
from ..placement import explain
from ..torch_frontend import evaluate, from_torch
from .cliffs import Cliff, Values, constants, crossings, wrong_by_rule
from .constants import DEVICES, REFERENCES
from .report import MAX_ERROR, MAX_ERROR_QUANTIZED, Verification

if TYPE_CHECKING:
    from coremltools.converters.mil.mil import Program


def verify(
    model: Any, *, against: str = "cpu-fp32", device: str | None = None, chip: str = "M4",
    units: str = "CPU_AND_NE", inputs: Mapping[str, Any] | None = None, seed: int = 0, quantize: str | None = None,
    calibrate: Any = None, max_error: float | None = None, min_residency: float | None = None, function: str = "",
    weights: str | os.PathLike[str] | None = None, budget: int = BUDGET, **example: Any,
) -> Verification:  # fmt: skip
    """Compare ``model`` on a device with a reference, op by op, and say where and why they part.

    ``model``: a MIL program, the path of a ``.mlpackage``, ``.mlmodelc`` or MIL text, or a torch module, whose
    ``example`` inputs are those of ``anex.from_torch``.

    ``device``: "ane"; "cpu-ane", the CPU engine with the documented numbers of the engine of ``chip``; "cpu", as
    ``anex.compile`` runs it; "cpu-strict"; or "coreml", on macOS. Without it "ane" where there is one, else "cpu-ane".
    ``against``: "cpu-fp32", the same program in float32 throughout; "cpu-strict", every op rounding to its dtype;
    "torch", what the module itself returns (ops are then compared with "cpu-fp32", submodules with torch);
    "coreml". States are zero.

    ``inputs``: arrays by name, of the program's dtypes or such as convert; without them they are drawn by the rule of
    ``anex.comparison.inputs`` with ``seed``. Inputs of flexible shape take that of what is given, or the default that
    the file names. ``quantize``: a scheme of ``anex.quantize``, applied first, with ``calibrate``; the
    reference stays what it was.

    ``max_error``: of an output, relative (root mean square), 0.01 by default and 0.1 with ``quantize``.
    ``min_residency``: of 1, ops that stay on the engine. Both decide ``exit_code``, and raise nothing.
    ``budget``: bytes of intermediate values held at once.

    >>> @anex.graph(x=(1, 4, 1, 8))
    ... def program(x):
    ...     return mb.exp(x=mb.mul(x=x, y=9.0), name="y")
    >>> found = anex.verify(program, device="cpu-strict", inputs={"x": np.full((1, 4, 1, 8), 1.5)})
    >>> found.first.op, found.first.makes, [cliff.id for cliff in found.cliffs]
    ('exp', True, ['fp16-overflow'])
    """
    _known("against", against, REFERENCES)
    device = device or ("ane" if devices.get("ane").unavailable() is None else "cpu-ane")
    _known("device", device, DEVICES)
    where = chip_named(chip)
    if not where.known:
        raise ArgumentError(f"chip {chip!r} is no Apple chip; such as 'M4', 'M5 Max', 'A18 Pro' or 'h16g'")
    if "coreml" in (against, device):
        coreml.require()
    is_module = not isinstance(model, (str, Path)) and not hasattr(model, "functions")
    if against == "torch" and not is_module:
        raise ArgumentError("against='torch' compares with a torch module: pass the module, not what was made of it")
    if inputs is None and is_module and example and all(hasattr(each, "dtype") and hasattr(each, "__array__")
                                                         for each in example.values()):  # fmt: skip
        inputs = {name: np.asarray(each) for name, each in example.items()}
    program = from_torch(model, **example) if is_module else _program(model, function, weights)
    name = function if function in program.functions else next(iter(program.functions))
    if not is_module and example:
        raise ArgumentError(f"{', '.join(example)}: examples are for torch modules; inputs= takes arrays")

    whole = _fixed(program, name, model, function, inputs)
    name = name if name in whole.functions else "main"
    quantized = None
    tested_program, reference_program = whole, None
    if quantize is not None:
        from ..quantization import quantize as quantized_by

        given_too = inputs if against != "torch" else None
        quantized = quantized_by(whole, quantize, calibrate=calibrate, inputs=given_too, seed=seed, function=name,
                                 errors=False)  # fmt: skip
        tested_program, reference_program = quantized.program, whole
    explanation = explain(program if quantized is None else quantized.program, chip=chip, units=units,
                          function=function if quantized is None else "")  # fmt: skip

    tested, reference = _sides(tested_program, reference_program, name, device, against, where.family)
    given = _given(tested, inputs, seed)
    limit = max_error if max_error is not None else MAX_ERROR if quantized is None else MAX_ERROR_QUANTIZED
    watch = Values()
    modules: dict[str, Difference] = {}
    why = ""
    try:
        ops = compare(tested, reference, given, budget=budget, observers=[watch])
        if against == "torch":
            expected, returned = evaluate(model, given)
            found = tested.results(given)
            ends = {each: difference(there, found[each]) for each, there in zip(found, expected, strict=True)}
            modules = _modules(program, tested, given, returned, budget)
        else:
            ends = outputs(tested, reference, given)
        limits = [_weighed(each, ops, limit) for each in crossings(tested, given, where.family + "g")]
    except UnsupportedError as error:
        if device != "ane":
            raise
        ops, ends, limits, why = [], {}, [], str(error).replace("\n", " ")
    with coremltools():
        cures = passes.chosen(None, where.family)
        rules = wrong_by_rule(each for op in tested.ops for each in ane_findings(op, where.family, cures=cures))
        cliffs = [*limits, *watch.found, *constants(tested), *rules]
    if quantized is not None:
        by_name = {op.name: op for op in ops}
        layers = tuple(replace(layer, result=by_name.get(layer.name)) for layer in quantized.layers)
        quantized = replace(quantized, layers=layers, outputs=ends)
    return Verification(
        label(device), against, where.name, seed if inputs is None else None, limit, min_residency, ends, tuple(ops),
        modules, tuple(cliffs), explanation, quantized, why,
    )  # fmt: skip


def _known(what: str, given: str, known: tuple[str, ...]) -> None:
    if given not in known:
        raise ArgumentError(f"{what} {given!r} is none of {', '.join(known)}")


def _program(model: Any, function: str, weights: str | os.PathLike[str] | None) -> Program:
    if isinstance(model, (str, Path)):
        return from_file(model, function or None, weights)
    if function and function not in model.functions:
        raise ArgumentError(f"function {function!r} is none of {', '.join(model.functions)}")
    return model


def _fixed(program: Program, name: str, model: Any, function: str, given: Mapping[str, Any] | None) -> Program:
    """With the shapes of ``given``, or the default ones of the file."""
    shapes = {each: np.shape(value) for each, value in given.items()} if given is not None else {}
    if not shapes and isinstance(model, (str, Path)):
        shapes = default_shapes(model, function or None)
    return fixed(program, shapes, name)


def _sides(
    program: Program, original: Program | None, name: str, device: str, against: str, family: str
) -> tuple[Side, Side]:
    every: dict[str, dict[str, Any]] = {
        "cpu-ane": {"ane_numerics": True, "chip": family + "g"},
        "cpu-strict": {"strict": True},
    }
    options = every.get(device, {})
    engine = device if device in ("ane", "cpu") else "cpu"
    exact = against in ("cpu-fp32", "torch")
    tested, reference = sides(program, original, function=name, device=engine, options=options, exact=exact)
    if against == "coreml":
        reference = coreml.CoreMLSide(reference.program)
    if device == "coreml":
        tested = coreml.CoreMLSide(tested.program)
    kinds = {dtype_name(var) for op in tested.ops for var in op.outputs if is_value(var)}
    if device == "cpu-ane" and "fp32" in kinds:
        with coremltools():  # as anex.compile does for the engine, which computes in float16 alone
            for each in ("finite_constants", "fp16_compute"):
                passes.PASSES[each].apply(tested.program)
        tested = Side(tested.program, tested.device, tested.options)
    return tested, reference


def _given(tested: Side, given: Mapping[str, Any] | None, seed: int) -> dict[str, np.ndarray]:
    with coremltools():
        return drawn(tested.function, seed) if given is None else checked(given, tested.function)


def _weighed(cliff: Cliff, ops: Sequence[OpDifference], limit: float) -> Cliff:
    """Numbers that become zero matter where they make an op's error."""
    own = max((op.own.relative for op in ops if op.name == cliff.name and op.own is not None), default=np.inf)
    return replace(cliff, minor=True) if cliff.id == "subnormal" and own <= limit else cliff


def _modules(
    program: Program, tested: Side, given: Mapping[str, np.ndarray], returned: Mapping[str, np.ndarray], budget: int
) -> dict[str, Difference]:
    """What submodules returned, from the last value computed inside them, where that has the same shape.

    coremltools notes in each op's scope which submodule it came from.
    """
    from coremltools.converters.mil.mil.scope import ScopeSource

    last: dict[str, str] = {}  # path of a submodule -> the last value computed in it
    for op in next(iter(program.functions.values())).operations:
        scope = op.scopes.get(ScopeSource.TORCHSCRIPT_MODULE_NAME) if op.outputs and op.op_type != "const" else None
        inside = scope[1:-1] if scope else []  # the wrapper that was traced first, the value's own name last
        for depth in range(1, len(inside) + 1):
            last[".".join(inside[:depth])] = op.outputs[0].name
    found: dict[str, Difference] = {}
    for part in parts(tested.ops, budget):
        here = {var.name: var for op in part for var in op.outputs if is_value(var)}
        chosen = {path: here[name] for path, name in last.items()
                  if path in returned and name in here and tuple(here[name].shape) == returned[path].shape}  # fmt: skip
        values = tested.values(list(dict.fromkeys(chosen.values())), given)
        found |= {path: difference(returned[path], values[var.name]) for path, var in chosen.items()}
    return found
