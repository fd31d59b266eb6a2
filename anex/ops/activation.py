"""Activations."""

from __future__ import annotations

from . import activation_vjp as back
from .acceptance import SWEPT, compiled, conditional, ran
from .limits import GELU
from .record import define, per_element

define("relu", flops=per_element(1), ane=[ran(0)], vjp=back.relu)
define("relu6", flops=per_element(2), ane=[ran(0)], vjp=back.relu6)
define("sigmoid", flops=per_element(4), ane=[ran(0.00384)], vjp=back.sigmoid)
define("silu", flops=per_element(5), ane=[ran(0.00997)], vjp=back.silu)
define("softplus", flops=per_element(3), ane=[ran(0.00078)], vjp=back.softplus)
define("softsign", flops=per_element(3), ane=[ran(0.00076)], vjp=back.softsign)
define("leaky_relu", flops=per_element(2), ane=[ran(1e-05)], vjp=back.leaky_relu)
define("thresholded_relu", flops=per_element(1), ane=[ran(0)], vjp=back.thresholded_relu)
define("elu", flops=per_element(4), ane=[ran(0.00506)], vjp=back.elu)
define("prelu", flops=per_element(2), ane=[compiled()], vjp=back.prelu)
define("clamped_relu", flops=per_element(3), ane=[ran(9e-05)], vjp=back.clamped_relu)
define("linear_activation", flops=per_element(2), ane=[ran(9e-05)], vjp=back.linear_activation)
define("scaled_tanh", flops=per_element(3), ane=[ran(0.00172)], vjp=back.scaled_tanh)
define("sigmoid_hard", flops=per_element(4), ane=[ran(0.00026)], vjp=back.sigmoid_hard)
define("softplus_parametric", flops=per_element(5), ane=[compiled()], vjp=back.softplus_parametric)
define(
    "gelu",
    flops=per_element(8),
    ane=[conditional("by a table; the tanh form is sure", SWEPT, "FRG"), GELU],
    vjp=back.gelu,
)
