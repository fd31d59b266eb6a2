"""What an op must give. Floats come in as float64, whatever the program's dtype; so do results, unrounded."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import test_conv
import test_normalization
import test_pool
import test_recurrent
import test_resize
import torch
from harness import inferred
from test_attention import attended
from test_indexing import combine
from test_shape import space_to_batch

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
            result = function(op, **{name: widen(value, np.float64) for name, value in arguments.items()})
        else:
            result = inferred(op, opset, {name: widen(value, np.float32) for name, value in arguments.items()})
    results = result if isinstance(result, tuple) else (result,)
    return tuple(np.asarray(value) for value in results)


def widen(value: Any, dtype: Any) -> Any:
    if isinstance(value, list) and value and isinstance(value[0], np.ndarray):
        return [widen(v, dtype) for v in value]
    if isinstance(value, (np.ndarray, np.floating)) and value.dtype.kind == "f":
        return value.astype(dtype)
    return value


def unpacked(op: str, opset: str, arguments: dict[str, Any]) -> np.ndarray:
    """A compressed weight, as coremltools decompresses it."""
    import coremltools as ct
    from coremltools.converters.mil.mil import Builder as mb
    from coremltools.converters.mil.mil import Function, types

    with Function({"unused": mb.placeholder((1,), dtype=types.fp32)}, ct.target[opset]):
        return np.asarray(getattr(mb, op)(**arguments).op.materialized_val_inference())


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
    half, squares, total = (size - 1) // 2, x**2, np.zeros_like(x)
    for i in range(x.shape[1]):
        total[:, i] = squares[:, max(0, i - half) : i + half + 1].sum(1)
    return x / (k + alpha / size * total) ** beta


@own("avg_pool", "max_pool", "l2_pool")
def pool(op, x, kernel_sizes, strides, pad_type, pad=None, exclude_padding_from_average=False):
    around = test_pool.pads(x.shape[2:], kernel_sizes, strides, pad_type, pad)
    return test_pool.pool(op, x, kernel_sizes, strides, around, exclude_padding_from_average)


# ---- shapes and indices ---------------------------------------------------------------------


@own("depth_to_space")
def depth_to_space(op, x, block_size):
    n, c, h, w = x.shape
    b = block_size
    return x.reshape(n, b, b, c // b**2, h, w).transpose(0, 3, 4, 1, 5, 2).reshape(n, c // b**2, h * b, w * b)


@own("space_to_depth")
def space_to_depth(op, x, block_size):
    n, c, h, w = x.shape
    b = block_size
    return x.reshape(n, c, h // b, b, w // b, b).transpose(0, 3, 5, 1, 2, 4).reshape(n, c * b * b, h // b, w // b)


@own("pixel_shuffle", "pixel_unshuffle")
def shuffle(op, x, upscale_factor=None, downscale_factor=None):
    x = torch.as_tensor(x)
    if op == "pixel_shuffle":
        return torch.pixel_shuffle(x, upscale_factor).numpy()
    return torch.pixel_unshuffle(x, int(downscale_factor)).numpy()


@own("space_to_batch")
def to_batch(op, x, block_shape, paddings):
    return space_to_batch(x, block_shape, paddings)


@own("batch_to_space")
def batch_to_space(op, x, block_shape, crops):
    (a, b), (n, c, h, w) = block_shape, x.shape
    y = x.reshape(a, b, -1, c, h, w).transpose(2, 3, 4, 0, 5, 1).reshape(-1, c, h * a, w * b)
    return y[:, :, crops[0][0] : h * a - crops[0][1], crops[1][0] : w * b - crops[1][1]]


@own("crop")
def crop(op, x, crop_height, crop_width):
    (top, bottom), (left, right) = crop_height, crop_width
    return x[:, :, top : x.shape[2] - bottom, left : x.shape[3] - right]


@own("sliding_windows")
def sliding_windows(op, x, axis, size, stride=1):
    axis %= x.ndim
    windows = np.moveaxis(np.lib.stride_tricks.sliding_window_view(x, size, axis), -1, axis + 1)
    return windows[(*[slice(None)] * axis, slice(None, None, stride))]


@own("reverse_sequence")
def reverse_sequence(op, x, lengths, seq_axis, batch_axis):
    y = np.moveaxis(x, (batch_axis, seq_axis), (0, 1)).copy()
    for i, n in enumerate(lengths):
        y[i, :n] = y[i, :n][::-1].copy()
    return np.moveaxis(y, (0, 1), (batch_axis, seq_axis))


@own("squeeze")
def squeeze(op, x, axes=None):
    return np.squeeze(x, None if axes is None else tuple(axes))


@own("flatten2d")
def flatten2d(op, x, axis=1):
    return x.reshape(int(np.prod(x.shape[:axis])), -1)


@own("reshape_like")
def reshape_like(op, x, ref_tensors, begins, ends, end_masks):
    shapes = [r.shape[b : None if m else e] for r, b, e, m in zip(ref_tensors, begins, ends, end_masks, strict=True)]
    return x.reshape([n for shape in shapes for n in shape])


@own("concat")
def concat(op, values, axis, interleave=False):
    if not interleave:
        return np.concatenate(values, axis)
    axis %= values[0].ndim
    shape = list(values[0].shape)
    shape[axis] *= len(values)
    return np.stack(values, axis + 1).reshape(shape)


@own("one_hot")
def one_hot(op, indices, one_hot_vector_size, axis, on_value, off_value):
    hot = np.where(indices[..., None] == np.arange(one_hot_vector_size), on_value, off_value)
    return np.moveaxis(hot, -1, axis)


@own("gather_nd")
def gather_nd(op, x, indices, batch_dims=0):
    grid = np.ix_(*(np.arange(n) for n in indices.shape[:-1]))[:batch_dims]
    return x[(*grid, *(indices[..., k] for k in range(indices.shape[-1])))]


@own("scatter")
def scatter(op, data, indices, updates, axis, mode):
    y = np.moveaxis(data.copy(), axis, 0)
    combine(mode, y, indices, np.moveaxis(updates, axis, 0))
    return np.moveaxis(y, 0, axis)


@own("scatter_along_axis")
def scatter_along_axis(op, data, indices, updates, axis, mode):
    y, where = data.copy(), list(np.ogrid[tuple(slice(n) for n in indices.shape)])
    where[axis] = indices
    combine(mode, y, tuple(where), updates)
    return y


@own("scatter_nd")
def scatter_nd(op, data, indices, updates, mode):
    y = data.copy()
    combine(mode, y, tuple(np.moveaxis(indices, -1, 0)), updates)
    return y


# ---- resizing, quantization, recurrence -----------------------------------------------------


@own("upsample_nearest_neighbor", "upsample_bilinear", "resize_bilinear", "resize_nearest_neighbor")
def resize(op, x, target_size_height=0, target_size_width=0, sampling_mode="DEFAULT", **scale):
    if op == "resize_bilinear":
        return test_resize.linear(x, (target_size_height, target_size_width), sampling_mode)
    factors = [float(scale.get(f"scale_factor_{side}", 1)) for side in ("height", "width")]
    size = [int(np.floor(f * n)) for f, n in zip(factors, x.shape[-2:], strict=True)]
    image = torch.as_tensor(x).reshape(1, -1, *x.shape[-2:])
    if op == "resize_nearest_neighbor":
        size, more = [target_size_height, target_size_width], {"mode": "nearest-exact"}
    elif op == "upsample_bilinear":
        more = {"mode": "bilinear", "align_corners": scale["align_corners"]}
    else:
        more = {"mode": "nearest"}
    return torch.nn.functional.interpolate(image, size=size, **more).reshape(*x.shape[:-2], *size).numpy()


@own("resample")
def resample(op, x, coordinates, sampling_mode, padding_mode, align_corners, **_):
    theirs = {"constant": "zeros", "symmetric": "reflection"}.get(padding_mode, padding_mode)
    return torch.nn.functional.grid_sample(
        torch.as_tensor(x), torch.as_tensor(coordinates), sampling_mode, theirs, align_corners
    ).numpy()


@own("affine")
def affine(op, x, transform_matrix, output_height, output_width, **_):
    theta = torch.as_tensor(transform_matrix).reshape(-1, 2, 3).expand(x.shape[0], 2, 3)
    grid = torch.nn.functional.affine_grid(theta, [*x.shape[:2], output_height, output_width], align_corners=True)
    return torch.nn.functional.grid_sample(torch.as_tensor(x), grid, align_corners=True).numpy()


def per_axis(values, axis, rank):
    values = np.asarray(values, np.float64)
    return values.reshape([-1 if i == axis % rank else 1 for i in range(rank)]) if values.ndim else values


@own("quantize")
def quantize(op, input, scale, output_dtype, zero_point=0, axis=0):  # noqa: A002
    scale, zero = (per_axis(v, axis, input.ndim) for v in (scale, zero_point))
    limits = np.iinfo(output_dtype)
    return np.clip(np.rint(input / scale) + zero, limits.min, limits.max).astype(output_dtype)


@own("dequantize")
def dequantize(op, input, scale, zero_point=0, axis=0):  # noqa: A002
    scale, zero = (per_axis(v, axis, input.ndim) for v in (scale, zero_point))
    return (input.astype(np.float64) - zero) * scale


@own("lstm", "rnn", "gru")
def recurrent(op, x, initial_h, initial_c=None, direction="forward", output_sequence=False, **given):
    reset_after = given.pop("reset_after", False)
    back = {name[:-5]: given.pop(name) for name in list(given) if name.endswith("_back")}
    x = x[::-1] if direction == "reverse" else x
    if op == "gru" and not reset_after:
        bias = given.pop("bias", np.zeros(len(given["weight_hh"])))
        output, *last = test_recurrent.numpy_gru(x, initial_h, bias=bias, recurrent=FUNCTIONS["sigmoid"],
                                                 activation=np.tanh, **given)  # fmt: skip
    else:
        states = [initial_h] if initial_c is None else [initial_h, initial_c]
        output, *last = test_recurrent.torch_cell(*test_recurrent.CELLS[op], x, states, given, back or None)
    if not output_sequence:
        hidden = given["weight_hh"].shape[1]
        sides = [output[-1:, :, :hidden], output[:1, :, hidden:]] if back else [output[-1:]]
        output = np.concatenate(sides, 2)
    return output, *last
