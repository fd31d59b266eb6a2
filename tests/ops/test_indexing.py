"""Slices, gathers and scatters, with indices from constants and from inputs."""

import numpy as np
import pytest
import torch
from harness import check, run
from hypothesis import given, settings
from hypothesis import strategies as st

import anex

MODES = ["add", "div", "max", "min", "mul", "sub", "update"]


def numbers(rng, shape, dtype="float32"):
    return rng.integers(0, 100, shape).astype(dtype)


def exactly(op, expected, *, opset="iOS18", constants=(), **arguments):
    (found,) = run(op, opset=opset, constants=constants, **arguments)
    assert found.dtype == expected.dtype
    np.testing.assert_array_equal(found, expected)


# ---- slices -----------------------------------------------------------------------------------------


@st.composite
def slices(draw):
    shape = draw(st.lists(st.integers(1, 9), min_size=1, max_size=5))
    parts = []
    for n in shape:
        kind = draw(st.sampled_from(["range", "range", "stride", "backwards", "whole", "index"]))
        a = draw(st.integers(0, n - 1))
        b = draw(st.integers(a + 1, n))
        parts.append((kind, a, b, draw(st.integers(2, 4))))
    return shape, parts


@settings(deadline=None, max_examples=60)
@given(case=slices(), dtype=st.sampled_from(["float16", "float32", "int8"]), negative=st.booleans())
def test_slice_by_index_is_numpy_slicing(case, dtype, negative):
    shape, parts = case
    begin, end, stride, begin_mask, end_mask, squeeze, index = [], [], [], [], [], [], []
    for n, (kind, a, b, s) in zip(shape, parts, strict=True):
        step = {"stride": s, "backwards": -1}.get(kind, 1)
        first, last = (b - 1, a - 1) if kind == "backwards" else (a, b)
        begin.append(first - n if negative else first)
        end.append(last)
        stride.append(step)
        begin_mask.append(kind == "whole")
        end_mask.append(kind == "whole" or (kind == "backwards" and a == 0))
        squeeze.append(kind == "index")
        index.append(
            first
            if kind == "index"
            else slice(None)
            if kind == "whole"
            else slice(first, None if last < 0 else last, step)
        )
    x = (np.arange(np.prod(shape)) % 2048).reshape(shape).astype(dtype)  # exact in float16
    expected = np.asarray(x[tuple(index)])
    arguments = dict(
        begin=begin, end=end, stride=stride, begin_mask=begin_mask, end_mask=end_mask, squeeze_mask=squeeze
    )
    (found,) = run("slice_by_index", x=x, **arguments)
    np.testing.assert_array_equal(found.reshape(expected.shape), expected)


def test_slice_by_index_takes_outer_rows_and_reversed_columns(device, rng):
    x = numbers(rng, (4, 5, 6))
    check("slice_by_index", x=x, begin=[1, 0, 0], end=[3, 5, 6], device=device, rtol=0)
    check(
        "slice_by_index",
        x=x,
        begin=[0, 4, 5],
        end=[4, 0, 0],
        stride=[1, -2, -1],
        begin_mask=[False, True, True],
        end_mask=[True, True, True],
        device=device,
        expected=x[:, ::-2, ::-1],
        rtol=0,
    )


def test_slice_by_size_begins_where_an_input_says(device, rng):
    x = numbers(rng, (5, 6, 7))
    for begin in ([0, 0, 0], [2, 3, 4], [-3, -4, 1]):
        expected = x[tuple(slice(b % n, b % n + s) for b, n, s in zip(begin, x.shape, (2, 3, 3), strict=True))]
        check(
            "slice_by_size",
            x=x,
            begin=np.array(begin, "int32"),
            size=[2, 3, 3],
            device=device,
            expected=expected,
            rtol=0,
        )


def test_slice_by_size_stays_inside_whatever_begin_says(rng):
    x = numbers(rng, (4, 4))
    for begin in ([100, -100], [2**31 - 1, -(2**31)]):
        (found,) = run("slice_by_size", x=x, begin=np.array(begin, "int32"), size=[2, 2])
        np.testing.assert_array_equal(found, x[2:, :2])


@pytest.mark.parametrize("stride", [[1, 1, 1], [2, 1, 3], [1, -1, 1]])
def test_slice_update_replaces_a_box(device, rng, stride):
    x = numbers(rng, (4, 5, 9))
    window = tuple(slice(*((2, None, -1) if s == -1 else (1, 4 if i < 2 else 8, s))) for i, s in enumerate(stride))
    expected = x.copy()
    update = numbers(rng, x[window].shape) + 1000
    expected[window] = update
    begin = [2 if s == -1 else 1 for s in stride]
    check(
        "slice_update",
        x=x,
        update=update,
        begin=begin,
        end=[4, 4, 8],
        stride=stride,
        end_mask=[False, stride[1] == -1, False],
        device=device,
        expected=expected,
        rtol=0,
    )


def test_slice_update_writes_a_cache(rng):
    x, update = rng.normal(size=(2, 8, 128, 64)).astype("float16"), rng.normal(size=(2, 8, 1, 64)).astype("float16")
    expected = x.copy()
    expected[:, :, 77:78] = update
    exactly("slice_update", expected, x=x, update=update, begin=[0, 0, 77, 0], end=[2, 8, 78, 64])


@pytest.mark.parametrize("position", [0, 77, 127, 1000, -1])
def test_slice_update_writes_where_an_input_says(rng, position):
    x, update = (rng.normal(size=(2, 4, n, 64)).astype("float16") for n in (128, 1))
    begin = np.array([0, 0, position, 0], "int32")
    expected = x.copy()
    expected[:, :, min(position % 128 if position < 0 else position, 127), :] = update[:, :, 0]
    end = begin + np.array([2, 4, 1, 64], "int32")
    exactly("slice_update", expected, x=x, update=update, begin=begin, end=end)


# ---- gather -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("axis", range(-3, 3))
@pytest.mark.parametrize("shape", [(), (4,), (2, 3)])
def test_gather_along_any_axis(device, rng, axis, shape):
    x = numbers(rng, (5, 6, 7))
    indices = rng.integers(-5, 5, shape)
    if shape:
        check("gather", x=x, indices=indices.astype("int32"), axis=axis, device=device, rtol=0)
    else:
        expected = np.take(x, int(indices), axis)
        check("gather", x=x, indices=np.int32(indices), axis=axis, device=device, expected=expected, rtol=0)


@pytest.mark.parametrize("dtype", ["int32", "int16", "uint16", "int8", "uint8"])
@pytest.mark.parametrize("data", ["float16", "int8", "uint16"])
def test_gather_with_indices_of_every_dtype(rng, dtype, data):
    x, indices = numbers(rng, (50, 3), data), rng.integers(0, 50, 300).astype(dtype)
    exactly("gather", x[indices.astype(int)], x=x, indices=indices, axis=0)


@pytest.mark.parametrize(("axis", "batch"), [(1, 1), (2, 1), (2, 2), (3, 1), (1, 0)])
def test_gather_with_batch_axes(device, rng, axis, batch):
    x = numbers(rng, (3, 4, 5, 6))
    indices = rng.integers(0, 4, (*x.shape[:batch], 2, 3)).astype("int32")
    check("gather", x=x, indices=indices, axis=axis, batch_dims=batch, device=device, rtol=0)


def test_gather_of_embeddings(rng):
    table, tokens = rng.normal(size=(1000, 384)).astype("float16"), rng.integers(0, 1000, (2, 700)).astype("int32")
    exactly("gather", table[tokens], x=table, indices=tokens, axis=0, constants=["x"])


def test_gather_stays_inside(rng):
    x, indices = numbers(rng, (4, 3)), np.array([0, 4, 2**31 - 1, -(2**31)], "int32")
    exactly("gather", x[[0, 3, 3, 0]], x=x, indices=indices, axis=0)


@pytest.mark.cpu_engine
def test_gather_reports_an_index_outside(rng):
    x, indices = numbers(rng, (4, 3)), np.array([0, 4], "int32")
    with pytest.raises(anex.Error, match="index 4 is outside 0 to 3"):
        run("gather", x=x, indices=indices, axis=0, validate_indices=True)


@pytest.mark.parametrize("axis", range(-3, 3))
def test_gather_along_axis_takes_elements(device, rng, axis):
    shape = [4, 5, 6]
    x = numbers(rng, shape)
    shape[axis] = 7
    check(
        "gather_along_axis", x=x, indices=rng.integers(-4, 4, shape).astype("int32"), axis=axis, device=device, rtol=0
    )


def test_gather_along_axis_of_long_lines(rng):
    x = rng.normal(size=(3, 5, 700)).astype("float16")
    for axis in (1, 2):
        indices = rng.integers(0, x.shape[axis], x.shape).astype("uint16")
        exactly("gather_along_axis", np.take_along_axis(x, indices.astype(int), axis), x=x, indices=indices, axis=axis)


@pytest.mark.parametrize(("depth", "batch"), [(1, 0), (2, 0), (3, 0), (1, 1), (2, 1), (1, 2)])
def test_gather_nd_takes_slices(device, rng, depth, batch):
    x = numbers(rng, (3, 4, 5))
    lead = (*x.shape[:batch], 6)
    indices = np.stack([rng.integers(0, x.shape[batch + k], lead) for k in range(depth)], -1).astype("int32")
    grid = np.ix_(*(np.arange(n) for n in lead))[:batch]
    expected = x[(*grid, *(indices[..., k] for k in range(depth)))]
    check("gather_nd", x=x, indices=indices, batch_dims=batch, device=device, expected=expected, rtol=0)


# ---- scatter ------------------------------------------------------------------------------------------


def combine(mode, target, where, update):
    """target[where] = target[where] <mode> update, once per index, in order."""
    functions = dict(add=np.add, sub=np.subtract, mul=np.multiply, div=np.divide, max=np.maximum, min=np.minimum)
    if mode == "update":
        target[where] = update
    else:
        functions[mode].at(target, where, update)


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("axis", [0, 1, -1])
def test_scatter_combines_rows(device, rng, mode, axis):
    data = rng.normal(size=(5, 6, 7))
    indices = rng.choice(5, 4, replace=mode != "update").astype("int32")
    shape = [5, 6, 7]
    shape[axis] = 4

    def expected(data, indices, updates, axis, mode):
        y = np.moveaxis(data.copy(), axis, 0)
        combine(mode, y, indices, np.moveaxis(updates, axis, 0))
        return np.moveaxis(y, 0, axis)

    updates = rng.uniform(0.5, 2, shape)
    check(
        "scatter", data=data, indices=indices, updates=updates, axis=axis, mode=mode, device=device, expected=expected
    )


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("axis", [0, 1, -1])
def test_scatter_along_axis_combines_elements(device, rng, mode, axis):
    data, shape = rng.normal(size=(5, 6, 7)), [5, 6, 7]
    shape[axis] = 4
    order = np.argsort(rng.random((5, 6, 7)), axis) % 5
    indices = np.take(order, range(4), axis).astype("int32")
    indices = np.argsort(np.argsort(indices, axis), axis).astype("int32") if mode == "update" else indices

    def expected(data, indices, updates, axis, mode):
        y = data.copy()
        where = list(np.ogrid[tuple(slice(n) for n in indices.shape)])
        where[axis] = indices
        combine(mode, y, tuple(where), updates)
        return y

    updates = rng.uniform(0.5, 2, shape)
    check(
        "scatter_along_axis",
        data=data,
        indices=indices,
        updates=updates,
        axis=axis,
        mode=mode,
        device=device,
        expected=expected,
    )


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("depth", [1, 2, 3])
def test_scatter_nd_combines_slices(device, rng, mode, depth):
    data = rng.normal(size=(4, 5, 6))
    flat = rng.choice(np.prod(data.shape[:depth]), 4, replace=mode != "update")
    indices = np.stack(np.unravel_index(flat, data.shape[:depth]), -1).astype("int32")

    def expected(data, indices, updates, mode):
        y = data.copy()
        combine(mode, y, tuple(indices.T), updates)
        return y

    updates = rng.uniform(0.5, 2, (4, *data.shape[depth:]))
    check("scatter_nd", data=data, indices=indices, updates=updates, mode=mode, device=device, expected=expected)


@pytest.mark.parametrize("mode", ["add", "sub", "mul", "max", "min", "update", "div"])
def test_scatter_of_integers(rng, mode):
    data, updates = rng.integers(-99, 99, (6, 3)).astype("int32"), rng.integers(1, 9, (4, 3)).astype("int32")
    expected = data.copy()
    if mode == "div":
        expected[[5, 0, 2, 3]] = np.trunc(data[[5, 0, 2, 3]] / updates)
    else:
        combine(mode, expected, [5, 0, 2, 3], updates)
    exactly("scatter", expected, data=data, indices=np.array([5, 0, 2, 3], "int32"), updates=updates, mode=mode)


def test_scatter_adds_gradients_of_embeddings_in_order_and_in_float(rng):
    table, tokens = np.zeros((50, 700), "float16"), rng.integers(0, 50, 3000).astype("int32")
    gradients = rng.normal(size=(3000, 700)).astype("float16")
    expected = torch.zeros(50, 700, dtype=torch.float64).index_add_(
        0, torch.from_numpy(tokens), torch.from_numpy(gradients).double()
    )
    (found,) = run("scatter", data=table, indices=tokens, updates=gradients, axis=0, mode="add")
    np.testing.assert_allclose(found, expected.numpy().astype("float16"), rtol=2e-3, atol=1e-3)


SCATTERS = {
    "scatter": lambda rows: rows,
    "scatter_nd": lambda rows: rows[:, None],
    "scatter_along_axis": lambda rows: rows,
}


@pytest.mark.parametrize("mode", ["update", "add"])
@pytest.mark.parametrize("op", SCATTERS)
@pytest.mark.parametrize("dtype", ["float16", "float32", "int32"])
def test_a_scatter_drops_updates_whose_index_is_outside(rng, op, mode, dtype):
    data, updates = rng.integers(-9, 9, 4).astype(dtype), rng.integers(1, 9, 5).astype(dtype)
    rows = np.array([-1, 99, 2, 4, -(2**31)], "int32")  # iOS17: "negative values are considered out-of-bound"
    expected = data.copy()
    combine(mode, expected, [2], updates[2])
    (found,) = run(op, data=data, indices=SCATTERS[op](rows), updates=updates, mode=mode)
    np.testing.assert_array_equal(found, expected)
    with pytest.raises(anex.Error, match="index -1 is outside 0 to 3"):
        run(op, data=data, indices=SCATTERS[op](rows), updates=updates, mode=mode, validate_indices=True)


@pytest.mark.parametrize("op", SCATTERS)
def test_before_ios17_a_scatter_counts_negative_indices_from_the_end(rng, op):
    data, updates = numbers(rng, (4,)), numbers(rng, (4,))
    rows = np.array([-1, -4, -5, 4], "int32")
    expected = data.copy()
    expected[[-1, -4]] = updates[:2]
    (found,) = run(op, data=data, indices=SCATTERS[op](rows), updates=updates, mode="update", opset="iOS16")
    np.testing.assert_array_equal(found, expected)


def test_scatter_nd_drops_a_slice_when_one_of_its_indices_is_outside(rng):
    data, updates = numbers(rng, (3, 4, 5)), numbers(rng, (4, 5))
    indices = np.array(
        [[0, 4], [3, 0], [2, 3], [-1, 1]], "int32"
    )  # the first would be another row's if they were added up
    expected = data.copy()
    expected[2, 3] += updates[2]
    (found,) = run("scatter_nd", data=data, indices=indices, updates=updates, mode="add")
    np.testing.assert_array_equal(found, expected)


@pytest.mark.cpu_engine
def test_scatter_refuses_an_unknown_mode(rng):
    with pytest.raises(anex.Error, match="average"):
        run(
            "scatter",
            data=numbers(rng, (4,)),
            indices=np.array([1], "int32"),
            updates=numbers(rng, (1,)),
            mode="average",
        )
