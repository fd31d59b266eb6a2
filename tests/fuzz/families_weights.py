"""Quantised activations and compressed weights, and the products that read them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from coremltools.converters.mil.mil import types

from .graph import DTYPES
from .maker import Maker, Ref, Refused, family


@family("quantize")
def quantize(g: Maker, op: str) -> None:
    x = g.pick("f")
    axis, dtype = g.int(0, g.rank(x) - 1), g.one("int8", "uint8")
    shape = (g.dims(x)[axis],) if g.chance(0.5) else ()
    scale = g.array(shape, g.dtype(x), 0.02, 0.2)[()]
    zero = g.array(shape, dtype, 0, 50)[()]
    (q,) = g.emit(op, input=x, scale=scale, zero_point=zero, output_dtype=dtype, axis=axis if shape else None)
    if g.chance(0.7):
        g.emit("dequantize", input=q, scale=scale, zero_point=zero, axis=axis if shape else None)


@family("dequantize")
def dequantize(g: Maker, op: str) -> None:
    q = g.pick("s", 1, 5)
    if g.dtype(q) not in ("int8", "uint8"):
        raise Refused
    axis = g.int(0, g.rank(q) - 1)
    shape = (g.dims(q)[axis],) if g.chance(0.5) else ()
    g.emit(op, input=q, scale=g.array(shape, g.floating, 0.01, 0.1)[()], axis=axis if shape else None)


def narrow(g: Maker, shape: Any, name: str) -> np.ndarray:
    """Numbers of one of MIL's small dtypes, as coremltools wants them."""
    dtype = types.string_to_builtin(name)
    limits = types.type_mapping.builtin_to_range(dtype)
    return g.rng.integers(limits.low, limits.high + 1, shape).astype(types.nptype_from_builtin(dtype))


Weight = Callable[[Maker, tuple[int, ...], str], dict[str, Any]]


def per_block(g: Maker, shape: tuple[int, ...]) -> tuple[int, ...]:
    """How many scales along each axis: one, one for each output, or one for a block of a row."""
    columns = 1 if g.chance(0.5) else g.one(*[d for d in range(1, shape[1] + 1) if shape[1] % d == 0])
    return (g.one(1, shape[0]), columns, *[1] * (len(shape) - 2))


def mask_of(g: Maker, shape: tuple[int, ...]) -> np.ndarray:
    mask = g.rng.integers(0, 2, shape)
    mask.flat[0] = 1  # something must be left
    return mask.astype(types.nptype_from_builtin(types.string_to_builtin("uint1")))


def blockwise(g: Maker, shape: tuple[int, ...], dtype: str) -> dict[str, Any]:
    kind, blocks = g.one("int4", "uint4", "int8", "uint8"), per_block(g, shape)
    offset = g.one(None, None, narrow(g, blocks, kind))
    return {"data": narrow(g, shape, kind), "scale": g.array(blocks, dtype, 0.001, 0.01), "offset": offset}


def affine(g: Maker, shape: tuple[int, ...], dtype: str) -> dict[str, Any]:
    each, kind = g.one((), (shape[0],)), g.one("int8", "int8", "uint8")
    zero = narrow(g, each, kind)
    return {"quantized_data": narrow(g, shape, kind), "zero_point": zero * 0 if g.chance(0.5) else zero,
            "scale": g.array(each, dtype, 0.001, 0.01)[()], "axis": np.int32(0)}  # fmt: skip


def palette(g: Maker, shape: tuple[int, ...], dtype: str) -> dict[str, Any]:
    bits = g.one(1, 2, 3, 4, 6, 8)
    table = g.array((g.one(1, shape[0]), *[1] * (len(shape) - 1), 2**bits, 1), dtype)
    return {"indices": narrow(g, shape, f"uint{bits}"), "lut": table}


def sparse(g: Maker, shape: tuple[int, ...], dtype: str) -> dict[str, Any]:
    mask = mask_of(g, shape)
    return {"nonzero_data": g.array((int((mask != 0).sum()),), dtype), "mask": mask}


def sparse_palette(g: Maker, shape: tuple[int, ...], dtype: str) -> dict[str, Any]:
    given, mask = palette(g, shape, dtype), mask_of(g, shape)
    return {"indices_mask": mask, "indices_nonzero_data": given["indices"][mask != 0], "lut": given["lut"]}


def sparse_blockwise(g: Maker, shape: tuple[int, ...], dtype: str) -> dict[str, Any]:
    given, mask = blockwise(g, shape, dtype), mask_of(g, shape)
    return {"data_mask": mask, "nonzero_data": given.pop("data")[mask != 0], **given}


def halves(g: Maker, shape: tuple[int, ...], dtype: str) -> dict[str, Any]:
    if dtype != "fp32":
        raise Refused
    return {"source_val": g.array(shape, "fp16"), "output_dtype": "fp32"}


WEIGHTS: dict[str, Weight] = {
    "constexpr_blockwise_shift_scale": blockwise, "constexpr_affine_dequantize": affine,
    "constexpr_lut_to_dense": palette, "constexpr_sparse_to_dense": sparse, "constexpr_cast": halves,
    "constexpr_lut_to_sparse": sparse_palette, "constexpr_sparse_blockwise_shift_scale": sparse_blockwise,
}  # fmt: skip


def multiplied(g: Maker, x: Ref, op: str) -> Ref:
    """A product of ``x`` with a weight that this op makes."""
    n, shape, dtype = g.one(1, 4, 6, 16, 33), g.dims(x), g.dtype(x)
    product = g.one("linear", "matmul", *["conv"] * (2 if len(shape) in (3, 4) else 0))
    bias = g.array((n,), dtype) if product != "matmul" and g.chance(0.5) else None
    if product == "conv":
        kernel = [g.int(1, min(3, size)) for size in shape[2:]]
        (weight,) = g.emit(op, **WEIGHTS[op](g, (n, shape[1], *kernel), dtype))
        return g.emit("conv", x=x, weight=weight, bias=bias, pad_type=g.one("valid", "same"),
                      strides=[g.int(1, 2) for _ in kernel])[0]  # fmt: skip
    if product == "linear":
        (weight,) = g.emit(op, **WEIGHTS[op](g, (n, shape[-1]), dtype))
        return g.emit("linear", x=x, weight=weight, bias=bias)[0]
    turned = g.chance(0.5)
    (weight,) = g.emit(op, **WEIGHTS[op](g, (n, shape[-1]) if turned else (shape[-1], n), dtype))
    return g.emit("matmul", x=x, y=weight, transpose_y=turned)[0]


@family(*WEIGHTS, "anex_linear_codes")
def compressed(g: Maker, op: str) -> None:
    x = g.pick("f", 2, 4)
    multiplied(g, x, g.one("constexpr_blockwise_shift_scale", "constexpr_lut_to_dense") if op[0] == "a" else op)


@family("anex_conv_int8", "anex_linear_int8")
def of_integers(g: Maker, op: str) -> None:
    """A product of activations and weights of 8 bits, quantised again behind it or not."""
    x = g.pick("f", *(3, 4) if op == "anex_conv_int8" else (2, 4), lambda v: np.abs(v).max() < 50)
    x = in_8_bits(g, x, 0.1)
    y = multiplied(g, x, g.one("constexpr_affine_dequantize", "constexpr_blockwise_shift_scale"))
    if g.chance(0.4):
        (y,) = g.emit("relu", x=y)
    if g.chance(0.6):
        in_8_bits(g, y, 0.2)


def in_8_bits(g: Maker, x: Ref, most: float) -> Ref:
    """quantize, then dequantize"""
    dtype = g.one("int8", "uint8")
    given = {"scale": g.scalar(g.dtype(x), most / 5, most)}
    given |= {} if dtype == "int8" and g.chance(0.5) else {"zero_point": np.dtype(dtype).type(g.int(0, 99))}
    (q,) = g.emit("quantize", input=x, output_dtype=dtype, **given)
    return g.emit("dequantize", input=q, **given)[0]


@family("conv_quantized")
def conv_quantized(g: Maker, op: str) -> None:
    x = g.pick("f", 4, 4)
    shape, n = g.dims(x), g.one(1, 4, 12)
    floats = DTYPES[g.dtype(x)]
    weight = g.rng.integers(0, 256, (n, shape[1], *[min(size, 3) for size in shape[2:]])).astype(np.uint8)
    each = g.one(1, n)  # what is unpacked is a float16 too
    g.emit(op, x=x, weight=weight, bias=g.one(None, g.array((n,), "uint8")), quantization_type="linear", nbits=8,
           quant_scale=np.full(each, g.one(0.25, 0.5, 1) / 128, floats),
           quant_bias=(g.rng.integers(-64, 65, each) / 128).astype(floats))  # fmt: skip
