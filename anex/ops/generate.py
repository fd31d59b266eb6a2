"""Ops that make tensors out of little."""

from __future__ import annotations

from .record import define, outputs_once

define("fill")
define("fill_like", bytes=outputs_once)
define("range_1d", bytes=outputs_once)
define("one_hot")
define("shape", bytes=outputs_once)
for _name in ("random_uniform", "random_normal", "random_bernoulli", "random_categorical"):
    define(_name, bytes=outputs_once)
