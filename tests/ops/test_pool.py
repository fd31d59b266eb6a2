"""Pooling, against torch in float64: padding done by hand, windows by unfold."""

import numpy as np
import pytest
import torch
from harness import check, run
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn import functional

from anex import _native
from anex.errors import Error

ISAS = _native.instruction_sets()
OPS = ["avg_pool", "max_pool", "l2_pool"]
TORCH_AVERAGE = {1: functional.avg_pool1d, 2: functional.avg_pool2d, 3: functional.avg_pool3d}
TORCH_MAX = {1: functional.max_pool1d, 2: functional.max_pool2d, 3: functional.max_pool3d}


def pads(shape, kernel, strides, pad_type, pad):
    """[(before, after)] of each axis of space, as coremltools' documentation defines them."""
    if pad_type == "custom":
        return list(zip(pad[::2], pad[1::2], strict=True))
    result = []
    for n, k, s in zip(shape, kernel, strides, strict=True):
        total = 0 if pad_type == "valid" else max(0, (-(-n // s) - 1) * s + k - n)
        less = total // 2
        result.append((less, total - less) if pad_type == "same" else (total - less, less))
    return result


def windows(x, kernel, strides, before_after, fill):
    """[n, c, *out, elements of a window]"""
    padded = torch.tensor(np.pad(x, [(0, 0), (0, 0), *before_after], constant_values=fill))
    for axis, (k, s) in enumerate(zip(kernel, strides, strict=True)):
        padded = padded.unfold(2 + axis, k, s)
    return padded.flatten(2 + len(kernel)).numpy()


def pool(op, x, kernel_sizes, strides, before_after, exclude=False):
    taken = windows(x, kernel_sizes, strides, before_after, -np.inf if op == "max_pool" else 0)
    if op == "max_pool":
        return taken.max(-1)
    if op == "l2_pool":
        return np.sqrt((taken**2).sum(-1))
    counted = windows(np.ones_like(x), kernel_sizes, strides, before_after, 0).sum(-1) if exclude else taken.shape[-1]
    return taken.sum(-1) / counted


def check_pool(op, x, kernel, strides, pad_type, pad=None, exclude=False, device="cpu", **more):
    around = pads(x.shape[2:], kernel, strides, pad_type, pad)
    if op == "avg_pool":
        more["exclude_padding_from_average"] = exclude
    if pad is not None:
        more["pad"] = pad
    check(
        op,
        x=x,
        kernel_sizes=kernel,
        strides=strides,
        pad_type=pad_type,
        device=device,
        expected=lambda x, **_: pool(op, x, kernel, strides, around, exclude),
        **more,
    )


CASES = [
    ((1, 1, 7), [3], [1]),
    ((2, 3, 40), [2], [2]),
    ((1, 2, 33), [5], [3]),
    ((1, 5, 17), [1], [4]),
    ((1, 3, 50), [50], [1]),
    ((1, 2, 5, 7), [2, 3], [1, 2]),
    ((2, 3, 17, 33), [3, 3], [2, 2]),
    ((1, 4, 6, 6), [6, 6], [1, 1]),
    ((1, 3, 1, 20), [1, 4], [1, 4]),
    ((1, 2, 9, 8), [2, 8], [3, 1]),
    ((2, 2, 4, 5, 6), [2, 3, 2], [1, 2, 3]),
    ((1, 1, 3, 4, 5), [3, 4, 5], [1, 1, 1]),
    ((1, 2, 3, 4, 5), [2, 4, 5], [1, 1, 1]),
    ((1, 2, 20, 30), [7, 7], [5, 4]),
]


@pytest.mark.parametrize("pad_type", ["valid", "same", "same_lower"])
@pytest.mark.parametrize(
    ("op", "shape", "kernel", "strides"),
    [(op, *case) for op in OPS for case in CASES if op != "l2_pool" or len(case[0]) < 5],
)
def test_pooling_with_every_sort_of_padding(device, rng, op, shape, kernel, strides, pad_type):
    check_pool(op, rng.normal(size=shape), kernel, strides, pad_type, device=device)


@pytest.mark.parametrize("exclude", [False, True])
@pytest.mark.parametrize(
    ("shape", "kernel", "strides", "pad"),
    [
        ((1, 2, 9), [3], [2], [2, 0]),
        ((1, 2, 9), [4], [1], [1, 3]),
        ((2, 3, 8, 9), [3, 4], [2, 1], [1, 0, 2, 1]),
        ((1, 3, 5, 4), [3, 4], [1, 1], [1, 1, 0, 0]),
        ((1, 3, 5, 4), [5, 6], [1, 1], [0, 0, 1, 1]),
        ((1, 2, 4, 5, 6), [2, 3, 3], [1, 2, 2], [1, 0, 0, 1, 2, 2]),
    ],
)
def test_pooling_with_padding_of_ones_own(device, rng, shape, kernel, strides, pad, exclude):
    for op in OPS if len(shape) < 5 else OPS[:2]:
        check_pool(op, rng.normal(size=shape) + 1, kernel, strides, "custom", pad, exclude, device)


@pytest.mark.parametrize("exclude", [False, True])
@pytest.mark.parametrize("pad_type", ["same", "same_lower"])
def test_average_may_leave_padding_out(device, rng, pad_type, exclude):
    check_pool("avg_pool", rng.normal(size=(2, 3, 7, 10)), [3, 4], [2, 3], pad_type, exclude=exclude, device=device)


@pytest.mark.parametrize("exclude", [False, True])
@pytest.mark.parametrize(
    ("n", "kernel", "stride", "pad"),
    [(7, 2, 2, 0), (7, 3, 2, 1), (10, 3, 4, 1), (5, 2, 3, 1), (6, 3, 3, 0), (8, 5, 4, 2)],
)
@pytest.mark.parametrize("rank", [1, 2])
def test_ceil_mode_is_torch_s(device, rng, n, kernel, stride, pad, exclude, rank):
    sizes, strides, padding = [kernel] * rank, [stride] * rank, [pad] * rank
    x = rng.normal(size=(2, 3, *[n + i for i in range(rank)])) + 1
    more = {"pad": [pad] * 2 * rank, "pad_type": "custom", "ceil_mode": True, "device": device}

    def greatest(x, **_):
        return TORCH_MAX[rank](torch.tensor(x), sizes, strides, padding, ceil_mode=True).numpy()

    def average(x, **_):
        return TORCH_AVERAGE[rank](torch.tensor(x), sizes, strides, padding, True, not exclude).numpy()

    more |= {"kernel_sizes": sizes, "strides": strides}
    check("max_pool", x=x, expected=greatest, **more)
    check("avg_pool", x=x, expected=average, exclude_padding_from_average=exclude, **more)


@pytest.mark.parametrize("isa", ISAS)
@pytest.mark.parametrize("op", OPS)
def test_pooling_of_large_images(rng, isa, op):
    check_pool(op, rng.normal(size=(2, 16, 112, 113)), [3, 3], [2, 2], "same", isa=isa)
    check_pool(op, rng.normal(size=(2, 300, 14, 14)), [14, 14], [1, 1], "valid", isa=isa)


@given(data=st.data(), rank=st.integers(1, 3), op=st.sampled_from(OPS[:2]))
@settings(max_examples=40, deadline=None)
def test_pooling_of_random_shapes(data, rank, op):
    size, small = st.integers(1, 12), st.integers(1, 5)
    shape = data.draw(st.lists(size, min_size=rank, max_size=rank))
    kernel = [data.draw(st.integers(1, n)) for n in shape]
    strides = data.draw(st.lists(small, min_size=rank, max_size=rank))
    pad = [data.draw(st.integers(0, k - 1)) for k in kernel for _ in range(2)]
    x = np.random.default_rng(rank).normal(size=(2, 3, *shape))
    check_pool(op, x, kernel, strides, "custom", pad, data.draw(st.booleans()), dtype="float32")


def test_max_pool_keeps_nan(device):
    x = np.zeros((1, 1, 8), "float32")
    x[0, 0, 2] = np.nan
    (y,) = run("max_pool", x=x, kernel_sizes=[2], strides=[2], pad_type="valid", device=device)
    assert np.isnan(y).tolist() == [[[False, True, False, False]]]


@pytest.mark.parametrize("opset", ["iOS15", "iOS16", "iOS17", "iOS18"])
def test_pooling_of_every_opset(device, rng, opset):
    check_pool("avg_pool", rng.normal(size=(1, 2, 6, 6)), [2, 2], [2, 2], "valid", opset=opset, device=device)


def test_pooling_refuses_rank_2(device):
    with pytest.raises((Error, ValueError)):
        run("avg_pool", x=np.zeros((2, 3), "float32"), kernel_sizes=[2], pad_type="valid", device=device)
