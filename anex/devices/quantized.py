"""Products of quantised operands, which the CPU engine computes without the floats that MIL writes between.

``dequantize(int8 x) -> conv, linear or matmul with int8 weights`` becomes one op of the engine's own: products
of int8 summed in int32, exactly, and one scale for each output channel. MIL rounds the dequantised operands
to float16 before they are multiplied; this does not, so strict plans keep the ops apart.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from coremltools.converters.mil.mil import Operation, Var

MOST_PRODUCTS = 1 << 16  # in one sum, which must be an int32 (csrc/cpu/gemm_int8.h)
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
    if op.op_type not in ("conv", "linear", "matmul") or not (x := _activation(op.inputs["x"])):
        return op
    if op.op_type == "matmul":
        weight = _matmul_weight(op)
    else:
        weight = int8_weight(op.inputs["weight"], 0)
    if weight is None or not FEWEST_PRODUCTS <= weight.data[0].size <= MOST_PRODUCTS:
        return op
    bias = op.inputs.get("bias")
    if bias is not None and bias.val is None:
        return op
    inputs = {**x, "weight": weight.data, "scale": weight.scale} | ({} if bias is None else {"bias": bias})
    if op.op_type != "conv":
        return Step("anex_linear_int8", op.name, inputs, op.outputs)
    geometry = ("strides", "pad_type", "pad", "dilations", "groups")
    inputs |= {name: op.inputs[name] for name in geometry if op.inputs.get(name) is not None}
    return Step("anex_conv_int8", op.name, inputs, op.outputs)


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
    x, y = op.inputs["x"], op.inputs["y"]
    flags = [bool(flag is not None and flag.val) for flag in (op.inputs.get(f"transpose_{each}") for each in "xy")]
    if flags[0] or len(x.shape) < 2 or len(y.shape) != 2:
        return None
    weight = int8_weight(y, 0 if flags[1] else 1)
    if weight is None or flags[1]:
        return weight
    return Weight(np.ascontiguousarray(weight.data.T), weight.scale)


def int8_weight(var: Var, axis: int) -> Weight | None:
    """A constant stored in 8 bits or fewer with one scale, or one for each index of ``axis``, its output channels."""
    op = var.op
    if op is None:
        return None
    if op.op_type == "constexpr_affine_dequantize":
        names = ("quantized_data", "scale", "zero_point")
    elif op.op_type == "constexpr_blockwise_shift_scale":
        names = ("data", "scale", "offset")
    elif op.op_type == "dequantize":
        names = ("input", "scale", "zero_point")
    else:
        return None
    data, scale, zero = (None if op.inputs.get(name) is None else _value(op.inputs[name]) for name in names)
    if data is None or scale is None or data.dtype.kind not in "iu" or (op.inputs.get(names[2]) and zero is None):
        return None
    if op.op_type != "constexpr_blockwise_shift_scale":
        given = op.inputs.get("axis")
        along = 0 if given is None else int(given.val) % data.ndim
        scale, zero = _along(scale, along, data.ndim), None if zero is None else _along(zero, along, data.ndim)
    if any(v is not None and any(n != 1 for i, n in enumerate(v.shape) if i != axis) for v in (scale, zero)):
        return None
    if zero is not None and zero.dtype.kind not in "iu" and (zero != np.rint(zero)).any():
        return None
    wide = data.astype(np.int32) - (0 if zero is None else zero.astype(np.int32))
    if wide.size and (wide.min() < -128 or wide.max() > 127):
        return None
    return Weight(np.ascontiguousarray(wide, np.int8), np.ascontiguousarray(np.ravel(scale), np.float32))


def _value(var: Var) -> np.ndarray | None:
    """Of a constant, or of what a constexpr op makes."""
    if var.val is not None:
        return np.asarray(var.val)
    op = var.op
    known = op is not None and op.op_type.startswith("constexpr_") and len(op.outputs) == 1
    return np.asarray(op.materialized_val_inference()) if known else None


def _along(v: np.ndarray, axis: int, rank: int) -> np.ndarray:
    return v.reshape([-1 if i == axis else 1 for i in range(rank)])
