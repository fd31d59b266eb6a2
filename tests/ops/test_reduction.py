"""Reductions, argmax, topk, argsort, cumsum and non-maximum suppression, against numpy and coremltools."""

import itertools

import numpy as np
import pytest
import torch
from harness import check, rounded, run
from hypothesis import given, settings
from hypothesis import strategies as st

import anex
from anex import _native
from anex.errors import Error

ISAS = _native.instruction_sets()
REDUCE = {
    "reduce_sum": np.sum,
    "reduce_mean": np.mean,
    "reduce_max": np.max,
    "reduce_min": np.min,
    "reduce_prod": np.prod,
    "reduce_sum_square": lambda x, axis, keepdims: np.sum(x * x, axis, keepdims=keepdims),
    "reduce_l1_norm": lambda x, axis, keepdims: np.sum(np.abs(x), axis, keepdims=keepdims),
    "reduce_l2_norm": lambda x, axis, keepdims: np.sqrt(np.sum(x * x, axis, keepdims=keepdims)),
    "reduce_log_sum": lambda x, axis, keepdims: np.log(np.sum(x, axis, keepdims=keepdims)),
    "reduce_log_sum_exp": lambda x, axis, keepdims: torch.logsumexp(torch.tensor(x), axis, keepdims).numpy(),
}
SHAPES = [(1,), (33,), (3, 17), (130, 3), (2, 3, 4), (2, 33, 1, 65), (3, 2, 300), (2, 3, 2, 3, 2), (1, 1, 1)]


def subsets(rank):
    return [axes for n in range(1, rank + 1) for axes in itertools.combinations(range(rank), n)]


def values(op, rng, shape):
    if op == "reduce_prod":
        return rng.uniform(0.9, 1.1, size=shape)
    return rng.uniform(0.5, 2, size=shape) if op == "reduce_log_sum" else rng.normal(size=shape)


def reference(op):
    return lambda x, axes, keep_dims=False: REDUCE[op](x, tuple(axes), keepdims=keep_dims)


def reduce(op, device, x, axes, keep_dims=False, **more):
    check(op, x=x, axes=list(axes), keep_dims=keep_dims, expected=reference(op), device=device, **more)


# ---- reductions over axes ---------------------------------------------------------------------------


@pytest.mark.parametrize("op", REDUCE)
@pytest.mark.parametrize("shape", SHAPES)
def test_reduction_over_every_subset_of_axes(device, rng, op, shape):
    x = values(op, rng, shape)
    for axes in subsets(len(shape)):
        reduce(op, device, x, axes, keep_dims=len(axes) % 2 == 0, dtype="float32")


@pytest.mark.parametrize("op", REDUCE)
@pytest.mark.parametrize("axes", [(0,), (1,), (3,), (1, 3), (0, 2), (-1, -2), (0, 1, 2, 3)])
def test_reduction_in_both_precisions(device, rng, op, axes):
    reduce(op, device, values(op, rng, (2, 5, 3, 70)), axes, keep_dims=True)


@pytest.mark.parametrize("op", REDUCE)
def test_reduction_without_axes_is_over_all(device, rng, op):
    check(op, x=values(op, rng, (3, 4, 5)), device=device, expected=lambda x: reference(op)(x, (0, 1, 2)))


@pytest.mark.parametrize("isa", ISAS)
@pytest.mark.parametrize("op", REDUCE)
@pytest.mark.parametrize(
    ("shape", "axes"),
    [
        ((300000,), (0,)),
        ((1, 700, 1, 90), (1,)),
        ((50000, 3), (1,)),
        ((3, 50000), (1,)),
        ((30000, 5), (0,)),
        ((200, 3, 500), (0, 2)),
        ((3, 70, 3, 40, 17), (1, 3)),
    ],
)
def test_reduction_of_large_tensors(rng, isa, op, shape, axes):
    x = values(op, rng, shape)
    if op == "reduce_prod":
        x = 1 + (x - 1) / 100
    reduce(op, "cpu", x, axes, isa=isa)


@given(shape=st.lists(st.sampled_from([1, 2, 3, 5, 17, 33]), min_size=1, max_size=5), data=st.data())
@settings(max_examples=60, deadline=None)
def test_reduction_of_random_shapes(shape, data):
    op = data.draw(st.sampled_from(sorted(REDUCE)))
    axes = data.draw(st.lists(st.integers(-len(shape), len(shape) - 1), min_size=1, unique_by=lambda a: a % len(shape)))
    x = values(op, np.random.default_rng(len(shape)), shape)
    reduce(op, "cpu", x, axes, keep_dims=data.draw(st.booleans()), dtype="float32")


@pytest.mark.parametrize("op", [op for op in REDUCE if op != "reduce_log_sum_exp"])
@pytest.mark.parametrize(
    ("shape", "axes"),
    [((7,), [0]), ((3, 40), [1]), ((3, 40), [0]), ((40, 3), [1]), ((2, 3, 4), [0, 2]), ((70000, 3), [0])],
)
def test_reduction_of_integers(device, rng, op, shape, axes):
    low, high = (-3, 4) if op == "reduce_prod" else (1, 50) if op == "reduce_log_sum" else (-50, 50)
    check(op, x=rng.integers(low, high, size=shape).astype("int32"), axes=axes, keep_dims=True, device=device)


def test_log_sum_exp_of_integers_is_cut_to_one(device):
    x = np.repeat(np.array([[2**30, -(2**30), 7]], "int32"), 40, 0)
    (found,) = run("reduce_log_sum_exp", x=x, axes=[0], device=device)  # x + log 40
    np.testing.assert_array_equal(found, [2**30 + 3, -(2**30) + 4, 10])


def test_integer_sums_wrap_and_means_do_not(device):
    x = np.full((4, 2), 2**30 + 1, "int32")
    np.testing.assert_array_equal(run("reduce_sum", x=x, axes=[0], device=device)[0], [4, 4])
    np.testing.assert_array_equal(run("reduce_mean", x=x, axes=[0], device=device)[0], [2**30 + 1] * 2)


def test_a_million_ones_sum_to_a_million(device):
    ones = np.ones((1000, 1000), "float16")
    for axes in ([0, 1], [0], [1]):
        wanted = rounded(np.sum(ones, tuple(axes), dtype="float32"))
        np.testing.assert_array_equal(
            run("reduce_sum", x=ones.astype("float32"), axes=axes, device=device)[0].squeeze(), wanted
        )
    assert np.isinf(run("reduce_sum", x=ones, axes=[0, 1], device=device)[0])  # above 65504
    assert run("reduce_mean", x=ones, axes=[0, 1], device=device)[0] == 1


def test_large_sums_are_accurate(device, rng):
    x = rng.uniform(0, 1, size=(2_000_000,)).astype("float32")
    np.testing.assert_allclose(run("reduce_sum", x=x, device=device)[0], x.astype("float64").sum(), rtol=1e-7)


@pytest.mark.parametrize("op", ["reduce_max", "reduce_min", "reduce_sum", "reduce_log_sum_exp"])
@pytest.mark.parametrize("axis", [0, 1])
def test_reduction_keeps_nan_and_infinity(device, op, axis):
    x = np.zeros((40, 50))
    x[3, 4], x[7, 8], x[9, 10] = np.nan, np.inf, -np.inf
    x[:, 20] = x[20, :] = -np.inf
    reduce(op, device, x, [axis])


@pytest.mark.cpu_engine
def test_reduction_is_the_same_on_every_number_of_threads(rng):
    x = rng.normal(size=(600, 1000)).astype("float32")
    before = anex.get_num_threads()
    try:
        for op, axes in itertools.product(("reduce_sum", "reduce_log_sum_exp"), ([0], [1], [0, 1])):
            results = []
            for threads in (1, 2, 5):
                anex.set_num_threads(threads)
                results.append(run(op, x=x, axes=axes)[0])
            assert all((result == results[0]).all() for result in results), (op, axes)
    finally:
        anex.set_num_threads(before)


# ---- argmax, argmin ---------------------------------------------------------------------------------


@pytest.mark.parametrize("op", ["reduce_argmax", "reduce_argmin"])
@pytest.mark.parametrize("dtype", ["float16", "float32", "int32"])
@pytest.mark.parametrize(
    "shape", [(33,), (3, 17), (130, 3), (9, 4, 5), (2, 33, 1, 65), (3, 70, 300), (2, 3, 2, 3, 2), (1, 6000, 3)]
)
def test_first_of_the_greatest_along_every_axis(device, rng, op, dtype, shape):
    x = rng.integers(-9, 9, size=shape).astype(dtype)  # many ties
    function = np.argmax if op == "reduce_argmax" else np.argmin
    for axis in range(-1, len(shape)):
        for keep_dims in (False, True):
            wanted = function(x, axis, keepdims=keep_dims)
            found = run(op, x=x, axis=axis, keep_dims=keep_dims, device=device)[0]
            assert found.dtype == np.int32
            assert found.shape == wanted.shape
            np.testing.assert_array_equal(found, wanted)


@pytest.mark.parametrize("output_dtype", ["int32", "uint16"])
def test_argmax_counts_in_the_dtype_asked_for(device, rng, output_dtype):
    x = rng.normal(size=(5, 700)).astype("float32")
    (found,) = run("reduce_argmax", x=x, axis=1, output_dtype=output_dtype, device=device)
    assert found.dtype == output_dtype
    np.testing.assert_array_equal(found, x.argmax(1))


@pytest.mark.parametrize("op", ["reduce_argmax", "reduce_argmin"])
def test_argmax_prefers_the_first_nan(device, op):
    x = np.zeros((70, 200), "float32")
    x[5, 150] = x[5, 190] = x[60, 150] = np.nan
    x[6] = -np.inf
    x[7] = np.inf
    function = np.argmax if op == "reduce_argmax" else np.argmin
    for axis in (0, 1):
        np.testing.assert_array_equal(run(op, x=x, axis=axis, device=device)[0], function(x, axis))


# ---- topk, argsort ----------------------------------------------------------------------------------


def in_order(x, axis, ascending):
    """Stable: equal elements by their place."""
    return np.argsort(x if ascending else -x.astype("float64"), axis=axis, kind="stable")


@pytest.mark.parametrize("ascending", [False, True])
@pytest.mark.parametrize("dtype", ["float16", "float32", "int32", "int16", "uint16", "int8", "uint8"])
@pytest.mark.parametrize(
    ("shape", "axis"),
    [((1,), 0), ((40,), 0), ((3, 17), 1), ((17, 3), 0), ((2, 33, 1, 20), 1), ((5, 300), -1), ((2, 9, 70), 1)],
)
def test_topk_takes_the_best_in_order(device, rng, shape, axis, dtype, ascending):
    x = rng.integers(0 if dtype[0] == "u" else -9, 9, size=shape).astype(dtype)
    order = in_order(x, axis, ascending)
    for k in sorted({1, (shape[axis] + 9) // 10, shape[axis] // 2 + 1, shape[axis]}):
        index = np.take(order, range(k), axis)
        values, indices = run("topk", x=x, k=k, axis=axis, ascending=ascending, device=device)
        np.testing.assert_array_equal(indices, index)
        np.testing.assert_array_equal(values, np.take_along_axis(x, index, axis))


@pytest.mark.parametrize("output_indices_dtype", ["int32", "uint16"])
def test_topk_counts_in_the_dtype_asked_for(device, rng, output_indices_dtype):
    x = rng.normal(size=(3, 700)).astype("float16")
    _, indices = run("topk", x=x, k=9, axis=1, output_indices_dtype=output_indices_dtype, device=device)
    assert indices.dtype == output_indices_dtype
    np.testing.assert_array_equal(indices, in_order(x, 1, False)[:, :9])


def test_topk_of_a_vocabulary(device, rng):
    halves = np.arange(1 << 16, dtype=np.uint16).view(np.float16)
    distinct = np.unique(halves[np.isfinite(halves)])  # ties would be anybody's order
    x = np.stack([rng.permutation(distinct)[:50257] for _ in range(2)]).astype("float32")
    values, indices = run("topk", x=x, k=50, axis=-1, device=device)
    wanted = torch.topk(torch.tensor(x), 50)
    np.testing.assert_array_equal(values, wanted.values)
    np.testing.assert_array_equal(indices, wanted.indices)


@pytest.mark.parametrize("opset", ["iOS15", "iOS16", "iOS17"])
def test_topk_of_every_opset(device, rng, opset):
    check(
        "topk",
        x=rng.permutation(40).reshape(4, 10).astype("float32"),
        k=3,
        axis=1,
        opset=opset,
        device=device,
        dtype="float32",
    )


def test_topk_without_indices(device, rng):
    x = rounded(rng.normal(size=(4, 10)).astype("float32"))
    (values,) = run("topk", x=x, k=3, axis=1, return_indices=False, sort=False, device=device)
    np.testing.assert_array_equal(values, -np.sort(-x, 1)[:, :3])


@pytest.mark.parametrize("ascending", [False, True])
def test_topk_puts_nan_last(device, ascending):
    x = np.array([[np.nan, 1, -np.inf, 0.0, np.inf, -0.0, np.nan, 2]], "float32")
    _, indices = run("topk", x=x, k=8, axis=1, ascending=ascending, device=device)
    assert indices.tolist() == [[2, 3, 5, 1, 7, 4, 0, 6] if ascending else [4, 7, 1, 3, 5, 2, 0, 6]]


@pytest.mark.parametrize("ascending", [False, True])
@pytest.mark.parametrize(
    ("shape", "axis"), [((1,), 0), ((1000,), 0), ((3, 17), 0), ((3, 17), -1), ((2, 40, 30), 1), ((2, 3, 2, 3, 2), 2)]
)
def test_argsort_is_stable(device, rng, shape, axis, ascending):
    for dtype in ("float16", "float32", "int32"):
        x = rng.integers(-20, 20, size=shape).astype(dtype)
        (found,) = run("argsort", x=x, axis=axis, ascending=ascending, device=device)
        np.testing.assert_array_equal(found, in_order(x, axis, ascending))


# ---- cumsum -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(("exclusive", "reverse"), list(itertools.product([False, True], repeat=2)))
@pytest.mark.parametrize("shape", [(1,), (5000,), (3, 17), (40, 50), (100, 3), (2, 33, 1, 65), (2, 3, 2, 3, 2)])
def test_cumsum_along_every_axis(device, rng, shape, exclusive, reverse):
    for axis in range(-1, len(shape)):

        def expected(x, axis, **_):
            x = np.flip(x, axis) if reverse else x
            y = np.cumsum(x, axis, dtype=x.dtype) - (x if exclusive else 0)
            return np.flip(y, axis) if reverse else y

        for x in (rng.normal(size=shape), rng.integers(-99, 99, size=shape).astype("int32")):
            check("cumsum", x=x, axis=axis, exclusive=exclusive, reverse=reverse, expected=expected, device=device)


# ---- non_maximum_suppression --------------------------------------------------------------------------


def overlap(a, b):
    """Intersection over union of boxes [..., 4], centre and size."""
    low = np.maximum(a[..., :2] - a[..., 2:] / 2, b[..., :2] - b[..., 2:] / 2)
    high = np.minimum(a[..., :2] + a[..., 2:] / 2, b[..., :2] + b[..., 2:] / 2)
    common = np.prod(np.maximum(high - low, 0), -1)
    return common / (np.prod(a[..., 2:], -1) + np.prod(b[..., 2:], -1) - common)


def suppress(boxes, scores, iou, threshold, most, by_class):
    """The reference of coremltools' own tests, without TensorFlow: boxes [B, 4], scores [B, K]."""
    best, classes = scores.max(1), scores.argmax(1)
    kept = []
    for i in sorted(np.flatnonzero(best >= threshold), key=lambda i: -best[i]):
        if not any(overlap(boxes[i], boxes[j]) > iou and (not by_class or classes[i] == classes[j]) for j in kept):
            kept.append(i)
    return (kept or [best.argmax()])[:most]


def far_from_all(values, low, high):
    """The middle of the widest gap: no arithmetic, however coarse, puts a value on the other side of it."""
    inside = np.sort([low, high, *values[(values > low) & (values < high)]])
    widest = np.argmax(np.diff(inside))
    return float(inside[widest] + inside[widest + 1]) / 2


@pytest.mark.parametrize("opset", ["iOS15", "iOS16", "iOS17", "iOS18"])
@pytest.mark.parametrize("by_class", [False, True])
@pytest.mark.parametrize(
    ("boxes", "most", "classes", "threshold"),
    [(1, 1, 1, -9.0), (10, 7, 4, 0.3), (100, 64, 7, 0.5), (60, 80, 1, 0.2), (9, 3, 2, 99.0)],
)
def test_non_maximum_suppression(device, rng, opset, by_class, boxes, most, classes, threshold):
    old = opset < "iOS17"
    if not old:
        threshold = -np.inf
    corners, sizes = rng.uniform(0, 100, size=(2, boxes, 2)), rng.uniform(5, 50, size=(2, boxes, 2))
    where = rounded(np.concatenate([corners, sizes], 2).astype("float32"))
    scores = rng.permutation(np.linspace(-1, 1, 2 * boxes * classes)).reshape(2, boxes, classes).astype("float32")
    scores = rounded(scores)
    doubles = where.astype("float64")
    iou = far_from_all(overlap(doubles[:, :, None], doubles[:, None]).ravel(), 0.2, 0.4)
    wanted = [np.zeros((2, most, 4)), np.zeros((2, most, classes)), np.full((2, most), -1), np.zeros(2)]
    for n in range(2):
        kept = suppress(doubles[n], scores[n], iou, threshold, most, by_class)
        wanted[0][n, : len(kept)], wanted[1][n, : len(kept)] = where[n, kept], scores[n, kept]
        wanted[2][n, : len(kept)], wanted[3][n] = kept, len(kept)
    arguments = {
        "iou_threshold": iou,
        "max_boxes": most,
        "per_class_suppression": by_class,
        "opset": opset,
        "device": device,
    }
    if old:
        found = run("non_maximum_suppression", boxes=where, scores=scores, score_threshold=threshold, **arguments)
    else:
        turned = [np.ascontiguousarray(a.transpose(0, 2, 1)) for a in (where, scores)]
        found = run("non_maximum_suppression", boxes=turned[0], scores=turned[1], **arguments)
        wanted = [wanted[0].transpose(0, 2, 1), wanted[1].transpose(0, 2, 1), wanted[2]]
    assert len(found) == len(wanted)
    for left, right in zip(found, wanted, strict=True):
        np.testing.assert_array_equal(left, right.astype(left.dtype))


@pytest.mark.cpu_engine
def test_a_long_axis_does_not_fit_uint16(device):
    x = np.zeros((70000,), "float32")
    with pytest.raises(Error, match="int32"):
        run("reduce_argmax", x=x, axis=0, output_dtype="uint16", device=device)
