"""Activations."""

from __future__ import annotations

from .record import define, per_element

define("relu", flops=per_element(1))
define("relu6", flops=per_element(2))
define("sigmoid", flops=per_element(4))
define("silu", flops=per_element(5))
define("softplus", flops=per_element(3))
define("softsign", flops=per_element(3))
define("leaky_relu", flops=per_element(2))
define("thresholded_relu", flops=per_element(1))
define("elu", flops=per_element(4))
define("prelu", flops=per_element(2))
define("clamped_relu", flops=per_element(3))
define("linear_activation", flops=per_element(2))
define("scaled_tanh", flops=per_element(3))
define("sigmoid_hard", flops=per_element(4))
define("softplus_parametric", flops=per_element(5))
define("gelu", flops=per_element(8))
