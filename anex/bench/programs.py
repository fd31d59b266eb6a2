"""The programs that the published benchmarks time, built with coremltools."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np

from .._coremltools import builder
from ..build import graph
from ..spec import spec

if TYPE_CHECKING:
    from coremltools.converters.mil.mil import Program, Var

QUANTUM = 2.0**-3  # the scale of activations that are int8 between layers
SEED = 0


def weights(random: np.random.Generator, *shape: int) -> np.ndarray:
    """fp16 of a size that keeps what flows through a chain where it is: the variance of a sum over the inputs is 1."""
    inputs = int(np.prod(shape[1:]))
    found: np.ndarray = (random.standard_normal(shape, np.float32) / np.sqrt(inputs)).astype(np.float16)
    return found


def conv_chain(
    depth: int, channels: int, height: int, width: int, *, batch: int = 1, relu: bool = False, fp32: bool = False
) -> Program:
    """``depth`` 1x1 convolutions, each with weights of its own. ``fp32``: at the ends, with casts around the chain."""
    mb, random = builder(), np.random.default_rng(SEED)

    def layer(x: Var, i: int) -> Var:
        x = mb.conv(x=x, weight=weights(random, channels, channels, 1, 1))
        return mb.relu(x=x) if relu else x

    return _chain(mb, layer, depth, (batch, channels, height, width), fp32)


def int8_chain(depth: int, channels: int, height: int, width: int, *, batch: int = 1, relu: bool = False) -> Program:
    """The same with int8 weights, and activations that are int8 between the layers: W8A8."""
    mb, random = builder(), np.random.default_rng(SEED)

    def layer(x: Var, i: int) -> Var:
        w = weights(random, channels, channels, 1, 1)
        scale = np.float16(np.abs(w).max() / 127)
        stored = np.clip(np.rint(w.astype(np.float32) / scale), -127, 127).astype(np.int8)
        weight = mb.constexpr_affine_dequantize(
            quantized_data=stored, zero_point=np.int8(0), scale=scale, axis=np.int32(0)
        )
        x = mb.conv(x=x, weight=weight)
        x = mb.relu(x=x) if relu else x
        return requantized(mb, x) if i < depth - 1 else x

    return _chain(mb, layer, depth, (batch, channels, height, width), False)


def requantized(mb: Any, x: Var) -> Var:
    """fp16 that goes through int8, as activations do between the layers of W8A8."""
    scale = np.float16(QUANTUM)
    return mb.dequantize(input=mb.quantize(input=x, scale=scale, output_dtype="int8"), scale=scale)


def _chain(mb: Any, layer: Callable[[Var, int], Var], depth: int, shape: tuple[int, ...], fp32: bool) -> Program:
    @graph(x=spec(shape, "float32" if fp32 else "float16"))
    def chain(x: Var) -> Var:
        x = mb.cast(x=x, dtype="fp16") if fp32 else x
        for i in range(depth):
            x = layer(x, i)
        return mb.cast(x=x, dtype="fp32") if fp32 else x

    return chain


def matmul(m: int, k: int, n: int) -> Program:
    """a [M, K] x b [K, N], both inputs."""
    mb = builder()

    @graph(a=(1, 1, m, k), b=(1, 1, k, n))
    def product(a: Var, b: Var) -> Var:
        return mb.matmul(x=a, y=b)

    return product


def matmul_as_conv(m: int, k: int, n: int, b: np.ndarray | None = None) -> Program:
    """The same as a 1x1 convolution: x (1, K, 1, M), weight (N, K, 1, 1) of b [K, N], y (1, N, 1, M)."""
    mb = builder()
    weight = weights(np.random.default_rng(SEED), n, k) if b is None else np.ascontiguousarray(b.T)

    @graph(x=(1, k, 1, m))
    def product(x: Var) -> Var:
        return mb.conv(x=x, weight=weight[:, :, None, None])

    return product
