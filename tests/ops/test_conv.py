"""Convolutions and their transposes, compared with torch in float64."""

import numpy as np
import pytest
import torch
from harness import build, check, run, tolerance
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn import functional

import anex
from anex import _native

ISAS = _native.instruction_sets()
CONV = {1: functional.conv1d, 2: functional.conv2d, 3: functional.conv3d}
TRANSPOSED = {1: functional.conv_transpose1d, 2: functional.conv_transpose2d, 3: functional.conv_transpose3d}


def normal(rng, *shape):
    return rng.normal(size=shape).astype(np.float32)


def paddings(pad_type, pad, sizes, kernel, strides, dilations):
    """Elements (before, after) each axis; `same` as coremltools' aggregated_pad, the odd one last or first."""
    if pad_type == "custom":
        return list(zip(pad[::2], pad[1::2], strict=True))
    if pad_type == "valid":
        return [(0, 0)] * len(sizes)
    totals = [
        max(0, s * -(-n // s) - n + (k - 1) * d + 1 - s)
        for n, k, s, d in zip(sizes, kernel, strides, dilations, strict=True)
    ]
    return [(t - t // 2, t // 2) if pad_type == "same_lower" else (t // 2, t - t // 2) for t in totals]


def convolved(x, weight, bias=None, strides=None, pad_type="valid", pad=None, dilations=None, groups=1):
    rank = x.ndim - 2
    strides, dilations = strides or [1] * rank, dilations or [1] * rank
    around = paddings(pad_type, pad, x.shape[2:], weight.shape[2:], strides, dilations)
    padded = np.pad(x, [(0, 0), (0, 0), *around])
    bias = None if bias is None else torch.tensor(bias, dtype=torch.float64)
    return CONV[rank](torch.tensor(padded), torch.tensor(weight).double(), bias, strides, 0, dilations, groups).numpy()


def transposed(
    x, weight, bias=None, strides=None, pad_type="valid", pad=None, dilations=None, groups=1, output_shape=None
):
    """The full result, cropped: `valid` keeps all, `custom` cuts pad off, `same` keeps in * stride in the middle."""
    rank = x.ndim - 2
    strides, dilations = strides or [1] * rank, dilations or [1] * rank
    full = TRANSPOSED[rank](torch.tensor(x), torch.tensor(weight), None, strides, 0, 0, groups, dilations).numpy()
    size = list(full.shape[2:])
    before = [0] * rank
    if pad_type == "custom":
        before, size = list(pad[::2]), [n - a - b for n, a, b in zip(size, pad[::2], pad[1::2], strict=True)]
    if pad_type == "same":
        size = [n * s for n, s in zip(x.shape[2:], strides, strict=True)]
    if output_shape is not None:
        size = list(output_shape[2:])
    if pad_type == "same":
        before = [max(n - m, 0) // 2 for n, m in zip(full.shape[2:], size, strict=True)]
    result = np.zeros((*full.shape[:2], *size))
    taken = full[(..., *(slice(b, b + n) for b, n in zip(before, size, strict=True)))]
    result[(..., *(slice(0, n) for n in taken.shape[2:]))] = taken
    return result if bias is None else result + bias.reshape(-1, *[1] * rank)


def check_conv(
    rng, *, x, kernel, out, groups=1, bias=True, device="cpu", runtime=False, op="conv", isa=None, **options
):
    weight = (out, x[1] // groups) if op == "conv" else (x[1], out // groups)
    arguments = {"x": normal(rng, *x), "weight": normal(rng, *weight, *kernel), "groups": groups, **options}
    if bias:
        arguments["bias"] = normal(rng, out)
    constants = ("bias",) if runtime else ("weight", "bias")
    check(
        op, **arguments, constants=constants, expected=convolved if op == "conv" else transposed, device=device, isa=isa
    )


# ---- conv -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("runtime", [False, True])
@pytest.mark.parametrize(
    ("x", "out"),
    [
        ((1, 5, 7), 9),
        ((2, 5, 3, 7), 9),
        ((1, 3, 2, 3, 4), 5),
        ((1, 768, 1, 64), 96),
        ((1, 300, 1, 1), 70),
        ((3, 300, 1, 1), 70),
        ((40, 17, 1), 33),
        ((1, 1, 1, 1), 1),
        ((2, 16, 33, 3), 13),
    ],
)
def test_conv_1x1(device, rng, x, out, runtime):
    check_conv(rng, x=x, kernel=(1,) * (len(x) - 2), out=out, runtime=runtime, device=device)


@pytest.mark.parametrize("runtime", [False, True])
@pytest.mark.parametrize("groups", [1, 2, 3])
@pytest.mark.parametrize(
    ("x", "kernel"),
    [((2, 6, 19), (3,)), ((2, 6, 9, 11), (3, 2)), ((2, 6, 5, 6, 7), (2, 3, 3)), ((1, 6, 40, 35), (5, 5))],
)
def test_conv_over_ranks_and_groups(device, rng, x, kernel, groups, runtime):
    check_conv(rng, x=x, kernel=kernel, out=9 if groups != 2 else 10, groups=groups, runtime=runtime, device=device)


@pytest.mark.parametrize("opset", ["iOS16", "iOS18"])
@pytest.mark.parametrize("pad_type", ["valid", "same", "same_lower", "custom"])
@pytest.mark.parametrize(
    ("strides", "dilations"), [([1, 1], [1, 1]), ([2, 1], [1, 1]), ([2, 3], [1, 1]), ([1, 1], [2, 3]), ([3, 2], [2, 2])]
)
@pytest.mark.parametrize("size", [(11, 12), (10, 37)])
def test_conv_paddings_strides_dilations(device, rng, pad_type, strides, dilations, size, opset):
    pad = {"pad": [1, 0, 2, 3]} if pad_type == "custom" else {}
    check_conv(
        rng,
        x=(2, 4, *size),
        kernel=(3, 4),
        out=5,
        pad_type=pad_type,
        strides=strides,
        dilations=dilations,
        opset=opset,
        device=device,
        **pad,
    )


def test_conv_ignores_pad_unless_custom(device, rng):
    arguments = {
        "x": normal(rng, 1, 3, 8, 8),
        "weight": normal(rng, 4, 3, 3, 3),
        "pad_type": "valid",
        "pad": [1, 1, 1, 1],
    }
    check("conv", **arguments, constants=("weight",), expected=convolved, device=device)


@pytest.mark.parametrize(
    ("x", "out", "kernel", "strides"),
    [
        ((1, 3, 64, 64), 20, (16, 16), [16, 16]),
        ((2, 3, 32, 32), 65, (7, 7), [2, 2]),
        ((1, 80, 300), 64, (3,), [2]),
        ((1, 40, 56, 56), 40, (3, 3), [1, 1]),
        ((1, 2, 3), 4, (3,), [1]),
        ((5, 7, 4, 4), 30, (4, 4), [1, 1]),
        ((2, 16, 3, 3), 200, (2, 2), [1, 1]),
        ((3, 5, 17, 17), 200, (3, 3), [2, 2]),
    ],
)
def test_conv_of_common_shapes(device, rng, x, out, kernel, strides):
    check_conv(rng, x=x, kernel=kernel, out=out, strides=strides, pad_type="valid", device=device)


@pytest.mark.parametrize("multiplier", [1, 3])
@pytest.mark.parametrize("runtime", [False, True])
@pytest.mark.parametrize(
    ("x", "kernel", "options"),
    [
        ((2, 5, 30), (4,), {"pad_type": "custom", "pad": [3, 0]}),
        ((2, 5, 13, 17), (3, 3), {"pad_type": "same"}),
        ((1, 7, 14, 15), (5, 3), {"pad_type": "same_lower", "strides": [2, 3]}),
        ((1, 3, 4, 6, 5), (2, 3, 2), {"pad_type": "same", "strides": [1, 2, 2]}),
        ((1, 4, 1, 1), (1, 1), {}),
        ((1, 2, 300, 310), (3, 3), {"pad_type": "same"}),
        ((1, 2, 401, 310), (7, 3), {"pad_type": "custom", "pad": [1, 0, 4, 2], "strides": [3, 2]}),
    ],
)
def test_conv_depthwise(device, rng, x, kernel, options, runtime, multiplier):
    check_conv(rng, x=x, kernel=kernel, out=x[1] * multiplier, groups=x[1], runtime=runtime, device=device, **options)


def test_conv_depthwise_with_dilations(device, rng):
    check_conv(rng, x=(2, 6, 20, 21), kernel=(3, 3), out=6, groups=6, dilations=[2, 3], pad_type="same", device=device)


@settings(max_examples=40, deadline=None)
@given(data=st.data(), rank=st.integers(1, 3), isa=st.sampled_from(ISAS), seed=st.integers(0, 2**32 - 1))
def test_conv_of_any_geometry(data, rank, isa, seed):
    def several(low, high, n=rank):
        return [data.draw(st.integers(low, high)) for _ in range(n)]

    groups, kernel, strides, dilations = data.draw(st.integers(1, 3)), several(1, 4), several(1, 3), several(1, 2)
    size = [
        (k - 1) * d + 1 + extra
        for k, d, extra in zip(kernel, dilations, several(0, 20 if rank < 3 else 4), strict=True)
    ]
    x = (data.draw(st.integers(1, 3)), groups * data.draw(st.integers(1, 20)), *size)
    pad = several(0, 3, 2 * rank)
    pad_type = data.draw(st.sampled_from(["valid", "same", "same_lower", "custom"]))
    out = groups * data.draw(st.integers(1, 20))
    check_conv(
        np.random.default_rng(seed),
        x=x,
        kernel=kernel,
        out=out,
        groups=groups,
        strides=strides,
        dilations=dilations,
        pad_type=pad_type,
        pad=pad,
        isa=isa,
    )


def test_conv_with_bias_computed_while_running(device, rng):
    check(
        "conv",
        x=normal(rng, 2, 3, 9),
        weight=normal(rng, 4, 3, 3),
        bias=normal(rng, 4),
        expected=convolved,
        device=device,
    )


def test_conv_with_float16_weights_of_a_float32_input(device, rng):
    rtol = tolerance(1e-4)
    x, weight = normal(rng, 1, 8, 9, 9), normal(rng, 16, 8, 3, 3).astype(np.float16)
    (found,) = run("conv", x=x, weight=weight, constants=("weight",), device=device)
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, convolved(x.astype(np.float64), weight.astype(np.float64)), rtol=rtol, atol=rtol)


@pytest.mark.cpu_engine
def test_conv_gives_the_same_bits_for_any_number_of_threads(rng):
    x, weight = normal(rng, 2, 64, 30, 31), normal(rng, 70, 64, 3, 3)
    before, results = anex.get_num_threads(), []
    try:
        for threads in (1, 2, 4):
            anex.set_num_threads(threads)
            results.append(run("conv", x=x, weight=weight, constants=("weight",))[0])
    finally:
        anex.set_num_threads(before)
    assert all(np.array_equal(results[0], other) for other in results[1:])


@pytest.mark.cpu_engine
def test_conv_keeps_float16_weights_in_float16(rng):
    weight = normal(rng, 256, 128, 1, 1).astype(np.float16)
    for pixels in (1, 200):
        program = build("conv", {"x": normal(rng, 1, 128, 1, pixels).astype(np.float16), "weight": weight}, ("weight",))
        packed = anex.compile(program, device="cpu").stats()["packed_bytes"]
        assert packed < 1.2 * weight.nbytes


# ---- conv_transpose -------------------------------------------------------------------------------


@pytest.mark.parametrize("runtime", [False, True])
@pytest.mark.parametrize("groups", [1, 3])
@pytest.mark.parametrize(
    ("x", "kernel", "strides"),
    [
        ((2, 6, 9), (3,), [1]),
        ((2, 6, 9), (4,), [2]),
        ((1, 6, 5, 7), (3, 3), [2, 2]),
        ((2, 6, 5, 7), (2, 5), [3, 2]),
        ((1, 6, 3, 4, 5), (3, 2, 3), [2, 1, 2]),
        ((1, 6, 1, 1), (4, 4), [1, 1]),
        ((1, 6, 8, 40), (2, 2), [2, 2]),
        ((1, 6, 4), (2,), [5]),
    ],
)
def test_conv_transpose_over_ranks_strides_and_groups(device, rng, x, kernel, strides, groups, runtime):
    check_conv(
        rng,
        op="conv_transpose",
        x=x,
        kernel=kernel,
        out=9,
        groups=groups,
        strides=strides,
        runtime=runtime,
        device=device,
    )


@pytest.mark.parametrize(
    "options",
    [
        {"pad_type": "custom", "pad": [1, 1, 1, 0]},
        {"pad_type": "custom", "pad": [0, 2, 1, 3], "strides": [2, 2]},
        {"pad_type": "same", "strides": [2, 2]},
        {"pad_type": "same", "strides": [1, 3]},
        {"pad_type": "same", "strides": [5, 4]},
        {"pad_type": "custom", "pad": [1, 1, 1, 1], "strides": [2, 3], "dilations": [2, 2]},
        {"dilations": [3, 2], "strides": [2, 4]},
        {"pad_type": "custom", "pad": [1, 0, 1, 0], "strides": [2, 2], "output_shape": [2, 5, 14, 16]},
    ],
)
def test_conv_transpose_paddings_and_dilations(device, rng, options):
    check_conv(rng, op="conv_transpose", x=(2, 4, 6, 7), kernel=(3, 4), out=5, device=device, **options)


def test_conv_transpose_depthwise(device, rng):
    check_conv(
        rng,
        op="conv_transpose",
        x=(2, 8, 6, 7),
        kernel=(4, 4),
        out=8,
        groups=8,
        strides=[2, 2],
        pad_type="custom",
        pad=[1, 1, 1, 1],
        device=device,
    )


def test_conv_transpose_keeps_infinities_from_outputs_without_taps(device):
    x = np.full((1, 1, 2, 2), np.inf, np.float32)
    weight = np.ones((1, 1, 1, 1), np.float32)
    check(
        "conv_transpose",
        x=x,
        weight=weight,
        strides=[2, 2],
        output_shape=[1, 1, 4, 4],
        constants=("weight",),
        device=device,
        expected=np.array([[[[np.inf, 0, np.inf, 0], [0] * 4, [np.inf, 0, np.inf, 0], [0] * 4]]]),
    )


@settings(max_examples=30, deadline=None)
@given(data=st.data(), rank=st.integers(1, 3), isa=st.sampled_from(ISAS), seed=st.integers(0, 2**32 - 1))
def test_conv_transpose_of_any_geometry(data, rank, isa, seed):
    def several(low, high, n=rank):
        return [data.draw(st.integers(low, high)) for _ in range(n)]

    groups, kernel, strides, dilations = data.draw(st.integers(1, 2)), several(1, 4), several(1, 3), several(1, 2)
    x = (data.draw(st.integers(1, 2)), groups * data.draw(st.integers(1, 9)), *several(2, 9 if rank < 3 else 4))
    full = [(n - 1) * s + (k - 1) * d + 1 for n, k, s, d in zip(x[2:], kernel, strides, dilations, strict=True)]
    pad = [p for n in full for p in (data.draw(st.integers(0, (n - 1) // 2)), data.draw(st.integers(0, (n - 1) // 2)))]
    pad_type = data.draw(st.sampled_from(["valid", "same", "custom"]))
    check_conv(
        np.random.default_rng(seed),
        op="conv_transpose",
        x=x,
        kernel=kernel,
        out=groups * data.draw(st.integers(1, 9)),
        groups=groups,
        strides=strides,
        dilations=dilations,
        pad_type=pad_type,
        pad=pad,
        isa=isa,
    )


# ---- conv_quantized -------------------------------------------------------------------------------

UNPACKED = ("weight", "bias", "quant_scale", "quant_bias")


@pytest.mark.parametrize(("x", "groups"), [((1, 6, 9, 8), 1), ((2, 6, 9, 8), 3), ((1, 6, 9, 8), 6), ((3, 70, 1, 1), 1)])
@pytest.mark.parametrize("each", [False, True])
def test_conv_quantized_unpacks_its_weights_as_documented(rng, x, groups, each):
    """``W_float = W_quantized * scale + bias``"""
    weight = rng.integers(0, 256, (12, x[1] // groups, *(min(n, 3) for n in x[2:]))).astype("uint8")
    quantized = {
        "quant_scale": rng.uniform(0.001, 0.01, 12 if each else 1).astype("float32"),
        "quant_bias": rng.uniform(-1, 1, 12 if each else 1).astype("float32"),
    }

    def expected(x, weight, quant_scale, quant_bias, bias, groups, **_):
        unpacked = weight * quant_scale.reshape(-1, 1, 1, 1) + quant_bias.reshape(-1, 1, 1, 1)
        return convolved(x, unpacked, bias.astype("float64"), groups=groups)

    bias = rng.integers(0, 9, 12).astype("uint8")
    more = {"bias": bias, "groups": groups, "quantization_type": "linear", "nbits": 8}
    given = {"x": normal(rng, *x), "weight": weight, **quantized, **more}
    check("conv_quantized", **given, constants=UNPACKED, expected=expected)


@pytest.mark.cpu_engine
@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"quantization_type": "lut"}, 'quantization_type "lut" needs a table'),
        ({"quant_scale": np.ones(3, "float32")}, "one for each of the 12 output channels"),
    ],
)
def test_conv_quantized_that_is_not_documented_is_refused(rng, change, sentence):
    weight = np.ones((12, 6, 3, 3), "uint8")
    given = {"quantization_type": "linear", "quant_scale": np.ones(1, "float32"), "quant_bias": np.ones(1, "float32")}
    with pytest.raises(anex.Error, match=sentence):
        check("conv_quantized", x=normal(rng, 1, 6, 9, 8), weight=weight, **{**given, **change}, constants=UNPACKED)
