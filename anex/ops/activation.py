"""Activations."""

from __future__ import annotations

from .acceptance import SWEPT, compiled, conditional, ran
from .limits import GELU
from .record import define, per_element

define("relu", flops=per_element(1), ane=[ran(0)])
define("relu6", flops=per_element(2), ane=[ran(0)])
define("sigmoid", flops=per_element(4), ane=[ran(0.00384)])
define("silu", flops=per_element(5), ane=[ran(0.00997)])
define("softplus", flops=per_element(3), ane=[ran(0.00078)])
define("softsign", flops=per_element(3), ane=[ran(0.00076)])
define("leaky_relu", flops=per_element(2), ane=[ran(1e-05)])
define("thresholded_relu", flops=per_element(1), ane=[ran(0)])
define("elu", flops=per_element(4), ane=[ran(0.00506)])
define("prelu", flops=per_element(2), ane=[compiled()])
define("clamped_relu", flops=per_element(3), ane=[ran(9e-05)])
define("linear_activation", flops=per_element(2), ane=[ran(9e-05)])
define("scaled_tanh", flops=per_element(3), ane=[ran(0.00172)])
define("sigmoid_hard", flops=per_element(4), ane=[ran(0.00026)])
define("softplus_parametric", flops=per_element(5), ane=[compiled()])
define("gelu", flops=per_element(8), ane=[conditional("by a table; the tanh form is sure", SWEPT, "FRG"), GELU])
