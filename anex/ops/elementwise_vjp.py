"""Gradients of elementwise ops. Broadcasting is undone by whoever calls these."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

from .gradient import Rule, Thunk, Use, constant_like, once


def slope(derivative: Callable[[Any, Any, Any], Any]) -> Rule:
    """Of y = f(x): dy times ``derivative(mb, x, y)``."""

    def rule(mb: Any, use: Use, dy: Any) -> Mapping[str, Thunk]:
        return {"x": lambda: mb.mul(x=dy, y=derivative(mb, use["x"], use.output))}

    return rule


def where(mb: Any, cond: Any, a: Any, b: float = 0.0) -> Any:
    """``a`` where ``cond``, else ``b``."""
    return mb.select(cond=cond, a=a, b=constant_like(a, b))


def within(mb: Any, x: Any, low: float, high: float) -> Any:
    return mb.logical_and(x=mb.greater_equal(x=x, y=low), y=mb.less_equal(x=x, y=high))


def plus(mb: Any, x: Any, small: float) -> Any:
    """x + small, where the dtype of x can tell ``small`` from 0."""
    return mb.add(x=x, y=small) if constant_like(x, small) != 0 else x


# ---- of one operand -------------------------------------------------------------------------------


def _one_minus_square(mb: Any, x: Any) -> Any:
    # (1 - x)(1 + x) keeps what 1 - x^2 would lose near 1
    return mb.mul(x=mb.sub(x=1.0, y=x), y=mb.add(x=x, y=1.0))


def _reciprocal(mb: Any, x: Any) -> Any:
    return mb.real_div(x=1.0, y=x)


acos = slope(lambda mb, x, y: mb.real_div(x=-1.0, y=mb.sqrt(x=_one_minus_square(mb, x))))
asin = slope(lambda mb, x, y: _reciprocal(mb, mb.sqrt(x=_one_minus_square(mb, x))))
atan = slope(lambda mb, x, y: _reciprocal(mb, mb.add(x=mb.square(x=x), y=1.0)))
atanh = slope(lambda mb, x, y: _reciprocal(mb, _one_minus_square(mb, x)))
cos = slope(lambda mb, x, y: mb.mul(x=mb.sin(x=x), y=-1.0))
cosh = slope(lambda mb, x, y: mb.sinh(x=x))
erf = slope(lambda mb, x, y: mb.mul(x=mb.exp(x=mb.mul(x=mb.square(x=x), y=-1.0)), y=2.0 / math.sqrt(math.pi)))
exp = slope(lambda mb, x, y: y())
exp2 = slope(lambda mb, x, y: mb.mul(x=y(), y=math.log(2.0)))
sin = slope(lambda mb, x, y: mb.cos(x=x))
sinh = slope(lambda mb, x, y: mb.cosh(x=x))
sqrt = slope(lambda mb, x, y: mb.real_div(x=0.5, y=y()))
tan = slope(lambda mb, x, y: mb.add(x=mb.square(x=y()), y=1.0))
tanh = slope(lambda mb, x, y: _one_minus_square(mb, y()))
abs_ = slope(lambda mb, x, y: mb.sign(x=x))
square = slope(lambda mb, x, y: mb.mul(x=x, y=2.0))


def threshold(mb: Any, use: Use, dy: Any) -> Mapping[str, Thunk]:
    """max(x, alpha)"""
    return {"x": lambda: where(mb, mb.greater(x=use["x"], y=float(use.value("alpha"))), dy)}


def clip(mb: Any, use: Use, dy: Any) -> Mapping[str, Thunk]:
    low, high = (float(use.value(name)) for name in ("alpha", "beta"))
    return {"x": lambda: where(mb, within(mb, use["x"], low, high), dy)}


def inverse(mb: Any, use: Use, dy: Any) -> Mapping[str, Thunk]:
    """y = 1 / (x + epsilon)"""
    return {"x": lambda: mb.mul(x=dy, y=mb.mul(x=mb.square(x=use.output()), y=-1.0))}


def log(mb: Any, use: Use, dy: Any) -> Mapping[str, Thunk]:
    """log(x + epsilon)"""
    return {"x": lambda: mb.real_div(x=dy, y=plus(mb, use["x"], float(use.value("epsilon"))))}


def rsqrt(mb: Any, use: Use, dy: Any) -> Mapping[str, Thunk]:
    """y = (x + epsilon) ** -0.5, so -y ** 3 / 2"""

    def x() -> Any:
        y = use.output()
        return mb.mul(x=mb.mul(x=dy, y=-0.5), y=mb.mul(x=mb.square(x=y), y=y))

    return {"x": x}


def cast(mb: Any, use: Use, dy: Any) -> Mapping[str, Thunk]:
    return {"x": lambda: dy}  # whoever adds it brings it to the dtype of x


# ---- of two and three -----------------------------------------------------------------------------


def add(mb: Any, use: Use, dy: Any) -> Mapping[str, Thunk]:
    return {"x": lambda: dy, "y": lambda: dy}


def sub(mb: Any, use: Use, dy: Any) -> Mapping[str, Thunk]:
    return {"x": lambda: dy, "y": lambda: mb.mul(x=dy, y=-1.0)}


def mul(mb: Any, use: Use, dy: Any) -> Mapping[str, Thunk]:
    return {"x": lambda: mb.mul(x=dy, y=use["y"]), "y": lambda: mb.mul(x=dy, y=use["x"])}


def real_div(mb: Any, use: Use, dy: Any) -> Mapping[str, Thunk]:
    dx = once(lambda: mb.real_div(x=dy, y=use["y"]))
    return {"x": dx, "y": lambda: mb.mul(x=mb.mul(x=dx(), y=use.output()), y=-1.0)}


def mod(mb: Any, use: Use, dy: Any) -> Mapping[str, Thunk]:
    """x - floor(x / y) y"""

    def y() -> Any:
        return mb.mul(x=dy, y=mb.mul(x=mb.floor_div(x=use["x"], y=use["y"]), y=-1.0))

    return {"x": lambda: dy, "y": y}


def pow_(mb: Any, use: Use, dy: Any) -> Mapping[str, Thunk]:
    """x ** y: y x ** (y - 1), and x ** y log x, which is 0 at x = 0."""

    def x() -> Any:
        power = mb.pow(x=use["x"], y=mb.sub(x=use["y"], y=1.0))
        return mb.mul(x=dy, y=mb.mul(x=power, y=use["y"]))

    def y() -> Any:
        base = use["x"]
        positive = mb.greater(x=base, y=0.0)
        safe = mb.select(cond=positive, a=base, b=constant_like(base, 1.0))
        return mb.mul(x=dy, y=mb.mul(x=use.output(), y=mb.log(x=safe, epsilon=constant_like(base, 0.0))))

    return {"x": x, "y": y}


def _of_two(compare: str) -> Rule:
    """maximum and minimum: to the one that was chosen; equals share."""

    def rule(mb: Any, use: Use, dy: Any) -> Mapping[str, Thunk]:
        def part(name: str, other: str) -> Callable[[], Any]:
            def make() -> Any:
                mine, theirs = use[name], use[other]
                half = where(mb, mb.equal(x=mine, y=theirs), mb.mul(x=dy, y=0.5))
                chosen = getattr(mb, compare)(x=mine, y=theirs)
                return mb.select(cond=chosen, a=dy, b=half)

            return make

        return {"x": part("x", "y"), "y": part("y", "x")}

    return rule


maximum = _of_two("greater")
minimum = _of_two("less")


def select(mb: Any, use: Use, dy: Any) -> Mapping[str, Thunk]:
    def b() -> Any:
        return where(mb, mb.logical_not(x=use["cond"]), dy)

    return {"a": lambda: where(mb, use["cond"], dy), "b": b}
