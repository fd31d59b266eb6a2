"""What an op must give. Floats come in as float64, whatever the program's dtype; so do results, unrounded."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import coremltools as ct
import numpy as np
import test_conv
import test_normalization
import test_pool
import torch
from coremltools.converters.mil.mil import Builder as mb
from coremltools.converters.mil.mil import Function, types
from harness import inferred
from test_attention import attended

from .graph import Bound, Step, add, resolve

torch.set_num_threads(1)  # small products: its threads would only get in each other's way

Arrays = tuple[np.ndarray, ...]
OWN: dict[str, Callable[..., Any]] = {}


def own(*ops: str) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    def register(function: Callable[..., Any]) -> Callable[..., Any]:
        for op in ops:
            OWN[op] = function
        return function

    return register


def evaluate(op: str, opset: str, arguments: dict[str, Any]) -> Arrays:
    """The results of an op on arrays."""
    with np.errstate(all="ignore"):
        if op.startswith("constexpr_"):
            return (unpacked(op, opset, arguments),)
        if function := OWN.get(op):
            wide = {name: widen(value, np.float64) for name, value in arguments.items()}
            result = function(op, **{name: computed(value, opset) for name, value in wide.items()})
        else:
            result = inferred(op, opset, {name: widen(value, np.float32) for name, value in arguments.items()})
    results = result if isinstance(result, tuple) else (result,)
    return tuple(np.asarray(value) for value in results)


def widen(value: Any, dtype: Any) -> Any:
    if isinstance(value, list) and any(isinstance(v, np.ndarray) for v in value):
        return [widen(v, dtype) for v in value]
    if isinstance(value, (np.ndarray, np.floating)) and value.dtype.kind == "f":
        return value.astype(dtype)
    return value


def computed(value: Any, opset: str) -> Any:
    """A block as a function of arrays."""
    if not isinstance(value, Bound):
        return value

    def do(step: Step, known: Callable[[str], Any]) -> Arrays:
        return evaluate(step.op, opset, resolve(step.arguments, known))

    return lambda *given: value.run(given, do)


def unpacked(op: str, opset: str, arguments: dict[str, Any]) -> np.ndarray:
    """A compressed weight, as coremltools decompresses it."""
    with Function({"unused": mb.placeholder((1,), dtype=types.fp32)}, ct.target[opset]):
        (made,) = add(Step(op, "made", arguments), lambda name: None)
        return np.asarray(made.op.materialized_val_inference())


# ---- elementwise ----------------------------------------------------------------------------

FUNCTIONS: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "acos": np.arccos, "asin": np.arcsin, "atan": np.arctan, "atanh": np.arctanh, "ceil": np.ceil, "cos": np.cos,
    "cosh": np.cosh, "exp": np.exp, "floor": np.floor, "round": np.rint, "sin": np.sin, "sinh": np.sinh,
    "sqrt": np.sqrt, "tan": np.tan, "tanh": np.tanh, "abs": np.abs, "sign": np.sign, "square": np.square,
    "exp2": np.exp2, "logical_not": np.logical_not, "relu": lambda x: np.maximum(x, 0),
    "relu6": lambda x: np.clip(x, 0, 6), "sigmoid": lambda x: 1 / (1 + np.exp(-x)),
    "silu": lambda x: x / (1 + np.exp(-x)), "softplus": lambda x: np.logaddexp(0, x),
    "softsign": lambda x: x / (1 + np.abs(x)), "erf": lambda x: torch.erf(torch.as_tensor(x)).numpy(),
    "identity": lambda x: x,
}  # fmt: skip


@own(*FUNCTIONS)
def unary(op, x):
    y = FUNCTIONS[op](x)
    return y.astype(x.dtype) if op == "exp2" else y


@own("add", "sub", "mul", "maximum", "minimum")
def arithmetic(op, x, y):
    name = {"add": "add", "sub": "subtract", "mul": "multiply"}.get(op, op)
    return getattr(np, name)(np.asarray(x), np.asarray(y))


@own("real_div")
def real_div(op, x, y):
    x, y = np.asarray(x), np.asarray(y)
    return x / y if x.dtype.kind == "f" else np.trunc(x / y).astype(x.dtype)


@own("thresholded_relu")
def thresholded_relu(op, x, alpha):
    return np.where(x >= alpha, x, 0)


@own("cast")
def cast(op, x, dtype):
    if dtype in ("fp16", "fp32"):
        return x.astype(np.float64)
    return (x != 0) if dtype == "bool" else np.trunc(x).astype(dtype)


# ---- products -------------------------------------------------------------------------------


@own("matmul")
def matmul(op, x, y, transpose_x=False, transpose_y=False):
    x = np.swapaxes(x, -1, -2) if transpose_x and x.ndim > 1 else x
    return x @ (np.swapaxes(y, -1, -2) if transpose_y and y.ndim > 1 else y)


@own("linear")
def linear(op, x, weight, bias=0):
    return x @ weight.T + bias


@own("einsum")
def einsum(op, values, equation):
    return np.einsum(equation, *values)


@own("conv")
def conv(op, **arguments):
    return test_conv.convolved(**arguments)


@own("conv_quantized")
def conv_quantized(op, weight, quant_scale, quant_bias, quantization_type, nbits, bias=None, **arguments):
    scale, offset = (v.reshape(-1, *[1] * (weight.ndim - 1)) for v in (quant_scale, quant_bias))
    return test_conv.convolved(weight=weight * scale + offset, bias=bias if bias is None else bias.astype(np.float64),
                               **arguments)  # fmt: skip


@own("conv_transpose")
def conv_transpose(op, **arguments):
    return test_conv.transposed(**arguments)


@own("scaled_dot_product_attention")
def attention(op, **arguments):
    return attended(**arguments)


# ---- reductions and norms -------------------------------------------------------------------

REDUCTIONS = {
    "reduce_sum": np.sum, "reduce_mean": np.mean, "reduce_max": np.max, "reduce_min": np.min, "reduce_prod": np.prod,
    "reduce_l1_norm": lambda x, **k: np.sum(np.abs(x), **k), "reduce_sum_square": lambda x, **k: np.sum(x * x, **k),
    "reduce_l2_norm": lambda x, **k: np.sqrt(np.sum(x * x, **k)),
    "reduce_log_sum": lambda x, **k: np.log(np.sum(x, **k)),
    "reduce_log_sum_exp": lambda x, **k: np.log(np.sum(np.exp(x), **k)),
}  # fmt: skip


@own(*REDUCTIONS)
def reduction(op, x, axes=None, keep_dims=False):
    axes = tuple(range(x.ndim)) if axes is None else tuple(int(a) % x.ndim for a in axes)
    if x.dtype.kind == "i":
        return REDUCTIONS[op](x.astype(np.float64), axis=axes, keepdims=keep_dims).astype(x.dtype)
    return REDUCTIONS[op](x, axis=axes, keepdims=keep_dims)


@own("cumsum")
def cumsum(op, x, axis=0, exclusive=False, reverse=False):
    y = np.flip(x, axis) if reverse else x
    total = np.cumsum(y, axis, dtype=x.dtype)
    total = total - y if exclusive and x.dtype.kind == "i" else total
    if exclusive and x.dtype.kind == "f":
        total = np.roll(total, 1, axis)
        total[(*[slice(None)] * (axis % x.ndim), 0)] = 0
    return np.flip(total, axis) if reverse else total


@own("softmax")
def softmax(op, x, axis):
    return torch.softmax(torch.as_tensor(x), axis).numpy()


@own("layer_norm")
def layer_norm(op, **arguments):
    return test_normalization.numpy_layer_norm(**arguments)


@own("instance_norm")
def instance_norm(op, x, gamma=None, beta=None, epsilon=1e-5):
    axes, shape = tuple(range(2, x.ndim)), (1, -1, *[1] * (x.ndim - 2))
    y = (x - x.mean(axes, keepdims=True)) / np.sqrt(x.var(axes, keepdims=True) + epsilon)
    return y * (1 if gamma is None else gamma.reshape(shape)) + (0 if beta is None else beta.reshape(shape))


@own("batch_norm")
def batch_norm(op, x, mean, variance, gamma=None, beta=None, epsilon=1e-5):
    shape = (1, -1, *[1] * (x.ndim - 2))
    y = (x - mean.reshape(shape)) / np.sqrt(variance.reshape(shape) + epsilon)
    return y * (1 if gamma is None else gamma.reshape(shape)) + (0 if beta is None else beta.reshape(shape))


@own("local_response_norm")
def local_response_norm(op, x, size, alpha=1e-4, beta=0.75, k=1.0):
    squares, total = x**2, np.zeros_like(x)
    for i in range(x.shape[1]):
        total[:, i] = squares[:, max(0, i - size // 2) : i + (size - 1) // 2 + 1].sum(1)
    return x / (k + alpha / size * total) ** beta


@own("avg_pool", "max_pool", "l2_pool")
def pool(op, x, kernel_sizes, strides, pad_type, pad=None, exclude_padding_from_average=False):
    around = test_pool.pads(x.shape[2:], kernel_sizes, strides, pad_type, pad)
    return test_pool.pool(op, x, kernel_sizes, strides, around, exclude_padding_from_average)
