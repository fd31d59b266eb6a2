"""Gradients of activations."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from .elementwise_vjp import slope, where
from .gradient import Thunk, Use, constant_like


def _constant(use: Use, name: str) -> float:
    return float(use.value(name))


def relu(mb: Any, use: Use, dy: Any) -> Mapping[str, Thunk]:
    return {"x": lambda: where(mb, mb.greater(x=use.output(), y=0.0), dy)}


def relu6(mb: Any, use: Use, dy: Any) -> Mapping[str, Thunk]:
    def x() -> Any:
        y = use.output()
        return where(mb, mb.logical_and(x=mb.greater(x=y, y=0.0), y=mb.less(x=y, y=6.0)), dy)

    return {"x": x}


def _sigmoid_slope(mb: Any, s: Any) -> Any:
    return mb.mul(x=s, y=mb.sub(x=1.0, y=s))


def _silu_slope(mb: Any, x: Any, _: Any) -> Any:
    """s (1 + x (1 - s)), s = sigmoid(x)"""
    s = mb.sigmoid(x=x)
    return mb.mul(x=s, y=mb.add(x=mb.mul(x=x, y=mb.sub(x=1.0, y=s)), y=1.0))


sigmoid = slope(lambda mb, x, y: _sigmoid_slope(mb, y()))
silu = slope(_silu_slope)
softplus = slope(lambda mb, x, y: mb.sigmoid(x=x))
softsign = slope(lambda mb, x, y: mb.real_div(x=1.0, y=mb.square(x=mb.add(x=mb.abs(x=x), y=1.0))))


def leaky_relu(mb: Any, use: Use, dy: Any) -> Mapping[str, Thunk]:
    def x() -> Any:
        return mb.select(cond=mb.greater(x=use["x"], y=0.0), a=dy, b=mb.mul(x=dy, y=_constant(use, "alpha")))

    return {"x": x}


def thresholded_relu(mb: Any, use: Use, dy: Any) -> Mapping[str, Thunk]:
    """x from alpha on, else 0"""
    return {"x": lambda: where(mb, mb.greater_equal(x=use["x"], y=_constant(use, "alpha")), dy)}


def elu(mb: Any, use: Use, dy: Any) -> Mapping[str, Thunk]:
    """alpha (e^x - 1) below 0, whose derivative is y + alpha"""

    def x() -> Any:
        slope_ = mb.add(x=use.output(), y=_constant(use, "alpha"))
        return mb.select(cond=mb.greater(x=use["x"], y=0.0), a=dy, b=mb.mul(x=dy, y=slope_))

    return {"x": x}


def prelu(mb: Any, use: Use, dy: Any) -> Mapping[str, Thunk]:
    def x() -> Any:
        alpha = _per_channel(use, "alpha", use["x"])
        return mb.select(cond=mb.greater(x=use["x"], y=0.0), a=dy, b=mb.mul(x=dy, y=alpha))

    return {"x": x}


def _per_channel(use: Use, name: str, like: Any) -> Any:
    """A constant of [channels], shaped to meet x [batch, channels, ..]."""
    value = constant_like(like, use.value(name))
    return value.reshape([-1] + [1] * (len(use.shape("x")) - 2))


def clamped_relu(mb: Any, use: Use, dy: Any) -> Mapping[str, Thunk]:
    """min(x, beta) from 0 on, min(alpha x, beta) below"""
    alpha, beta = _constant(use, "alpha"), _constant(use, "beta")

    def x() -> Any:
        given = use["x"]
        below = mb.select(cond=mb.greater_equal(x=given, y=0.0), a=dy, b=mb.mul(x=dy, y=alpha))
        return where(mb, mb.less(x=use.output(), y=beta), below)

    return {"x": x}


def linear_activation(mb: Any, use: Use, dy: Any) -> Mapping[str, Thunk]:
    return {"x": lambda: mb.mul(x=dy, y=_constant(use, "alpha"))}


def scaled_tanh(mb: Any, use: Use, dy: Any) -> Mapping[str, Thunk]:
    """alpha tanh(beta x)"""

    def x() -> Any:
        t = mb.tanh(x=mb.mul(x=use["x"], y=_constant(use, "beta")))
        slope_ = mb.mul(x=mb.sub(x=1.0, y=t), y=mb.add(x=t, y=1.0))
        return mb.mul(x=dy, y=mb.mul(x=slope_, y=_constant(use, "alpha") * _constant(use, "beta")))

    return {"x": x}


def sigmoid_hard(mb: Any, use: Use, dy: Any) -> Mapping[str, Thunk]:
    """alpha x + beta within 0 and 1"""

    def x() -> Any:
        y = use.output()
        inside = mb.logical_and(x=mb.greater(x=y, y=0.0), y=mb.less(x=y, y=1.0))
        return where(mb, inside, mb.mul(x=dy, y=_constant(use, "alpha")))

    return {"x": x}


def softplus_parametric(mb: Any, use: Use, dy: Any) -> Mapping[str, Thunk]:
    """alpha log(1 + e^(beta x)), a constant of each per channel"""

    def x() -> Any:
        alpha, beta = (_per_channel(use, name, use["x"]) for name in ("alpha", "beta"))
        inner = mb.sigmoid(x=mb.mul(x=use["x"], y=beta))
        return mb.mul(x=dy, y=mb.mul(x=inner, y=(alpha * beta).astype(alpha.dtype)))

    return {"x": x}


def gelu(mb: Any, use: Use, dy: Any) -> Mapping[str, Thunk]:
    mode = str(use.value("mode", "EXACT"))

    def x() -> Any:
        return mb.mul(x=dy, y=_GELU[mode](mb, use["x"]))

    return {"x": x}


def _gelu_exact(mb: Any, x: Any) -> Any:
    """F(x) + x f(x), of the normal distribution"""
    whole = mb.mul(x=mb.add(x=mb.erf(x=mb.mul(x=x, y=math.sqrt(0.5))), y=1.0), y=0.5)
    density = mb.exp(x=mb.mul(x=mb.square(x=x), y=-0.5))
    return mb.add(x=whole, y=mb.mul(x=mb.mul(x=x, y=density), y=1 / math.sqrt(2 * math.pi)))


def _gelu_tanh(mb: Any, x: Any) -> Any:
    """x (1 + t) / 2 with t = tanh(a (x + b x^3))"""
    a, b = math.sqrt(2 / math.pi), 0.044715
    squared = mb.square(x=x)
    t = mb.tanh(x=mb.mul(x=x, y=mb.add(x=mb.mul(x=squared, y=a * b), y=a)))
    inner = mb.mul(x=x, y=mb.add(x=mb.mul(x=squared, y=3 * a * b), y=a))
    bend = mb.mul(x=inner, y=mb.mul(x=mb.sub(x=1.0, y=t), y=0.5))
    return mb.mul(x=mb.add(x=t, y=1.0), y=mb.add(x=bend, y=0.5))


def _gelu_sigmoid(mb: Any, x: Any) -> Any:
    """x s(1.702 x)"""
    s = mb.sigmoid(x=mb.mul(x=x, y=1.702))
    bend = mb.mul(x=mb.mul(x=x, y=1.702), y=mb.sub(x=1.0, y=s))
    return mb.mul(x=s, y=mb.add(x=bend, y=1.0))


_GELU = {"EXACT": _gelu_exact, "TANH_APPROXIMATION": _gelu_tanh, "SIGMOID_APPROXIMATION": _gelu_sigmoid}
