"""Elementwise ops of one, two and three operands."""

from __future__ import annotations

from . import elementwise_vjp as back
from .acceptance import SWEPT, compiled, conditional, ran, refused, since
from .gradient import INTEGER, STEPS
from .limits import BROADCAST, CAST, ON_M1
from .record import define, per_element

define("acos", flops=per_element(1), ane=[refused(cure="rewrite_refused")], vjp=back.acos)
define("asin", flops=per_element(1), ane=[refused(cure="rewrite_refused")], vjp=back.asin)
define("atan", flops=per_element(1), ane=[ran(0.01881)], vjp=back.atan)
define("atanh", flops=per_element(1), ane=[refused(cure="rewrite_refused")], vjp=back.atanh)
define("ceil", flops=per_element(1), ane=[ran(0)], vjp=STEPS)
define(
    "cos",
    flops=per_element(1),
    ane=[conditional("native on M3 and later", SWEPT, "FRG"), since("h15", fix="use a polynomial")],
    vjp=back.cos,
)
define("cosh", flops=per_element(1), ane=[refused(cure="rewrite_refused")], vjp=back.cosh)
define("erf", flops=per_element(1), ane=[ran(0.0007)], vjp=back.erf)
define("exp", flops=per_element(1), ane=[ran(0.00047)], vjp=back.exp)
define("exp2", flops=per_element(1), ane=[ran(0.00048)], vjp=back.exp2)
define("floor", flops=per_element(1), ane=[ran(0)], vjp=STEPS)
define("round", flops=per_element(1), ane=[ran(0)], vjp=STEPS)
define(
    "sin",
    flops=per_element(1),
    ane=[conditional("native on M3 and later", SWEPT, "FRG"), since("h15", fix="use a polynomial")],
    vjp=back.sin,
)
define("sinh", flops=per_element(1), ane=[refused(cure="rewrite_refused")], vjp=back.sinh)
define("sqrt", flops=per_element(1), ane=[ran(0.00043)], vjp=back.sqrt)
define("tan", flops=per_element(1), ane=[refused(cure="rewrite_refused")], vjp=back.tan)
define("tanh", flops=per_element(1), ane=[ran(0.00126)], vjp=back.tanh)
define("abs", flops=per_element(1), ane=[ran(0)], vjp=back.abs_)
define("sign", flops=per_element(1), ane=[ran(0)], vjp=STEPS)
define("square", flops=per_element(1), ane=[ran(8e-05)], vjp=back.square)
define("threshold", flops=per_element(1), ane=[ran(0)], vjp=back.threshold)
define("logical_not", flops=per_element(1), ane=[compiled()], vjp=INTEGER)
define("clip", flops=per_element(2), ane=[ran(0)], vjp=back.clip)
define("inverse", flops=per_element(2), ane=[ran(0.00028)], vjp=back.inverse)  # 1 / (x + epsilon)
define("log", flops=per_element(2), ane=[ran(0.0008)], vjp=back.log)  # log(x + epsilon)
define("rsqrt", flops=per_element(3), ane=[ran(0.00104), ON_M1], vjp=back.rsqrt)  # 1 / sqrt(x + epsilon)
define(
    "cast",
    ane=[conditional("between fp16 and fp32 at the edges; alone it fails", SWEPT, "MDX", "APM"), CAST],
    vjp=back.cast,
)

define("add", flops=per_element(1), ane=[ran(0.00033), BROADCAST], vjp=back.add)
define("sub", flops=per_element(1), ane=[ran(0.0003), BROADCAST], vjp=back.sub)
define("mul", flops=per_element(1), ane=[ran(0.00017), BROADCAST], vjp=back.mul)
define("real_div", flops=per_element(1), ane=[ran(0.00017), BROADCAST], vjp=back.real_div)
define("floor_div", flops=per_element(2), ane=[ran(0)], vjp=STEPS)
define("mod", flops=per_element(4), ane=[refused(cure="rewrite_refused")], vjp=back.mod)  # x - floor(x / y) * y
define("pow", flops=per_element(1), ane=[ran(0.00018), ON_M1], vjp=back.pow_)
define("maximum", flops=per_element(1), ane=[ran(0), BROADCAST], vjp=back.maximum)
define("minimum", flops=per_element(1), ane=[ran(0), BROADCAST], vjp=back.minimum)
define("greater", flops=per_element(1), ane=[compiled()], vjp=INTEGER)
define("greater_equal", flops=per_element(1), ane=[compiled()], vjp=INTEGER)
define("less", flops=per_element(1), ane=[compiled()], vjp=INTEGER)
define("less_equal", flops=per_element(1), ane=[compiled()], vjp=INTEGER)
define("equal", flops=per_element(1), ane=[compiled()], vjp=INTEGER)
define("not_equal", flops=per_element(1), ane=[compiled()], vjp=INTEGER)
define(
    "logical_and",
    flops=per_element(1),
    ane=[refused("has no truth values to compute with", fix="multiply", cure="rewrite_refused")],
    vjp=INTEGER,
)
define(
    "logical_or",
    flops=per_element(1),
    ane=[refused("has no truth values to compute with", fix="use maximum", cure="rewrite_refused")],
    vjp=INTEGER,
)
define(
    "logical_xor",
    flops=per_element(1),
    ane=[refused("has no truth values to compute with", fix="use not_equal", cure="rewrite_refused")],
    vjp=INTEGER,
)
define("select", ane=[ran(0)], vjp=back.select)
