"""Products, attention, normalizations, pools, quantized activations and weights."""

from __future__ import annotations

from typing import Any

from .record import array, case, half, weights

_shape: tuple[int, ...]
_options: dict[str, Any]

# ---- conv: 1x1, several sizes, strides, groups, depthwise, biases --------------------------------------------------

for _channels, _out, _kernel, _height, _width, _options in (
    (64, 64, (1, 1), 1, 64, {}), (64, 128, (3, 3), 16, 32, {"pad_type": "same"}), (3, 5, (1, 1), 5, 7, {}),
    (32, 32, (1, 3), 1, 64, {"pad_type": "valid"}), (32, 64, (3, 3), 16, 32, {"pad_type": "same", "strides": [2, 2]}),
    (32, 32, (3, 3), 16, 32, {"pad_type": "same", "dilations": [2, 2]}), (8, 8, (1, 13), 4, 64, {"pad_type": "same"}),
    (8, 8, (1, 15), 4, 64, {"pad_type": "same"}),
):  # fmt: skip
    case("conv", x=array(1, _channels, _height, _width), weight=weights(_out, _channels, *_kernel), **_options)
case("conv", x=array(1, 64, 1, 64), weight=weights(64, 64, 1, 1), bias=weights(64))
case("conv", x=array(1, 64, 8, 32), weight=weights(64, 16, 1, 1), groups=4)
case("conv", x=array(1, 32, 8, 32), weight=weights(32, 1, 3, 3), groups=32, pad_type="same")
case("conv", x=array(1, 16, 64), weight=weights(16, 16, 3), pad_type="same")
for _channels, _out, _kernel, _options in (
    (32, 16, (2, 2), {"strides": [2, 2]}), (3, 5, (3, 3), {"pad_type": "same"}),
    (32, 32, (4, 4), {"strides": [2, 2], "pad_type": "custom", "pad": [1, 1, 1, 1]}),
):  # fmt: skip
    case("conv_transpose", x=array(1, _channels, 8, 32), weight=weights(_channels, _out, *_kernel), **_options)

# ---- linear, matmul, einsum: with fixed and with changing operands -------------------------------------------------

case("linear", x=array(1, 64, 128), weight=weights(256, 128), bias=weights(256))
case("linear", x=array(3, 7), weight=weights(5, 7))
for _x, _y, _options in (
    ((1, 8, 64, 64), (1, 8, 64, 64), {}), ((1, 1, 64, 96), (1, 1, 32, 96), {"transpose_y": True}),
    ((3, 5), (5, 7), {}), ((2, 33, 17), (2, 17, 9), {}), ((1, 1, 1, 256), (1, 1, 256, 64), {}),
    ((1, 64, 32), (1, 64, 32), {"transpose_x": True}),
):  # fmt: skip
    case("matmul", x=array(*_x), y=array(*_y), **_options)
case("matmul", x=array(1, 1, 64, 64), y=weights(64, 32))
case("einsum", values=[array(1, 64, 1, 32), array(1, 32, 1, 64)], equation="nchw,nwhu->nchu")
case("einsum", values=[array(8, 4, 32), array(32, 4, 16)], equation="chw,whr->chr")

# ---- attention: without and with a mask, one query, sizes on both sides of 512 -------------------------------------

for _heads, _queries, _keys, _width in ((4, 64, 64, 64), (1, 1, 128, 64), (2, 5, 9, 16)):
    _query = {"query": array(1, _heads, _queries, _width), "key": array(1, _heads, _keys, _width)}
    case("scaled_dot_product_attention", **_query, value=array(1, _heads, _keys, _width))
    case(
        "scaled_dot_product_attention",
        **_query,
        value=array(1, _heads, _keys, _width),
        attn_mask=array(1, 1, _queries, _keys, low=-8, high=0),
    )

# ---- normalizations, softmax, pools --------------------------------------------------------------------------------

for _shape, _axis in (
    ((1, 8, 64, 64), -1),
    ((1, 64, 1, 64), 1),
    ((1, 3, 5, 7), 2),
    ((1, 2, 4, 512), -1),
    ((3, 17), -1),
):
    case("softmax", x=array(*_shape, low=-4, high=4), axis=_axis)
case("layer_norm", x=array(1, 64, 1, 64), axes=[1], gamma=weights(64, low=0.5), beta=weights(64), epsilon=1e-4)
case("layer_norm", x=array(1, 32, 256), axes=[-1], epsilon=1e-4)
case("layer_norm", x=array(1, 3, 5, 7), axes=[2, 3], epsilon=1e-4)
for _shape in ((1, 64, 8, 32), (1, 3, 5, 7)):
    _channels = _shape[1]
    case("instance_norm", x=array(*_shape), gamma=weights(_channels), beta=weights(_channels), epsilon=1e-4)
    case(
        "batch_norm",
        x=array(*_shape),
        mean=weights(_channels),
        variance=weights(_channels, low=0.5, high=2),
        gamma=weights(_channels),
        beta=weights(_channels),
        epsilon=1e-4,
    )
    case("l2_norm", x=array(*_shape), epsilon=1e-4)
    case("local_response_norm", x=array(*_shape), size=3, alpha=1e-2, beta=0.75, k=1.0)
for _op in ("max_pool", "avg_pool", "l2_pool"):
    _average: dict[str, Any] = {"exclude_padding_from_average": True} if _op == "avg_pool" else {}
    case(_op, x=array(1, 32, 16, 32), kernel_sizes=[2, 2], strides=[2, 2], pad_type="valid", **_average)
    case(_op, x=array(1, 3, 9, 7), kernel_sizes=[3, 3], strides=[1, 1], pad_type="same", **_average)
    case(_op, x=array(1, 8, 4, 64), kernel_sizes=[1, 29], strides=[1, 1], pad_type="valid", **_average)

# ---- quantized activations: there and back, a power of two and another scale ---------------------------------------

for _scale in (0.125, 0.05):
    for _op in ("quantize", "dequantize"):
        case(
            _op,
            x=array(1, 64, 1, 64, low=-12, high=12),
            make=lambda mb, a, scale=_scale: mb.dequantize(
                input=mb.quantize(input=a["x"], scale=half(scale), output_dtype="int8"), scale=half(scale)
            ),
        )


# ---- weights that are stored otherwise: each is multiplied with an input -------------------------------------------


def _times(op: str) -> Any:
    def make(mb: Any, a: dict[str, Any]) -> Any:
        x = a.pop("x")
        result = getattr(mb, op)(**a)
        if isinstance(result, (tuple, list)):  # sparse: a mask and what it lets through
            mask, values = result
            result = mb.constexpr_sparse_to_dense(nonzero_data=values, mask=mask)
        return mb.matmul(x=x, y=result)

    return lambda mb, a: make(mb, dict(a))


def _sparse(op: str, **arguments: Any) -> Any:
    """With a mask of every second weight."""

    def make(mb: Any, a: dict[str, Any]) -> Any:
        import numpy as np
        from coremltools.converters.mil.mil import types

        one_bit = types.nptype_from_builtin(types.uint1)
        a[arguments["mask"]] = (np.indices((64, 32)).sum(0) % 2).astype(one_bit)
        return _times(op)(mb, a)

    return lambda mb, a: make(mb, dict(a))


_X = {"x": array(1, 64, 64)}
case("constexpr_affine_dequantize", **_X, opset="iOS16", make=_times("constexpr_affine_dequantize"),
     quantized_data=weights(64, 32, low=-128, high=127, dtype="int8"),
     zero_point=weights(64, low=-3, high=3, dtype="int8"),
     scale=weights(64, low=0.01, high=0.02), axis=0)  # fmt: skip
for _dtype, _low, _high, _blocks in (("int8", -128, 127, (64, 1)), ("int4", -8, 7, (64, 1)), ("int4", -8, 7, (64, 2))):
    case("constexpr_blockwise_shift_scale", **_X, make=_times("constexpr_blockwise_shift_scale"),
         data=weights(64, 32, low=_low, high=_high, dtype=_dtype),
         scale=weights(*_blocks, low=0.01, high=0.02))  # fmt: skip
case("constexpr_cast", x=array(1, 64, 64), source_val=weights(64, 32), output_dtype="fp32",
     opset="iOS16", make=lambda mb, a: mb.matmul(x=mb.cast(x=a["x"], dtype="fp32"), y=mb.constexpr_cast(
         source_val=a["source_val"], output_dtype=a["output_dtype"])))  # fmt: skip
case("constexpr_lut_to_dense", **_X, make=_times("constexpr_lut_to_dense"),
     indices=weights(64, 32, low=0, high=15, dtype="uint4"), lut=weights(1, 1, 16, 1))  # fmt: skip
case("constexpr_sparse_to_dense", **_X, make=_sparse("constexpr_sparse_to_dense", mask="mask"),
     nonzero_data=weights(1024))  # fmt: skip
case("constexpr_lut_to_sparse", **_X, make=_sparse("constexpr_lut_to_sparse", mask="indices_mask"),
     indices_nonzero_data=weights(1024, low=0, high=3, dtype="uint2"), lut=weights(1, 1, 4, 1))  # fmt: skip
case("constexpr_sparse_blockwise_shift_scale", **_X,
     make=_sparse("constexpr_sparse_blockwise_shift_scale", mask="data_mask"),
     nonzero_data=weights(1024, low=-128, high=127, dtype="int8"),
     scale=weights(64, 1, low=0.01, high=0.02))  # fmt: skip
