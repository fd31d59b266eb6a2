"""Products of quantised operands, which the CPU engine computes without the floats that MIL writes between.

``dequantize(int8 x) -> conv, linear or matmul with int8 weights`` becomes one op of the engine's own: products
of int8 summed in int32, exactly, and one scale for each output channel. Weights alone, of 8 bits or fewer, stay
as small as they are, and are decoded where they are multiplied. MIL rounds dequantised operands to float16
before it multiplies; these ops do not, so strict plans keep the ops apart.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from coremltools.converters.mil.mil import Operation, Var

MOST_PRODUCTS = 1 << 16  # in one sum, which must be an int32 (csrc/cpu/gemm_int8.h)
TABLE_ROWS = 32  # a multiple of every panel's columns (csrc/cpu/gemm.h)
FEWEST_PRODUCTS = 4  # that one instruction does: a depthwise convolution of one tap has its own kernel


@dataclass(frozen=True, eq=False)
class Step:
    """An op of the engine's own in place of a MIL op, whose name and outputs it has.

    ``inputs`` holds values of the program, and arrays: constants that were computed here.
    """

    op_type: str
    name: str
    inputs: Mapping[str, Any]
    outputs: list[Var]
    blocks: tuple[()] = ()


@dataclass(frozen=True, eq=False)
class Weight:
    """``scale * data``: int8 without a zero point, and one scale or one for each of axis 0."""

    data: np.ndarray
    scale: np.ndarray


def step(op: Operation) -> Operation | Step:
    """The op that the engine runs in place of ``op``, or ``op`` itself."""
    if op.op_type not in ("conv", "linear", "matmul"):
        return op
    bias = op.inputs.get("bias")
    if bias is not None and bias.val is None:
        return op
    return _of_int8(op, bias) or _of_codes(op, bias) or op


def _of_int8(op: Operation, bias: Var | None) -> Step | None:
    x = _activation(op.inputs["x"])
    if x is None:
        return None
    weight = _matmul_weight(op) if op.op_type == "matmul" else int8_weight(op.inputs["weight"], 0)
    if weight is None or not FEWEST_PRODUCTS <= weight.data[0].size <= MOST_PRODUCTS:
        return None
    inputs = {**x, "weight": weight.data, "scale": weight.scale} | ({} if bias is None else {"bias": bias})
    if op.op_type != "conv":
        return Step("anex_linear_int8", op.name, inputs, op.outputs)
    geometry = ("strides", "pad_type", "pad", "dilations", "groups")
    inputs |= {name: op.inputs[name] for name in geometry if op.inputs.get(name) is not None}
    return Step("anex_conv_int8", op.name, inputs, op.outputs)


def _of_codes(op: Operation, bias: Var | None) -> Step | None:
    x, across = op.inputs["x"], op.op_type == "conv"
    if across and not is_pointwise(op):
        return None
    if op.op_type == "matmul":
        turned = _matmul_turned(op)
        codes = None if turned is None else codes_of(op.inputs["y"], turned)
    else:
        codes = codes_of(op.inputs["weight"], False)
    if codes is None or x.val is not None:
        return None
    inputs = {"x": x, **codes, "across": np.array(across)} | ({} if bias is None else {"bias": bias})
    return Step("anex_linear_codes", op.name, inputs, op.outputs)


def is_pointwise(op: Operation) -> bool:
    def of(name: str, otherwise: int) -> set[int]:
        given = op.inputs.get(name)
        return {otherwise} if given is None else {int(v) for v in np.ravel(given.val)}

    pad_type = op.inputs.get("pad_type")
    padded = pad_type is not None and pad_type.val == "custom" and of("pad", 0) != {0}
    taps = op.inputs["weight"].shape[2:]
    return not padded and {*taps} == {1} and of("strides", 1) == {1} and of("groups", 1) == {1}


def _activation(x: Var) -> dict[str, Var] | None:
    """The int8 or uint8 value that ``x`` is dequantised from, and its parameters, if they are one of each."""
    op = x.op
    if op is None or op.op_type != "dequantize" or op.inputs["input"].val is not None or not x.shape:
        return None
    parameters = {"x_scale": op.inputs["scale"], "x_zero_point": op.inputs.get("zero_point")}
    if any(var is not None and (var.val is None or np.size(var.val) != 1) for var in parameters.values()):
        return None
    return {"x": op.inputs["input"]} | {name: var for name, var in parameters.items() if var is not None}


def _matmul_weight(op: Operation) -> Weight | None:
    """Of ``matmul(x, y)``: [n, k], as linear has it."""
    turned = _matmul_turned(op)
    weight = None if turned is None else int8_weight(op.inputs["y"], int(turned))
    if weight is None or not turned:
        return weight
    return Weight(np.ascontiguousarray(weight.data.T), weight.scale)


def _matmul_turned(op: Operation) -> bool | None:
    """Whether y is [k, n], not [n, k] as linear has it; None where the product is none of rows of x by one matrix."""
    x, y = op.inputs["x"], op.inputs["y"]
    flags = [bool(flag is not None and flag.val) for flag in (op.inputs.get(f"transpose_{each}") for each in "xy")]
    return None if flags[0] or len(x.shape) < 2 or len(y.shape) != 2 else not flags[1]


@dataclass(frozen=True, eq=False)
class Stored:
    """``scale * (data - zero)``, all of one rank; scale and zero over blocks of data."""

    data: np.ndarray
    scale: np.ndarray
    zero: np.ndarray | None


def _stored(var: Var) -> Stored | None:
    """A constant that an affine op makes of integers."""
    op = var.op
    kind = None if op is None else op.op_type
    if kind == "constexpr_affine_dequantize":
        names = ("quantized_data", "scale", "zero_point")
    elif kind == "constexpr_blockwise_shift_scale":
        names = ("data", "scale", "offset")
    elif kind == "dequantize":
        names = ("input", "scale", "zero_point")
    else:
        return None
    data, scale, zero = (None if op.inputs.get(name) is None else _value(op.inputs[name]) for name in names)
    if data is None or scale is None or (zero is None and op.inputs.get(names[2]) is not None):
        return None
    if data.dtype.kind not in "iu":
        return None
    if kind != "constexpr_blockwise_shift_scale":
        given = op.inputs.get("axis")
        along = 0 if given is None else int(given.val) % data.ndim
        scale, zero = _along(scale, along, data.ndim), None if zero is None else _along(zero, along, data.ndim)
    return Stored(data, scale, zero)


def int8_weight(var: Var, axis: int) -> Weight | None:
    """A constant stored in 8 bits or fewer with one scale, or one for each index of ``axis``, its output channels, or
    for each block of them."""
    stored = _stored(var)
    if stored is None or any(n != 1 for i, n in enumerate(stored.scale.shape) if i != axis):
        return None
    zero = stored.zero
    if zero is not None and (any(n != 1 for i, n in enumerate(zero.shape) if i != axis) or (zero % 1 != 0).any()):
        return None
    wide = stored.data.astype(np.int32)
    scale = _each(stored.scale, axis, wide.shape[axis])
    if zero is not None:
        wide = wide - _each(zero, axis, wide.shape[axis]).astype(np.int32)
    if wide.size and (wide.min() < -128 or wide.max() > 127):
        return None
    return Weight(np.ascontiguousarray(wide, np.int8), np.ascontiguousarray(np.ravel(scale), np.float32))


def codes_of(var: Var, turned: bool) -> dict[str, np.ndarray] | None:
    """A constant matrix [n, k] (``turned``: [k, n]; axes of 1 may follow) as anex_linear_codes has it."""
    if var.val is not None or var.op is None or min(var.shape, default=0) < 1:
        return None
    if var.op.op_type == "constexpr_lut_to_dense":
        return _palette(var, turned)
    stored = _stored(var)
    if stored is None:
        return None
    data, scale = _matrix(stored.data, turned), _matrix(stored.scale, turned)
    zero = np.zeros((1, 1)) if stored.zero is None else _matrix(stored.zero, turned)
    blocks = max(scale.shape[1], zero.shape[1])
    scale, zero = (_spread(v, len(data), blocks) for v in (scale, zero))
    made = {"scale": scale}
    if data.min() >= -8 and data.max() <= 15 and not (data.min() < 0 and data.max() > 7):
        numbers = np.arange(16, dtype=np.float32)
        made["table"] = np.where((numbers > 7) & bool(data.min() < 0), numbers - 16, numbers)[None]
    elif data.dtype == np.uint8:
        data, zero = data ^ 0x80, zero - np.float32(128)
    elif data.dtype != np.int8:
        return None
    made["weight"] = np.ascontiguousarray(data).view(np.int8)
    return made | ({"zero": zero} if zero.any() else {})


def _palette(var: Var, turned: bool) -> dict[str, np.ndarray] | None:
    """Of up to 16 floats for the matrix, or for each TABLE_ROWS rows of it or a multiple."""
    assert var.op is not None
    given = {name: _value(value) for name, value in var.op.inputs.items() if value is not None}
    indices, lut = given["indices"], given["lut"]
    if indices is None or lut is None or lut.dtype.kind != "f":
        return None
    if "shape" in given:  # iOS 16: packed bit by bit, one table
        width = int(lut.size).bit_length() - 1
        bits = np.unpackbits(np.ravel(indices), bitorder="little", count=int(np.prod(var.shape)) * width)
        indices = np.packbits(bits.reshape(-1, width), axis=1, bitorder="little").reshape(var.shape)
        lut = lut.reshape([1] * len(var.shape) + [-1, 1])
    entries, vector = lut.shape[-2:]
    groups = lut.shape[int(turned)]
    alike = groups == 1 or var.shape[int(turned)] % (groups * TABLE_ROWS) == 0
    if entries > 16 or vector != 1 or lut.size != groups * entries or not alike:
        return None
    table = np.zeros((groups, 16), np.float32)
    table[:, :entries] = lut.reshape(groups, entries)
    weight = np.ascontiguousarray(_matrix(indices, turned), np.uint8)
    return {"weight": weight, "table": table, "scale": np.ones((len(weight), 1), np.float32)}


def _matrix(v: np.ndarray, turned: bool) -> np.ndarray:
    v = v.reshape(v.shape[:2])
    return v.T if turned else v


def _spread(v: np.ndarray, rows: int, blocks: int) -> np.ndarray:
    """[rows, blocks], each value repeated."""
    wide = v.astype(np.float32).repeat(rows // v.shape[0], 0).repeat(blocks // v.shape[1], 1)
    return np.ascontiguousarray(wide)


def _each(v: np.ndarray, axis: int, n: int) -> np.ndarray:
    """One value, or ``n`` of them along ``axis``, where ``v`` may hold one for a block of neighbours."""
    return v if v.shape[axis] == 1 else v.repeat(n // v.shape[axis], axis)


def _value(var: Var) -> np.ndarray | None:
    """Of a constant, or of what a constexpr op makes."""
    if var.val is not None:
        return np.asarray(var.val)
    op = var.op
    known = op is not None and op.op_type.startswith("constexpr_") and len(op.outputs) == 1
    return np.asarray(op.materialized_val_inference()) if known else None


def _along(v: np.ndarray, axis: int, rank: int) -> np.ndarray:
    return v.reshape([-1 if i == axis else 1 for i in range(rank)])
