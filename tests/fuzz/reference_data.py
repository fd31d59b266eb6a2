"""What ops that move, choose, resize or quantize elements must give, and the recurrent ones. See reference.py."""

from __future__ import annotations

import numpy as np
import test_recurrent
import test_resize
import torch
from test_indexing import combine
from test_shape import space_to_batch

from .reference import FUNCTIONS, own

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
    (a, b), (_, c, h, w) = block_shape, x.shape
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


@own("slice_by_index")
def slice_by_index(op, x, begin, end, stride, begin_mask, end_mask, squeeze_mask):
    index: list = []
    for b, e, s, from_edge, to_edge, alone in zip(begin, end, stride, begin_mask, end_mask, squeeze_mask, strict=True):
        index.append(b if alone else slice(None if from_edge else b, None if to_edge else e, s))
    return np.asarray(x[tuple(index)])


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


@own("resize")
def resize_axes(op, x, shape, sampling_mode, **_):
    return test_resize.linear(x, shape, sampling_mode)


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
def quantize(op, input, scale, output_dtype, zero_point=0, axis=0):
    scale, zero = (per_axis(v, axis, input.ndim) for v in (scale, zero_point))
    limits = np.iinfo(output_dtype)
    return np.clip(np.rint(input / scale) + zero, limits.min, limits.max).astype(output_dtype)


@own("dequantize")
def dequantize(op, input, scale, zero_point=0, axis=0):
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


@own("topk", "argsort")
def order(op, x, axis=-1, ascending=None, k=None, sort=True, return_indices=True):
    """Equal elements in their order, whichever way: MIL leaves it open."""
    ascending = (op == "argsort") if ascending is None else ascending
    chosen = np.argsort(x if ascending else -x.astype(np.float64), axis, kind="stable").astype(np.int32)
    if op == "argsort":
        return chosen
    chosen = np.take(chosen, range(k), axis)
    return np.take_along_axis(x, chosen, axis), chosen
