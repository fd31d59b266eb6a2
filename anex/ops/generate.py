"""Ops that make tensors out of little."""

from __future__ import annotations

from .acceptance import native_but_refused, no_native_layer, ran, refused
from .record import define, outputs_once

define("fill", ane=[ran(0.00034)])
define("fill_like", bytes=outputs_once, ane=[ran(0.00029)])
define("range_1d", bytes=outputs_once, ane=[ran(0.00025), no_native_layer("bridged")])
define("one_hot", ane=[refused(fix="compare the indices with a range", cure="rewrite_refused")])
define("shape", bytes=outputs_once, ane=[refused(fix="give every input a fixed shape, then it is a constant")])
PASS_NUMBERS = "pass random numbers as an input"
define("random_uniform", bytes=outputs_once, ane=[native_but_refused(fix=PASS_NUMBERS)])
for _name in ("random_normal", "random_bernoulli", "random_categorical"):
    define(_name, bytes=outputs_once, ane=[refused(fix=PASS_NUMBERS)])
