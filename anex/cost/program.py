"""MIL programs as loads: what each op is to the model, by its cost in ``anex.ops``."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from .._coremltools import coremltools
from ..errors import UnsupportedError
from ..ops import OPS, ane_findings, record
from ..ops.record import dtype_name, nbytes, shape, tensors
from ..ops.rules import is_weight
from .chips import Chip
from .model import Model, Prediction, path_of, shipped
from .work import Load, Work

if TYPE_CHECKING:
    from coremltools.converters.mil.mil import Function, Operation, Program, Var

CONVOLUTIONS = frozenset({"conv", "conv_transpose"})
PRODUCTS = frozenset({"linear", "matmul", "einsum"})
NORMS = frozenset({"instance_norm", "l2_norm", "local_response_norm"})
POOLS = frozenset({"avg_pool", "max_pool", "l2_pool"})
# Functions the engine looks up in a table; other elementwise ops it computes.
TABLES = frozenset({
    "gelu", "sigmoid", "silu", "tanh", "exp", "exp2", "log", "erf", "elu", "softplus", "softsign", "scaled_tanh",
    "sqrt", "rsqrt", "inverse", "pow", "sin", "cos", "atan", "sigmoid_hard", "softplus_parametric",
})  # fmt: skip
DECODING = 8  # positions up to which a stack of products streams its weights more than it computes
CONVERSIONS = frozenset({"quantize", "dequantize", "cast"})  # where data is read or written: measured as part of that
BLOCK = 24  # ops of a block, about
# Spread, in logarithms, of whole models around what their parts come to: left out one at a time they are off by a
# quarter at the median.
WHOLE_MODEL = 0.25
WHOLE_MODEL_NOTE = "a whole model: few of those were measured, so the interval is wide"
INSIDE_A_PRODUCT = frozenset({"batch_norm", "relu", "relu6", "clip"})  # applied where its results are written


@dataclass(frozen=True)
class Estimate:
    """One op: its share of the program's predicted ms with an 80 % interval, and the cost it was counted at.

    ``rows``: measured rows of the chip with work of this ``kind``. ``bound`` is "dispatch" for what costs nothing but
    being there. ``utilisation``: of the chip's peak.
    """

    op: str
    name: str
    ms: float
    low: float
    high: float
    bound: str
    flops: float
    bytes: float
    weight_bytes: float
    kind: str
    utilisation: float
    rows: int

    @property
    def tflops(self) -> float:
        return self.flops / self.ms / 1e9 if self.ms else 0.0


@dataclass(frozen=True)
class Cost:
    """What a program is predicted to take on one chip, started once through one path."""

    chip: str
    path: str
    prediction: Prediction
    ops: tuple[Estimate, ...]
    notes: tuple[str, ...]


def operations(function: Function) -> Iterator[Operation]:
    """The ops that run, those of nested blocks among them, once each."""

    def walk(ops: Sequence[Operation]) -> Iterator[Operation]:
        for op in ops:
            if runs(op):
                yield op
            for block in op.blocks:
                yield from walk(block.operations)

    yield from walk(function.operations)


def runs(op: Operation) -> bool:
    """Whether it is left to do when the program runs."""
    constant = bool(op.outputs) and all(var.val is not None for var in op.outputs)
    return op.op_type != "const" and not op.op_type.startswith("constexpr_") and not constant


def cost(program: Program, chip: Chip, *, path: str = "private", model: Model | None = None,
         function: str = "") -> Cost:  # fmt: skip
    """Predict one function of ``program``, ``main`` or the first. Works run one after another, as the compiler fuses
    what it can into products."""
    path_of(path)
    with coremltools():
        chosen = program.functions.get(function or "main") or next(iter(program.functions.values()))
        ops = list(operations(chosen))
        load, counted, notes = load_of(chosen, ops, chip)
        beyond = WHOLE_MODEL if load.kind == "whole_model" else 0.0
        fitted = model or shipped()
        (prediction,) = fitted.predict([load], [chip], [path], beyond=[beyond])
        if beyond:
            notes += (WHOLE_MODEL_NOTE,)
        place = {id(op): n for n, op in enumerate(counted)}
        estimates = []
        for op in ops:
            n = place.get(id(op))
            if n is None:
                estimates.append(Estimate(op.op_type, op.name, 0, 0, 0, "unknown", 0, 0, 0, "unknown", 0, 0))
                continue
            work, ms, p = load.works[n], prediction.works[n], prediction
            peak = work.flops / fitted.peaks.peak(chip, work) / ms if work.flops else 0.0
            estimates.append(
                Estimate(
                    op.op_type, op.name, ms, ms * p.low / p.ms, ms * p.high / p.ms, p.work_bounds[n], work.flops,
                    OPS[op.op_type].bytes(op), work.weight_bytes, work.kind, peak, p.work_rows[n],
                )
            )  # fmt: skip
    return Cost(chip.name, path, prediction, tuple(estimates), notes)


def load_of(function: Function, ops: Sequence[Operation], chip: Chip) -> tuple[Load, list[Operation], tuple[str, ...]]:
    """The load of these ops, those that could be counted, and a note on each kind that could not."""
    works, counted, unknown = [], [], dict[str, int]()
    several = sum(op.op_type in PRODUCTS for op in ops) > 1
    for op in ops:
        work = work_of(op, chip, several)
        if work is None:
            unknown[op.op_type] = unknown.get(op.op_type, 0) + 1
        else:
            works.append(work)
            counted.append(op)
    ports = [*function.inputs.values()]
    into, out = (sum(map(port_bytes, vars)) for vars in (ports, function.outputs))
    notes = tuple(f"{count} {name} counted as nothing: its shapes are not fixed, or its cost unknown"
                  for name, count in unknown.items())  # fmt: skip
    if ops and not works:
        raise UnsupportedError("no op of the program has fixed shapes and a known cost, so there is nothing to predict")
    return Load(tuple(works), into, out, kind_of(works)), counted, notes


def kind_of(works: Sequence[Work]) -> str:
    """Which of the published workloads a program is most like: its measured errors say the most of it."""
    products = [work for work in works if work.flops]
    if len(works) > BLOCK and len({work.kind for work in works}) > 2:
        return "whole_model"
    if not products:
        heavy = max(works, key=lambda work: work.bytes, default=None)
        called = {"table": "elementwise", "flat": "elementwise", "norm": "group_norm"}
        return called.get(heavy.kind, heavy.kind) if heavy else "dispatch"
    heavy = max(products, key=lambda work: (work.flops, work.weight_bytes))
    several = len(products) > 1
    if heavy.kind in ("conv", "conv1x1"):
        return "conv_chain" if several else "conv_single"
    if not several:
        return {"matmul": "sdpa"}.get(heavy.kind, "gemv" if heavy.positions <= 1 else "matmul")
    streams = max(work.positions for work in products if work.kind == heavy.kind) <= DECODING
    return "llm_decode" if streams else "encoder_block"


def port_bytes(var: Var) -> float:
    try:
        return float(nbytes(var))
    except (TypeError, ValueError):  # a symbolic axis
        return 0.0


def work_of(op: Operation, chip: Chip, among_products: bool = False) -> Work | None:
    """One op as the model sees it; None where that is not known. ``among_products``: its program has several."""
    known = OPS.get(op.op_type)
    if known is None:
        return None
    try:
        flops, touched = float(known.flops(op)), float(known.bytes(op))
        weights = [var for var in tensors(op) if is_weight(var)]
        stored = sum(streamed_bytes(var, chip) for var in weights)
        data = max(0.0, touched - sum(map(nbytes, weights)))
        work = _work(op, flops, data, stored, scheme_of(op, weights, chip))
        rows = shape(op.outputs[0]) if op.outputs else ()
        is_flat = among_products and len(rows) == 2 and rows[0] > 1
        return replace(work, kind="flat") if is_flat and work.bytes and work.kind in ("elementwise", "table") else work
    except (TypeError, ValueError, KeyError, IndexError, AttributeError, OverflowError):  # symbolic, absent, absurd
        return None


def _work(op: Operation, flops: float, data: float, stored: float, scheme: str) -> Work:
    kind = op.op_type
    if kind in CONVOLUTIONS:
        weight, out = shape(op.inputs["weight"]), shape(op.outputs[0])
        groups = int(op.inputs["groups"].val) if op.inputs.get("groups") is not None else 1
        pointwise = math.prod(weight[2:]) == 1
        into = shape(op.inputs["x"])[1] // max(1, groups)
        return Work("conv1x1" if pointwise else "conv", flops, stored, data, math.prod(out) / max(1, out[1]),
                    (into, out[1] // max(1, groups)), scheme)  # fmt: skip
    if kind in PRODUCTS:
        out = shape(op.outputs[0])
        columns = out[-1] if out else 1
        rows = math.prod(out) / max(1, columns)
        if kind == "linear" or stored:
            inner = int(flops / 2 / max(1.0, math.prod(out)))
            return Work("linear", flops, stored, data, rows, (inner, columns), scheme)
        return Work("matmul", flops, 0.0, data, out[-2] if len(out) > 1 else 1, (0, 0), "fp16")
    if kind == "scaled_dot_product_attention":
        query, key = shape(op.inputs["query"]), shape(op.inputs["key"])
        scores = 2.0 * math.prod(query[:-1]) * key[-2]
        return Work("matmul", flops, 0.0, scores, query[-2], (0, 0), "fp16", 3)
    if kind == "softmax":
        return Work("softmax", bytes=data / 2)
    if kind == "layer_norm":
        return Work("layer_norm", bytes=data / 2)
    if kind in NORMS:
        return Work("norm", bytes=data / 2)
    if kind in POOLS:
        return Work("pool", bytes=data)
    if kind.startswith("reduce_"):
        return Work("reduce", bytes=data)
    if kind in CONVERSIONS or (kind in INSIDE_A_PRODUCT and _follows_a_product(op)):
        return Work("elementwise", bytes=0.0)
    return Work("table" if kind in TABLES else "elementwise", weight_bytes=stored, bytes=data / 2)


def _follows_a_product(op: Operation) -> bool:
    before = op.inputs["x"].op
    return before is not None and before.op_type in CONVOLUTIONS | PRODUCTS


def scheme_of(op: Operation, weights: Sequence[Var], chip: Chip) -> str:
    """How the weights of a product are kept; with activations that come out of ``dequantize``, both are int8."""
    packed = [var.op for var in weights if var.op is not None and var.op.op_type.startswith("constexpr_")]
    if not packed or unpacked(packed[0], chip):
        return "fp16"
    kind = packed[0].op_type
    if "sparse" in kind:
        return "sparse"
    if kind == "constexpr_lut_to_dense":
        return "int4lut" if _bits(packed[0]) <= 4 else "lut6"
    if kind == "constexpr_blockwise_shift_scale" and _bits(packed[0]) <= 4:
        return "int4lut"
    x = op.inputs.get("x")
    return "w8a8" if x is not None and x.op is not None and x.op.op_type == "dequantize" else "w8"


def unpacked(packed: Operation, chip: Chip) -> bool:
    """Whether the compiler of this chip makes plain fp16 of these weights."""
    return any(found.rule.id == "weights-unpacked" for found in ane_findings(packed, chip.family))


def streamed_bytes(var: Var, chip: Chip) -> float:
    """Of a weight, as it streams."""
    op = var.op
    packed = op is not None and op.op_type.startswith("constexpr_") and not unpacked(op, chip)
    return float(record.stored_bytes(var) if packed else nbytes(var))


def _bits(packed: Operation) -> int:
    """Of one stored weight."""
    if (indices := packed.inputs.get("indices")) is not None and dtype_name(indices).startswith("uint"):
        width = int(dtype_name(indices)[4:])
        if width < 8:
            return width
        lut = packed.inputs.get("lut")  # iOS 16 packs indices into bytes: the table has 2^bits entries
        return max(1, math.ceil(math.log2(shape(lut)[0]))) if lut is not None and len(shape(lut)) == 1 else width
    data = packed.inputs.get("data") or packed.inputs.get("quantized_data")
    return int("".join(filter(str.isdigit, dtype_name(data))) or 8) if data is not None else 8
