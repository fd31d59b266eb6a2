"""Elementwise ops of one, two and three operands."""

from __future__ import annotations

from .acceptance import SWEPT, compiled, conditional, ran, refused, since
from .limits import BROADCAST, CAST, ON_M1
from .record import define, per_element

define("acos", flops=per_element(1), ane=[refused(cure="rewrite_refused")])
define("asin", flops=per_element(1), ane=[refused(cure="rewrite_refused")])
define("atan", flops=per_element(1), ane=[ran(0.01881)])
define("atanh", flops=per_element(1), ane=[refused(cure="rewrite_refused")])
define("ceil", flops=per_element(1), ane=[ran(0)])
define(
    "cos",
    flops=per_element(1),
    ane=[conditional("native on M3 and later", SWEPT, "FRG"), since("h15", fix="use a polynomial")],
)
define("cosh", flops=per_element(1), ane=[refused(cure="rewrite_refused")])
define("erf", flops=per_element(1), ane=[ran(0.0007)])
define("exp", flops=per_element(1), ane=[ran(0.00047)])
define("exp2", flops=per_element(1), ane=[ran(0.00048)])
define("floor", flops=per_element(1), ane=[ran(0)])
define("round", flops=per_element(1), ane=[ran(0)])
define(
    "sin",
    flops=per_element(1),
    ane=[conditional("native on M3 and later", SWEPT, "FRG"), since("h15", fix="use a polynomial")],
)
define("sinh", flops=per_element(1), ane=[refused(cure="rewrite_refused")])
define("sqrt", flops=per_element(1), ane=[ran(0.00043)])
define("tan", flops=per_element(1), ane=[refused(cure="rewrite_refused")])
define("tanh", flops=per_element(1), ane=[ran(0.00126)])
define("abs", flops=per_element(1), ane=[ran(0)])
define("sign", flops=per_element(1), ane=[ran(0)])
define("square", flops=per_element(1), ane=[ran(8e-05)])
define("threshold", flops=per_element(1), ane=[ran(0)])
define("logical_not", flops=per_element(1), ane=[compiled()])
define("clip", flops=per_element(2), ane=[ran(0)])
define("inverse", flops=per_element(2), ane=[ran(0.00028)])  # 1 / (x + epsilon)
define("log", flops=per_element(2), ane=[ran(0.0008)])  # log(x + epsilon)
define("rsqrt", flops=per_element(3), ane=[ran(0.00104), ON_M1])  # 1 / sqrt(x + epsilon)
define("cast", ane=[conditional("between fp16 and fp32 at the edges; alone it fails", SWEPT, "MDX", "APM"), CAST])

define("add", flops=per_element(1), ane=[ran(0.00033), BROADCAST])
define("sub", flops=per_element(1), ane=[ran(0.0003), BROADCAST])
define("mul", flops=per_element(1), ane=[ran(0.00017), BROADCAST])
define("real_div", flops=per_element(1), ane=[ran(0.00017), BROADCAST])
define("floor_div", flops=per_element(2), ane=[ran(0)])
define("mod", flops=per_element(4), ane=[refused(cure="rewrite_refused")])  # x - floor(x / y) * y
define("pow", flops=per_element(1), ane=[ran(0.00018), ON_M1])
define("maximum", flops=per_element(1), ane=[ran(0), BROADCAST])
define("minimum", flops=per_element(1), ane=[ran(0), BROADCAST])
define("greater", flops=per_element(1), ane=[compiled()])
define("greater_equal", flops=per_element(1), ane=[compiled()])
define("less", flops=per_element(1), ane=[compiled()])
define("less_equal", flops=per_element(1), ane=[compiled()])
define("equal", flops=per_element(1), ane=[compiled()])
define("not_equal", flops=per_element(1), ane=[compiled()])
define(
    "logical_and",
    flops=per_element(1),
    ane=[refused("has no truth values to compute with", fix="multiply", cure="rewrite_refused")],
)
define(
    "logical_or",
    flops=per_element(1),
    ane=[refused("has no truth values to compute with", fix="use maximum", cure="rewrite_refused")],
)
define(
    "logical_xor",
    flops=per_element(1),
    ane=[refused("has no truth values to compute with", fix="use not_equal", cure="rewrite_refused")],
)
define("select", ane=[ran(0)])
