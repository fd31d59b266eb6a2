"""One program for each op the CPU engine has a kernel for: what harness.build takes."""

from __future__ import annotations

from typing import Any

import numpy as np
from coremltools.converters.mil.mil import types

RNG = np.random.default_rng(11)
ONE_BIT = types.nptype_from_builtin(types.string_to_builtin("uint1"))
FOUR_BITS = types.nptype_from_builtin(types.string_to_builtin("uint4"))


def half(*shape: int, low: float = -2, high: float = 2) -> np.ndarray:
    return RNG.uniform(low, high, shape).astype("float16")


def whole(*shape: int, high: int = 3) -> np.ndarray:
    return RNG.integers(0, high, shape).astype("int32")


UNIT = {"x": half(2, 3, 4, low=0.1, high=0.9)}
IMAGE = {"x": half(1, 4, 6, 6)}
TRUTHS = {"x": half(2, 3) > 0, "other": half(2, 3) > 0}
CASES: dict[str, dict[str, Any]] = {}

ALONE = """
    acos asin atan atanh ceil cos cosh erf exp floor round sin sinh sqrt tan tanh inverse log rsqrt abs exp2 sign
    square relu relu6 sigmoid silu softplus softsign gelu identity reverse shape l2_norm squeeze flatten2d softmax
    cumsum argsort band_part reduce_sum reduce_mean reduce_sum_square reduce_l1_norm reduce_l2_norm reduce_log_sum
    reduce_log_sum_exp reduce_prod reduce_max reduce_min reduce_argmax reduce_argmin topk
"""  # take nothing else
for name in ALONE.split():
    CASES[name] = UNIT
for name in ["add", "sub", "mul", "real_div", "floor_div", "mod", "pow", "maximum", "minimum"]:
    CASES[name] = {"x": half(2, 3, 4, low=0.5), "y": half(3, 1, low=0.5)}
for name in ["greater", "greater_equal", "less", "less_equal", "equal", "not_equal"]:
    CASES[name] = {"x": half(2, 3, 4), "y": half(3, 1)}
for name in ["logical_and", "logical_or", "logical_xor"]:
    CASES[name] = {"x": TRUTHS["x"], "y": TRUTHS["other"]}
for name in ["leaky_relu", "thresholded_relu", "elu", "threshold"]:
    CASES[name] = {**UNIT, "alpha": np.float16(0.5)}
for name in ["clip", "clamped_relu", "linear_activation", "scaled_tanh", "sigmoid_hard"]:
    CASES[name] = {**UNIT, "alpha": np.float16(0.25), "beta": np.float16(0.5)}
for name in ["avg_pool", "max_pool", "l2_pool"]:
    CASES[name] = {**IMAGE, "kernel_sizes": [2, 2], "strides": [2, 2], "pad_type": "valid"}

GATHERED = {"x": half(4, 5), "indices": whole(2, 5)}
SCATTERED = {"data": half(4, 5), "indices": whole(4, 5), "updates": half(4, 5), "axis": 0, "mode": "add"}
GATES = {"initial_h": half(2, 3), "direction": "forward", "output_sequence": True}
SAMPLED = {"sampling_mode": "bilinear", "padding_mode": "constant", "padding_value": np.float16(0)}
SAMPLED |= {"coordinates_mode": "normalized_minus_one_to_one", "align_corners": True}

CASES |= {
    "logical_not": {"x": TRUTHS["x"]},
    "cast": {**UNIT, "dtype": "fp32"},
    "select": {"cond": half(2, 3) > 0, "a": half(2, 3), "b": half(2, 3)},
    "fill_like": {"ref_tensor": half(2, 3), "value": np.float16(2)},
    "one_hot": {"indices": whole(4), "one_hot_vector_size": 3},
    "prelu": {**IMAGE, "alpha": half(4)},
    "softplus_parametric": {**IMAGE, "alpha": half(4), "beta": half(4)},
    "linear": {"x": half(3, 4), "weight": half(5, 4), "bias": half(5)},
    "matmul": {"x": half(2, 3, 4), "y": half(2, 5, 4), "transpose_y": True},
    "einsum": {"values": [half(1, 2, 3, 4), half(1, 4, 3, 5)], "equation": "nchw,nwhu->nchu"},
    "conv": {**IMAGE, "weight": half(6, 2, 3, 3), "bias": half(6), "groups": 2, "pad_type": "same", "strides": [2, 1]},
    "conv_transpose": {**IMAGE, "weight": half(4, 3, 2, 2), "strides": [2, 2]},
    "scaled_dot_product_attention": {
        **{name: half(1, 2, 5, 4) for name in ("query", "key", "value")},
        "attn_mask": half(5, 5),
    },
    "layer_norm": {**UNIT, "axes": [-1], "gamma": half(4), "beta": half(4)},
    "instance_norm": {**IMAGE, "gamma": half(4), "beta": half(4)},
    "batch_norm": {**IMAGE, "mean": half(4), "variance": half(4, low=0.5), "gamma": half(4), "beta": half(4)},
    "local_response_norm": {**IMAGE, "size": 3},
    "non_maximum_suppression": {
        **{"boxes": half(1, 4, 6, low=1), "scores": half(1, 2, 6), "iou_threshold": np.float16(0.5), "max_boxes": 3},
    },
    "reshape": {"x": half(2, 6), "shape": [3, -1]},
    "reshape_like": {"x": half(2, 6), "ref_tensors": [half(3, 4)], "begins": [0], "ends": [2], "end_masks": [False]},
    "expand_dims": {"x": half(2, 6), "axes": [1]},
    "transpose": {"x": half(2, 3, 4), "perm": [2, 0, 1]},
    "depth_to_space": {**IMAGE, "block_size": 2},
    "space_to_depth": {**IMAGE, "block_size": 2},
    "pixel_shuffle": {**IMAGE, "upscale_factor": 2},
    "pixel_unshuffle": {**IMAGE, "downscale_factor": np.uint32(2)},
    "batch_to_space": {"x": half(4, 1, 2, 2), "block_shape": [2, 2], "crops": [[0, 0], [0, 0]]},
    "space_to_batch": {**IMAGE, "block_shape": [2, 2], "paddings": [[0, 0], [0, 0]]},
    "reverse_sequence": {"x": half(3, 4), "lengths": np.array([1, 2, 4], "int32"), "seq_axis": 1, "batch_axis": 0},
    "concat": {"values": [half(2, 3), half(2, 1)], "axis": 1},
    "stack": {"values": [half(2, 3), half(2, 3)], "axis": 1},
    "split": {"x": half(2, 6), "split_sizes": [1, 5], "axis": 1},
    "tile": {"x": half(2, 3), "reps": [2, 2]},
    "pad": {"x": half(2, 3), "pad": [1, 2], "mode": "reflect", "constant_val": np.float16(0)},
    "crop": {**IMAGE, "crop_height": [1, 1], "crop_width": [0, 2]},
    "sliding_windows": {"x": half(2, 7), "axis": 1, "size": 3, "stride": 2},
    "slice_by_index": {"x": half(3, 6), "begin": [0, 1], "end": [2, -1], "stride": [1, 2]},
    "slice_by_size": {"x": half(3, 6), "begin": [1, 2], "size": [2, -1]},
    "slice_update": {"x": half(3, 6), "update": half(2, 2), "begin": [0, 1], "end": [2, 3]},
    "gather": {**GATHERED, "axis": 0},
    "gather_along_axis": {**GATHERED, "axis": 0},
    "gather_nd": {"x": half(4, 5), "indices": whole(3, 2)},
    "scatter": {**SCATTERED, "indices": np.array([0, 3], "int32"), "updates": half(2, 5)},
    "scatter_along_axis": SCATTERED,
    "scatter_nd": {"data": half(4, 5), "indices": whole(3, 2), "updates": half(3), "mode": "update"},
    "upsample_nearest_neighbor": {**IMAGE, "scale_factor_height": 2, "scale_factor_width": 3},
    "upsample_bilinear": {**IMAGE, "scale_factor_height": 2, "scale_factor_width": 3, "align_corners": False},
    "resize_nearest_neighbor": {**IMAGE, "target_size_height": 4, "target_size_width": 9},
    "resize_bilinear": {**IMAGE, "target_size_height": 4, "target_size_width": 9},
    "resize": {**IMAGE, "shape": [3, 9], "resized_dims": np.uint32(2), "interpolation_mode": "LINEAR"},
    "resample": {**IMAGE, "coordinates": half(1, 3, 3, 2, low=-1, high=1), **SAMPLED},
    "affine": {**IMAGE, "transform_matrix": half(1, 6), "output_height": 4, "output_width": 4, **SAMPLED},
    "crop_resize": {**IMAGE, "boxes": half(2, 4, low=0, high=1), "target_height": 2, "target_width": 2},
    "quantize": {**{"input": half(2, 3), "scale": np.float16(0.5)}, "output_dtype": "int8"},
    "dequantize": {"input": whole(2, 3).astype("int8"), "scale": np.float16(0.5)},
    "rnn": {"x": half(4, 2, 5), "weight_ih": half(3, 5), "weight_hh": half(3, 3), **GATES},
    "gru": {"x": half(4, 2, 5), "weight_ih": half(9, 5), "weight_hh": half(9, 3), **GATES},
    "lstm": {
        **{"x": half(4, 2, 5), "weight_ih": half(12, 5), "weight_hh": half(12, 3), **GATES},
        **{"initial_c": half(2, 3), "bias": half(12)},
    },
}
CASES["crop_resize"] |= {"normalized_coordinates": True, "box_indices": np.zeros(2, "int32")}

# Arguments that are constants, though they have axes
CONSTANTS = ["weight", "bias", "gamma", "beta", "mean", "variance", "alpha", "weight_ih", "weight_hh", "ref_tensors"]
