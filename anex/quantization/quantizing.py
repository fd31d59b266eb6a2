"""``anex.quantize``."""

from __future__ import annotations

import tempfile
from collections.abc import Collection, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from .. import _coremltools
from .._coremltools import coremltools
from ..comparison.compare import OpDifference, compare, outputs
from ..comparison.inputs import checked, drawn
from ..comparison.metrics import difference
from ..comparison.runs import Side, runs
from ..comparison.shapes import fixed
from ..comparison.widen import widen
from ..cost import predict
from ..errors import ArgumentError, CompileError, Error, UnsupportedError
from ..load import default_shapes, from_file, from_proto
from ..ops.record import nbytes
from ..program import compile
from ..store import to_proto
from . import calibrating
from .report import Layer, Quantized, Speed
from .schemes import Scheme, Settings
from .schemes import scheme as scheme_named

if TYPE_CHECKING:
    from coremltools.converters.mil.mil import Operation, Program, Var

CHIPS = ("M1", "M2", "M3", "M4", "M5")
PRUNE = "prune_weights"
ACTIVATIONS = ("conv", "linear", "add", "avg_pool", "max_pool")  # what coremltools' passes quantise


def quantize(
    model: Any, scheme: str = "int8", *, calibrate: Any = None, inputs: Mapping[str, Any] | None = None, seed: int = 0,
    skip: Collection[str] = (), function: str = "", chips: Sequence[str] = CHIPS, errors: bool = True, **settings: Any,
) -> Quantized:  # fmt: skip
    """A smaller program of the same inputs and outputs, by ``coremltools.optimize``, with a report of what that costs.

    ``model``: a MIL program, which is not changed, or the path of a ``.mlpackage``, ``.mlmodelc`` or MIL text.
    ``scheme``, one of ``anex.quantization.schemes.SCHEMES``: int8 weights ("int8", "int8-affine", "int8-tensor",
    "int8-tensor-affine"), int4 ("int4": blocks, "int4-channel"), palettes ("palette4", "palette4-grouped", "palette6",
    "palette8"), "sparse", two at once ("sparse-int8", "sparse-palette4", "palette4-int8"), or int8 weights and
    activations ("w8a8"). The opset rises where a scheme needs it.

    Weights alone take less memory, and time where a program is bound by it; int8 activations bring compute too, from
    M4 on. ``calibrate``, for "w8a8": arrays by input name, or several such mappings; an axis more in front counts
    samples. Without it activations are calibrated on random inputs, which is good for a first look at best.

    ``inputs``: what errors are measured on, random by ``seed`` without; ``errors=False`` leaves that out.
    ``skip``: names of ops whose weights and activations stay. ``chips``: for which to predict the time.
    ``settings``: ``block_size`` (32), ``group_size`` (32), ``sparsity`` (0.5), ``threshold`` (2048: tensors of no more
    elements stay).

    Raises ``ArgumentError`` for a scheme, setting or op that is not there, ``UnsupportedError`` and ``CompileError``
    with coremltools' reason for a program it cannot compress.

    >>> weight = np.linspace(-1, 1, 64 * 64, dtype=np.float16).reshape(64, 64, 1, 1)
    >>> @anex.graph(x=(1, 64, 1, 8))
    ... def program(x):
    ...     return mb.conv(x=x, weight=weight, name="y")
    >>> found = anex.quantize(program, "int8")
    >>> found.layers[0].bytes_before, found.layers[0].bytes_after, found.layers[0].weight.max_relative < 1 / 200
    (8192, 4224, True)
    """
    chosen, open_ones = scheme_named(scheme), Settings.of(settings)
    if isinstance(model, (str, Path)):
        shapes = (
            {name: np.shape(a) for name, a in inputs.items()} if inputs else default_shapes(model, function or None)
        )
        program, name = fixed(from_file(model, function or None), shapes), "main"
    elif hasattr(model, "functions"):
        program, name = model, function or ("main" if "main" in model.functions else next(iter(model.functions)))
        if name not in program.functions:
            raise ArgumentError(f"function {name!r} is none of {', '.join(program.functions)}")
    else:
        raise ArgumentError(
            f"{type(model).__name__} is no MIL program, and no path; anex.from_torch makes one of torch"
        )
    if calibrate is not None and not chosen.activations:
        raise ArgumentError(f"calibrate= is for activations, which {scheme!r} leaves alone; 'w8a8' takes it")

    original, bytes_before = _copy(program, name, None)
    with coremltools():
        _known(original, skip)
    work, _ = _copy(program, name, chosen.target)
    calibration, pairs = "", 0
    if chosen.activations:
        calibration, pairs = _activations(work, chosen, open_ones, calibrate, seed, skip)
    left = _weights(work, chosen, open_ones, skip)
    finished, bytes_after = _copy(work, "main", None)
    compile(finished).close()  # every device has what the CPU engine has; better refused here than by its user

    results: dict[str, OpDifference] = {}
    ends: Mapping[str, Any] = {}
    if errors:
        tested, reference = Side(finished), Side(widen(original), "cpu", {"strict": True})
        with coremltools():
            main = tested.function
            arrays = drawn(main, seed) if inputs is None else checked(inputs, main)
        results = {each.name: each for each in compare(tested, reference, arrays)}
        ends = outputs(tested, reference, arrays)
    with coremltools():
        layers = tuple(_layers(original, finished, results))
    speeds = tuple(_speeds(original, finished, chips))
    return Quantized(finished, chosen.name, chosen.statement, bytes_before, bytes_after, layers, left, pairs, ends,
                     speeds, calibration)  # fmt: skip


def _copy(program: Program, function: str, target: str | None) -> tuple[Program, int]:
    """One function as a program of its own, of opset ``target`` at least, and its bytes as a saved model."""
    with coremltools() as ct, tempfile.TemporaryDirectory(prefix="anex-") as folder:
        weights = Path(folder, "weights")
        weights.mkdir()
        proto = to_proto(program, weights).mlProgram
        chosen = proto.functions[function]
        stored = sum(file.stat().st_size for file in weights.iterdir()) + chosen.ByteSize()
        if target is not None:
            opsets = {opset: version for version, opset in ct._OPSET.items()}
            least = int(ct.target[target])
            if opsets.get(chosen.opset, least) < least:
                block = chosen.block_specializations[chosen.opset]
                renewed = type(block)()
                renewed.CopyFrom(block)
                del chosen.block_specializations[chosen.opset]
                chosen.opset = ct._OPSET[least]
                chosen.block_specializations[chosen.opset].CopyFrom(renewed)
        return from_proto(proto, Path(folder), function=function), stored


def _known(program: Program, skip: Collection[str]) -> None:
    names = {op.name for op in _all(program.functions["main"])}
    if unknown := [name for name in skip if name not in names]:
        raise ArgumentError(f"skip: no op is called {', '.join(unknown)}")


def _all(block: Any) -> Iterator[Operation]:
    for op in block.operations:
        yield op
        for inner in op.blocks:
            yield from _all(inner)


def _weights(program: Program, chosen: Scheme, settings: Settings, skip: Collection[str]) -> dict[str, str]:
    """Compress the weights in place. Those that are not, though large enough, with the reason."""
    left: dict[str, str] = {}
    with coremltools():
        import coremltools.optimize.coreml as cto
    with coremltools():
        from coremltools.converters.mil.mil.passes.graph_pass import PassOption
        from coremltools.converters.mil.mil.passes.pass_registry import PASS_REGISTRY

        for step in chosen.steps:
            if not step.joint:
                left |= _cannot(program, settings, skip)
            try:
                config = cto.OptimizationConfig(global_config=step.configure(cto, settings))
                for name in (*skip, *left):
                    config.set_op_name(name, None)
                each = _magnitudes_in_float32() if step.name == PRUNE else PASS_REGISTRY[f"compression::{step.name}"]
                each.set_options([PassOption("config", config), PassOption("joint_compression", step.joint)])
                each.apply(program)
            except Error:
                raise
            except NotImplementedError as error:
                raise UnsupportedError(f"scheme {chosen.name!r}: {error}") from error
            except Exception as error:  # coremltools raises ValueError, AssertionError and others
                raise CompileError(f"scheme {chosen.name!r}: {error}") from error
        PASS_REGISTRY["common::dead_code_elimination"].apply(program)
        _coremltools.legalise(program)
        _coremltools.validate(program)
        for op in _all(program.functions["main"]):
            if op.op_type == "const" and _is_weight(op, settings) and op.name not in left:
                readers = {child.op_type for child in op.outputs[0].child_ops}
                if not any(reader.startswith("constexpr_") for reader in readers):
                    left[op.name] = f"its shape {op.outputs[0].shape} does not divide as the scheme asks"
    return left


def _magnitudes_in_float32() -> Any:
    """coremltools' pruning, which takes a percentile: numpy's of more than 65504 float16 numbers is no number."""
    from coremltools.optimize.coreml._quantization_passes import prune_weights

    class Prune(prune_weights):  # type: ignore[misc]
        @staticmethod
        def compress_by_magnitude(val: np.ndarray, *arguments: Any, **named: Any) -> Any:
            params = prune_weights.compress_by_magnitude(val.astype(np.float32), *arguments, **named)
            return params and params._replace(nonzero_data=params.nonzero_data.astype(val.dtype))

    return Prune()


def _cannot(program: Program, settings: Settings, skip: Collection[str]) -> dict[str, str]:
    """Constants that are large enough, and must stay: coremltools would not ask."""
    found: dict[str, str] = {}
    for op in _all(program.functions["main"]):
        if op.op_type != "const" or not isinstance(op.outputs[0].val, np.ndarray):
            continue
        value = op.outputs[0].val
        if value.size <= settings.threshold:
            continue
        readers = [child.name for child in op.outputs[0].child_ops]
        if value.dtype.kind != "f":
            found[op.name] = f"it is {value.dtype}"
        elif not np.isfinite(value).all():
            found[op.name] = "it has infinite values"
        elif value.ndim < 2:
            found[op.name] = "it has one axis"
        elif any(name in skip for name in readers):
            found[op.name] = f"skipped with {', '.join(name for name in readers if name in skip)}"
        elif op.outputs[0] in program.functions["main"].outputs:
            found[op.name] = "it is an output"
    return found


def _is_weight(op: Operation, settings: Settings) -> bool:
    value = op.outputs[0].val
    return isinstance(value, np.ndarray) and value.size > settings.threshold and value.dtype.kind == "f"


def _activations(
    program: Program, chosen: Scheme, settings: Settings, given: Any, seed: int, skip: Collection[str]
) -> tuple[str, int]:
    """``quantize`` and ``dequantize`` around what can compute in int8, in place; how calibrated, and how many."""
    if any(op.blocks for op in program.functions["main"].operations):
        raise UnsupportedError(
            f"scheme {chosen.name!r}: coremltools does not quantise the activations of programs with control flow; "
            "'int8' quantises their weights"
        )
    with coremltools():
        data = calibrating.samples(program.functions["main"], given, seed)
    stats = calibrating.ranges(program, data)
    with coremltools():
        import coremltools.optimize.coreml as cto

        config = cto.OptimizationConfig(global_config=chosen.steps[0].configure(cto, settings))
        for name in (*skip, *calibrating.cannot(program, stats, ACTIVATIONS)):
            config.set_op_name(name, None)
    try:
        calibrating.quantize_activations(program, config, stats)
    except Exception as error:  # coremltools raises ValueError, KeyError and others
        raise CompileError(f"scheme {chosen.name!r}: {type(error).__name__}: {error}") from error
    count = sum(op.op_type == "quantize" for op in _all(program.functions["main"]))
    kind = "random, which say nothing of real data" if given is None else "given"
    return f"calibrated on {len(data)} sample(s), {kind}", count


def _layers(before: Program, after: Program, results: Mapping[str, OpDifference]) -> Iterator[Layer]:
    from coremltools.optimize.coreml._quantization_passes import WeightDecompressor

    plain, _ = _copy(after, "main", None)
    WeightDecompressor(op_selector=lambda _: True).apply(plain)
    old, unpacked = ({op.name: op for op in _all(each.functions["main"])} for each in (before, plain))
    for op in _all(after.functions["main"]):
        if not runs(op) or op.name not in old:
            continue
        for name, var in op.inputs.items():
            packed = getattr(var, "op", None)
            if packed is None or not packed.op_type.startswith("constexpr_"):
                continue
            was = old[op.name].inputs.get(name)
            if was is None or was.val is None:  # compressed before already
                continue
            value = np.asarray(was.val)
            loss = difference(value, np.asarray(unpacked[op.name].inputs[name].val).reshape(value.shape))
            yield Layer(op.op_type, op.name, name, tuple(map(int, value.shape)), _how(packed), int(value.nbytes),
                        _stored(var), loss, results.get(op.name))  # fmt: skip


def _how(packed: Operation) -> str:
    """``constexpr_lut_to_dense of constexpr_...``, from the op's side."""
    inner = [var.op for var in packed.inputs.values() if getattr(var, "op", None) is not None]
    nested = [_how(op) for op in inner if op.op_type.startswith("constexpr_")]
    return " of ".join([packed.op_type, *dict.fromkeys(nested)])


def _stored(var: Var) -> int:
    """Bytes of the constants a weight is made of."""
    op = var.op
    if op is None or not op.op_type.startswith("constexpr_"):
        return nbytes(var)
    return sum(_stored(each) for each in dict.fromkeys(_parts(op)))


def _parts(op: Operation) -> Iterator[Var]:
    seen: set[Operation] = set()
    for var in op.inputs.values():
        if hasattr(var, "sym_type") and (var.op is None or var.op not in seen):  # two results of one op count once
            if var.op is not None and var.op.op_type.startswith("constexpr_"):
                seen.add(var.op)
            yield var


def _speeds(before: Program, after: Program, chips: Sequence[str]) -> Iterator[Speed]:
    try:
        pairs = list(zip(predict(before, chips), predict(after, chips), strict=True))
    except UnsupportedError:  # nothing in it has a known cost
        return
    for old, new in pairs:
        p = new.prediction
        yield Speed(new.chip, old.prediction.ms, p.ms, p.low, p.high, old.prediction.bound, p.bound)
