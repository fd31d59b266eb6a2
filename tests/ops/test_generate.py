"""Tensors made from constants and indices: fill, fill_like, range_1d, one_hot, band_part."""

import numpy as np
import pytest
import torch
from harness import check, run
from test_elementwise import alone

import anex

DTYPES = ["float16", "float32", "int32", "bool"]


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shape", [(1,), (3, 5), (2, 3, 4, 17), (70, 1001)])
def test_fill_like_has_the_shape_of_its_input_and_the_dtype_of_its_value(device, rng, shape, dtype):
    value = np.array(1.5).astype(dtype)[()]
    (y,) = run("fill_like", ref_tensor=rng.normal(size=shape).astype(np.float32), value=value, device=device)
    assert y.dtype == value.dtype
    np.testing.assert_array_equal(y, np.full(shape, value))


@pytest.mark.parametrize("dtype", [*DTYPES, "int8", "uint16"])
def test_fill_of_constants_and_of_a_shape_read_while_running(dtype):
    value, shape = np.array(2.5).astype(dtype)[()], (3, 5, 9)
    wanted = np.full(shape, value)
    found = alone("fill", np.array(shape, np.int32), dtype=dtype, shape=shape, extra=(value,))
    np.testing.assert_array_equal(found, wanted)


@pytest.mark.parametrize(
    ("start", "end", "step"), [(0, 10, 1), (5, -7, -3), (0.5, 4, 0.25), (-(2**30), 2**30, 2**20 + 1)]
)
@pytest.mark.parametrize("dtype", ["float16", "float32", "int32"])
def test_range_1d_is_arange(start, end, step, dtype):
    if (dtype != "float32" and start != int(start)) or (dtype == "float16" and end > 65504):
        start, end, step = 0, 20, 4
    start, end, step = (np.array(value, dtype) for value in (start, end, step))
    wanted = np.arange(start.item(), end.item(), step.item()).astype(dtype)
    found = alone("range_1d", end, start, step, dtype=dtype, shape=wanted.shape)
    np.testing.assert_array_equal(found, wanted)


@pytest.mark.parametrize("axis", [-1, 0, 1, 2, -3])
@pytest.mark.parametrize("dtype", DTYPES)
def test_one_hot_puts_its_axis_anywhere(device, rng, axis, dtype):
    indices = rng.integers(0, 5, (3, 4)).astype(np.int32)
    on, off = (np.array(value).astype(dtype)[()] for value in (1, 0))
    hot = torch.nn.functional.one_hot(torch.from_numpy(indices).long(), 5).numpy().astype(dtype)
    wanted = np.moveaxis(hot, -1, axis)
    given = {"indices": indices, "one_hot_vector_size": 5, "axis": axis, "on_value": on, "off_value": off}
    check("one_hot", **given, device=device, expected=wanted)


def test_one_hot_lights_nothing_for_an_index_out_of_range(device):
    indices = np.array([-1, 0, 2, 3, 2**31 - 1, -(2**31)], np.int32)
    wanted = np.array([[-1, -1, -1], [7, -1, -1], [-1, -1, 7], *[[-1, -1, -1]] * 3], np.float32)
    given = {"on_value": np.float32(7), "off_value": np.float32(-1)}
    check("one_hot", indices=indices, one_hot_vector_size=3, **given, device=device, expected=wanted)


@pytest.mark.parametrize(("lower", "upper"), [(0, -1), (-1, 0), (0, 0), (1, 2), (-1, -1), (100, 0), (2, 100)])
@pytest.mark.parametrize("shape", [(5, 5), (2, 3, 4, 7), (3, 9, 2), (1, 1)])
def test_band_part(device, rng, shape, lower, upper):
    check("band_part", x=rng.normal(size=shape), lower=lower, upper=upper, device=device, rtol=0)


@pytest.mark.parametrize("dtype", ["int32", "bool"])
def test_band_part_of_other_dtypes(device, rng, dtype):
    x = rng.integers(0, 2, (3, 40, 50)).astype(dtype)
    check("band_part", x=x, lower=3, upper=5, device=device)


def test_band_part_drops_what_is_not_finite(device):
    x = np.full((3, 3), np.inf, np.float32)
    (y,) = run("band_part", x=x, lower=0, upper=0, device=device)
    np.testing.assert_array_equal(y, np.where(np.eye(3) > 0, x, 0))


def test_band_part_needs_a_matrix():
    with pytest.raises(anex.Error, match="it needs two axes"):
        alone("band_part", np.zeros(3, np.float32), dtype="float32")
