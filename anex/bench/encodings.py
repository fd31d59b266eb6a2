"""Weights as the published probe encodes them, and what each encoding stands for."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np

from .._coremltools import builder
from ..build import graph
from ..spec import spec
from .programs import SEED, weights

if TYPE_CHECKING:
    from coremltools.converters.mil.mil import Program, Var

BLOCK = 32  # inputs that share a scale
PALETTE = 16  # entries of a 4-bit table


@dataclass(frozen=True)
class Encoding:
    """``name`` as published; ``make`` of a weight [out, in]: what stands in the program, and its fp64 value."""

    name: str
    make: Callable[[Any, np.ndarray], tuple[Any, np.ndarray]]
    bytes_per_weight: float


def baked(mb: Any, weight: np.ndarray) -> tuple[Any, np.ndarray]:
    return weight[:, :, None, None], weight.astype(np.float64)


def affine(low: np.ndarray, high: np.ndarray, steps: int) -> tuple[np.ndarray, np.ndarray]:
    """Scale and zero point of each row, or block of one, that reach from ``low`` to ``high`` in ``steps`` steps."""
    scale = np.float16(np.maximum(high - low, 1e-4) / steps)
    return scale, np.clip(np.rint(-low / scale.astype(np.float64)), 0, steps)


def int8_channel(mb: Any, weight: np.ndarray) -> tuple[Any, np.ndarray]:
    """``constexpr_affine_dequantize``: a scale and a zero point each output channel."""
    wide = weight.astype(np.float64)
    scale, zero = affine(wide.min(1), wide.max(1), 255)
    zero = zero.astype(np.int16) - 128
    codes = np.clip(np.rint(wide / scale[:, None].astype(np.float64)) + zero[:, None], -128, 127).astype(np.int8)
    made = mb.constexpr_affine_dequantize(
        quantized_data=codes[:, :, None, None], zero_point=zero.astype(np.int8), scale=scale, axis=np.int32(0)
    )
    return made, (codes.astype(np.float64) - zero[:, None]) * scale[:, None].astype(np.float64)


def uint4_blocks(block: int | None, mb: Any, weight: np.ndarray) -> tuple[Any, np.ndarray]:
    """``constexpr_blockwise_shift_scale``: 4 bits, a scale and an offset for each ``block`` inputs, or each row."""
    from coremltools.converters.mil.mil import types

    rows, inputs = weight.shape
    size = block or inputs
    wide = weight.astype(np.float64).reshape(rows, inputs // size, size)
    scale, zero = affine(wide.min(2), wide.max(2), 15)
    codes = np.clip(np.rint(wide / scale[..., None].astype(np.float64)) + zero[..., None], 0, 15)
    value = (codes - zero[..., None]) * scale[..., None].astype(np.float64)
    packed = codes.reshape(rows, inputs, 1, 1).astype(types.np_uint4_dtype)
    offset = zero[..., None, None].astype(types.np_uint4_dtype)
    made = mb.constexpr_blockwise_shift_scale(data=packed, scale=scale[..., None, None], offset=offset)
    return made, value.reshape(rows, inputs)


def palette(mb: Any, weight: np.ndarray) -> tuple[Any, np.ndarray]:
    """``constexpr_lut_to_dense``: each weight the nearest of 16 values at equal steps."""
    from coremltools.converters.mil.mil import types

    table = np.linspace(weight.min(), weight.max(), PALETTE).astype(np.float16)
    codes = np.abs(weight[..., None].astype(np.float32) - table.astype(np.float32)).argmin(-1)
    made = mb.constexpr_lut_to_dense(
        indices=codes[:, :, None, None].astype(types.np_uint4_dtype), lut=table.reshape(1, 1, 1, 1, PALETTE, 1)
    )
    return made, table[codes].astype(np.float64)


ENCODINGS = (
    Encoding("FP16 baked", baked, 2),
    Encoding("INT8 per-channel affine", int8_channel, 1),
    Encoding("UINT4 per-channel", partial(uint4_blocks, None), 0.5),
    Encoding(f"UINT4 blockwise bs={BLOCK}", partial(uint4_blocks, BLOCK), 0.5),
    Encoding(f"4-bit LUT {PALETTE} entries", palette, 0.5),
)


def convolution(encoding: Encoding, out: int, into: int, width: int) -> Program:
    """A 1x1 convolution with weights so encoded; float32 at the ends, as the published probe has it."""
    mb, weight = builder(), weights(np.random.default_rng(SEED), out, into)

    @graph(x=spec((1, into, 1, width), "float32"))
    def product(x: Var) -> Var:
        made, _ = encoding.make(mb, weight)
        return mb.cast(x=mb.conv(x=mb.cast(x=x, dtype="fp16"), weight=made), dtype="fp32")

    return product


def reference(encoding: Encoding, out: int, into: int, x: np.ndarray) -> np.ndarray:
    """The same in float64 with the weights that the encoding stands for; [1, out, 1, width]."""
    found: list[np.ndarray] = []

    @graph(x=(1, 1))
    def record(x: Var) -> Var:
        mb = builder()
        found.append(encoding.make(mb, weights(np.random.default_rng(SEED), out, into))[1])
        return mb.identity(x=x)

    half = x.astype(np.float16).astype(np.float64)[0, :, 0]
    product: np.ndarray = (found[0] @ half)[None, :, None]
    return product


def weight_only_chain(depth: int, channels: int, height: int, width: int) -> Program:
    """1x1 convolutions with int8 weights; activations stay fp16."""
    mb, random = builder(), np.random.default_rng(SEED)

    @graph(x=(1, channels, height, width))
    def chain(x: Var) -> Var:
        for _ in range(depth):
            x = mb.conv(x=x, weight=int8_channel(mb, weights(random, channels, channels))[0])
        return x

    return chain
