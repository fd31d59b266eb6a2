"""Ops that make tensors out of little."""

from __future__ import annotations

from .acceptance import native_but_refused, no_native_layer, ran, refused
from .gradient import CONSTANT, INTEGER, RANDOM, NoGradient
from .record import define, outputs_once

SHAPE_ONLY = NoGradient("depends on the shape of its operand, not on its values")

define("fill", ane=[ran(0.00034)], vjp=CONSTANT)
define("fill_like", bytes=outputs_once, ane=[ran(0.00029)], vjp=SHAPE_ONLY)
define(
    "range_1d",
    bytes=outputs_once,
    ane=[ran(0.00025), no_native_layer("bridged")],
    vjp=NoGradient("its values are numbered, not computed"),
)
define("one_hot", ane=[refused(fix="compare the indices with a range", cure="rewrite_refused")], vjp=INTEGER)
define(
    "shape",
    bytes=outputs_once,
    ane=[refused(fix="give every input a fixed shape, then it is a constant")],
    vjp=SHAPE_ONLY,
)
PASS_NUMBERS = "pass random numbers as an input"
define("random_uniform", bytes=outputs_once, ane=[native_but_refused(fix=PASS_NUMBERS)], vjp=RANDOM)
for _name in ("random_normal", "random_bernoulli", "random_categorical"):
    define(_name, bytes=outputs_once, ane=[refused(fix=PASS_NUMBERS)], vjp=RANDOM)
