"""Gradients of softmax and of norms."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from .elementwise_vjp import plus
from .gradient import ByParts, Thunk, Use, constant_like
from .shape_vjp import cut, padded


def softmax(mb: Any, use: Use, dy: Any) -> Mapping[str, Thunk]:
    """y (dy - sum(dy y))"""
    axis = int(use.value("axis", -1))

    def x() -> Any:
        y = use.output()
        mean = mb.reduce_sum(x=mb.mul(x=dy, y=y), axes=[axis], keep_dims=True)
        return mb.mul(x=y, y=mb.sub(x=dy, y=mean))

    return {"x": x}


def layer_norm(mb: Any, use: Use, dy: Any) -> Mapping[str, Thunk]:
    shape = use.shape("x")
    axes = use.value("axes")
    axes = sorted({int(axis) % len(shape) for axis in (range(len(shape)) if axes is None else axes)})
    form = [n if i in axes else 1 for i, n in enumerate(shape)]
    return {"x": lambda: _normalised(mb, use, dy, axes, form)}


def instance_norm(mb: Any, use: Use, dy: Any) -> Mapping[str, Thunk]:
    """Over the positions of each channel; gamma: [channels]."""
    shape = use.shape("x")
    form = [1, shape[1]] + [1] * (len(shape) - 2)
    return {"x": lambda: _normalised(mb, use, dy, list(range(2, len(shape))), form)}


def _normalised(mb: Any, use: Use, dy: Any, axes: list[int], form: list[int]) -> Any:
    """y = n gamma + beta, n = (x - mean) r: r (g - mean(g) - n mean(g n)), g = dy gamma"""
    x, gamma = use["x"], use.value("gamma")
    g = dy if gamma is None else mb.mul(x=dy, y=constant_like(dy, gamma).reshape(form))
    centred = mb.sub(x=x, y=mb.reduce_mean(x=x, axes=axes, keep_dims=True))
    variance = mb.reduce_mean(x=mb.square(x=centred), axes=axes, keep_dims=True)
    r = mb.rsqrt(x=plus(mb, variance, float(use.value("epsilon", 1e-5))), epsilon=constant_like(x, 0.0))
    n = mb.mul(x=centred, y=r)
    along = mb.reduce_mean(x=mb.mul(x=g, y=n), axes=axes, keep_dims=True)
    rest = mb.sub(x=mb.sub(x=g, y=mb.reduce_mean(x=g, axes=axes, keep_dims=True)), y=mb.mul(x=n, y=along))
    return mb.mul(x=r, y=rest)


def batch_norm(mb: Any, use: Use, dy: Any) -> Mapping[str, Thunk]:
    """With the mean and variance of before, which are constants: one factor a channel."""

    def x() -> Any:
        variance = np.asarray(use.value("variance"), np.float64)
        factor = 1 / np.sqrt(variance + float(use.value("epsilon", 1e-5)))
        if use.value("gamma") is not None:
            factor = factor * np.asarray(use.value("gamma"), np.float64)
        return mb.mul(x=dy, y=constant_like(dy, factor).reshape([-1] + [1] * (len(use.shape("x")) - 2)))

    return {"x": x}


def _l2_norm(mb: Any, use: Use) -> Any:
    """x / sqrt(sum of squares + epsilon), over the last three axes"""
    x = use["x"]
    total = mb.reduce_sum_square(x=x, axes=[-3, -2, -1], keep_dims=True)
    return mb.mul(x=x, y=mb.rsqrt(x=plus(mb, total, float(use.value("epsilon"))), epsilon=constant_like(x, 0.0)))


def _local_response_norm(mb: Any, use: Use) -> Any:
    """x / (k + alpha / size * sum of the squares of ``size`` channels around) ** beta"""
    x, shape, size = use["x"], list(use.shape("x")), int(use.value("size"))
    alpha, beta, k = (float(use.value(name)) for name in ("alpha", "beta", "k"))
    before = size // 2
    rest = [0] * (len(shape) - 2)
    squares = padded(mb, mb.square(x=x), [0, before, *rest], [0, size - 1 - before, *rest])
    total = None
    for i in range(size):
        part = cut(mb, squares, [0, i, *rest], tuple(shape))
        total = part if total is None else mb.add(x=total, y=part)
    base = mb.add(x=mb.mul(x=total, y=alpha / size), y=k)
    return mb.mul(x=x, y=mb.pow(x=base, y=-beta))


l2_norm = ByParts(_l2_norm)
local_response_norm = ByParts(_local_response_norm)
