"""softmax and the normalizations, against torch in float64 and coremltools' own values."""

import numpy as np
import pytest
import torch
from harness import check, run
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn import functional

import anex
from anex import _native

ISAS = _native.instruction_sets()
SHAPES = [
    (1,),
    (33,),
    (3, 17),
    (17, 3),
    (2, 3, 4),
    (1, 5, 1, 7),
    (2, 33, 1, 65),
    (1, 3, 130),
    (2, 3, 2, 3, 2),
    (400, 3),
]


def axes_of(shapes):
    return [(shape, axis) for shape in shapes for axis in range(-len(shape), len(shape))]


def torch_softmax(axis):
    return lambda x, **_: torch.softmax(torch.tensor(x), axis).numpy()


# ---- softmax --------------------------------------------------------------------------------------


@pytest.mark.parametrize(("shape", "axis"), axes_of(SHAPES))
def test_softmax_over_any_axis(device, rng, shape, axis):
    check("softmax", x=3 * rng.normal(size=shape), axis=axis, device=device, atol=1e-3)


@pytest.mark.parametrize("isa", ISAS)
@pytest.mark.parametrize(
    ("shape", "axis"), [((1, 768, 1, 96), 1), ((4, 50, 300), 2), ((70000,), 0), ((20000, 3), 1), ((3, 5000, 2), 1)]
)
def test_softmax_of_large_tensors_is_the_same_on_every_instruction_set(rng, isa, shape, axis):
    check(
        "softmax", x=4 * rng.normal(size=shape), axis=axis, expected=torch_softmax(axis), isa=isa, rtol=2e-3, atol=1e-6
    )


def test_softmax_sums_to_one_whatever_the_offset(device, rng):
    x = rng.normal(size=(8, 257)) + 20000
    (y,) = run("softmax", x=x.astype("float16"), axis=-1, device=device)
    np.testing.assert_allclose(y.astype("float64").sum(-1), 1, rtol=2e-3)


@pytest.mark.parametrize("axis", [0, 1])
def test_softmax_gives_masked_elements_nothing(device, axis):
    x = np.array([[0.0, -np.inf, 1.0], [-np.inf, 2.0, 2.0], [0.0, 0.0, -60000.0]])
    check("softmax", x=x, axis=axis, expected=torch_softmax(axis), device=device)


def test_softmax_by_default_is_over_the_last_axis(device, rng):
    check("softmax", x=rng.normal(size=(3, 40)), device=device, expected=torch_softmax(-1))


# ---- layer_norm -----------------------------------------------------------------------------------


def numpy_layer_norm(x, axes, gamma=None, beta=None, epsilon=1e-5):
    axes = tuple(sorted(a % x.ndim for a in axes))
    shape = [n if i in axes else 1 for i, n in enumerate(x.shape)]
    y = (x - x.mean(axes, keepdims=True)) / np.sqrt(x.var(axes, keepdims=True) + epsilon)
    return y * (1 if gamma is None else gamma.reshape(shape)) + (0 if beta is None else beta.reshape(shape))


LAYER_NORM = [
    ((5,), [0]),
    ((3, 17), [-1]),
    ((2, 6, 40), [2]),
    ((2, 6, 40), [1, 2]),
    ((2, 6, 4), [0]),
    ((2, 6, 4), [0, 1, 2]),
    ((1, 33, 1, 70), [1]),
    ((2, 8, 1, 3), [1]),
    ((2, 3, 4, 5), [1, 3]),
    ((2, 3, 4, 5), [0, 2]),
    ((2, 3, 4, 5), [-1, 1]),
    ((2, 3, 4, 5, 6), [2, 3, 4]),
    ((300, 5), [1]),
    ((3, 4, 50), [0, 2]),
    ((2, 9000), [1]),
    ((2, 70, 70, 2), [1, 2]),
]


@pytest.mark.parametrize("affine", ["", "gamma", "gamma beta"])
@pytest.mark.parametrize(("shape", "axes"), LAYER_NORM)
def test_layer_norm_over_any_axes(device, rng, shape, axes, affine):
    chosen = sorted(a % len(shape) for a in axes)
    size = [shape[i] for i in chosen]
    more = {name: rng.normal(size=size) for name in affine.split()}
    x = 2 * rng.normal(size=shape) + 1
    check("layer_norm", x=x, axes=axes, expected=numpy_layer_norm, constants=["gamma", "beta"], device=device, **more)


@pytest.mark.parametrize("isa", ISAS)
@pytest.mark.parametrize(("shape", "axes"), [((1, 768, 1, 64), [1]), ((2, 100, 768), [2])])
def test_layer_norm_of_large_tensors(rng, isa, shape, axes):
    size = [shape[a] for a in axes]
    check(
        "layer_norm",
        x=rng.normal(size=shape) + 3,
        axes=axes,
        gamma=rng.normal(size=size),
        beta=rng.normal(size=size),
        epsilon=np.array(1e-3),
        expected=numpy_layer_norm,
        constants=["gamma", "beta"],
        isa=isa,
    )


@pytest.mark.parametrize("opset", ["iOS15", "iOS16", "iOS17", "iOS18"])
def test_layer_norm_of_every_opset(device, rng, opset):
    check("layer_norm", x=rng.normal(size=(2, 5, 8)), axes=[-1], opset=opset, device=device)


def test_layer_norm_takes_gamma_of_another_dtype(device, rng):
    x, gamma = rng.normal(size=(3, 20)).astype("float16"), rng.normal(size=20).astype("float32")
    y = run("layer_norm", x=x, axes=[1], gamma=gamma, constants=["gamma"], epsilon=np.float32(1e-5), device=device)[0]
    assert y.dtype == np.float16
    np.testing.assert_allclose(y, numpy_layer_norm(x.astype("float64"), [1], gamma), rtol=1e-2, atol=1e-2)


def test_layer_norm_of_a_constant_is_beta(device):
    x, beta = np.full((4, 100), 3.0), np.arange(100.0)
    check(
        "layer_norm",
        x=x,
        axes=[1],
        gamma=np.ones(100),
        beta=beta,
        constants=["gamma", "beta"],
        device=device,
        expected=np.tile(beta, (4, 1)),
    )


@given(shape=st.lists(st.integers(1, 9), min_size=1, max_size=5), data=st.data())
@settings(max_examples=40, deadline=None)
def test_layer_norm_of_random_shapes_and_axes(shape, data):
    axes = data.draw(st.lists(st.integers(0, len(shape) - 1), min_size=1, unique=True))
    x = np.random.default_rng(len(shape)).normal(size=shape)
    gamma = np.random.default_rng(1).normal(size=[shape[a] for a in sorted(axes)])
    check(
        "layer_norm",
        x=x,
        axes=axes,
        gamma=gamma,
        expected=numpy_layer_norm,
        constants=["gamma"],
        epsilon=np.array(1e-2),
        dtype="float32",
    )


# ---- instance_norm, batch_norm ----------------------------------------------------------------------

IMAGES = [(1, 1, 5), (2, 3, 40), (2, 3, 4, 5), (1, 40, 3, 2), (3, 17, 33, 65), (2, 5, 1, 1), (9, 4, 2)]


@pytest.mark.parametrize("affine", [False, True])
@pytest.mark.parametrize("shape", IMAGES)
def test_instance_norm(device, rng, shape, affine):
    gamma, beta = rng.normal(size=(2, shape[1]))
    more = {"gamma": gamma, "beta": beta} if affine else {}

    def expected(x, gamma=None, beta=None, **_):
        space = tuple(range(2, x.ndim))
        channel = (-1,) + (1,) * len(space)
        y = (x - x.mean(space, keepdims=True)) / np.sqrt(x.var(space, keepdims=True) + 1e-2)
        return y if gamma is None else y * gamma.reshape(channel) + beta.reshape(channel)

    check(
        "instance_norm",
        x=rng.normal(size=shape),
        epsilon=np.array(1e-2),
        expected=expected,
        constants=["gamma", "beta"],
        device=device,
        **more,
    )


@pytest.mark.parametrize("affine", [False, True])
@pytest.mark.parametrize("shape", [*IMAGES, (2, 3, 2, 3, 4), (1, 5000, 2), (1, 2, 100, 100)])
def test_batch_norm(device, rng, shape, affine):
    mean, variance = rng.normal(size=shape[1]), rng.uniform(0.1, 2, size=shape[1])
    more = {"gamma": rng.normal(size=shape[1]), "beta": rng.normal(size=shape[1])} if affine else {}

    def expected(x, mean, variance, gamma=None, beta=None, **_):
        given = [None if v is None else torch.tensor(v) for v in (mean, variance, gamma, beta)]
        return functional.batch_norm(torch.tensor(x), *given, eps=1e-3).numpy()

    check(
        "batch_norm",
        x=rng.normal(size=shape),
        mean=mean,
        variance=variance,
        epsilon=np.array(1e-3),
        expected=expected,
        constants=["mean", "variance", "gamma", "beta"],
        device=device,
        **more,
    )


# ---- l2_norm, local_response_norm -------------------------------------------------------------------


@pytest.mark.parametrize("epsilon", [1e-6, 0.1])
@pytest.mark.parametrize("shape", [(1, 1, 1), (3, 4, 5), (2, 3, 4, 5), (50, 2, 1, 3), (2, 2, 3, 4, 5), (1, 8, 40, 40)])
def test_l2_norm_over_the_last_three_axes(device, rng, shape, epsilon):
    check("l2_norm", x=rng.normal(size=shape), epsilon=epsilon, device=device)


@pytest.mark.parametrize(
    "shape", [(1, 1, 3), (2, 7, 5), (2, 33, 4, 17), (1, 6, 1, 1), (3, 4, 2, 3, 2), (1, 64, 20, 20)]
)
@pytest.mark.parametrize(
    ("size", "alpha", "beta", "k"),
    [(1, 1e-4, 0.75, 1.0), (2, 0.5, 0.75, 1.0), (3, 0.5, 0.75, 2.0), (4, 0.25, 1.0, 1.0), (99, 1.0, 1.0, 1.0)],
)
def test_local_response_norm(device, rng, shape, size, alpha, beta, k):
    def expected(x, **_):
        return functional.local_response_norm(torch.tensor(x), size, alpha, beta, k).numpy()

    check(
        "local_response_norm",
        x=3 * rng.normal(size=shape),
        size=size,
        alpha=alpha,
        beta=beta,
        k=k,
        expected=expected,
        device=device,
    )


# ---- the same, however many threads -----------------------------------------------------------------


@pytest.mark.cpu_engine
@pytest.mark.parametrize(
    ("op", "arguments"),
    [
        ("softmax", {"x": (1, 500, 1, 300), "axis": 1}),
        ("softmax", {"x": (300, 500), "axis": 1}),
        ("layer_norm", {"x": (1, 500, 1, 300), "axes": [1]}),
        ("l2_norm", {"x": (40, 30, 20, 20)}),
        ("local_response_norm", {"x": (2, 64, 30, 30), "size": 5}),
    ],
)
def test_threads_do_not_change_a_bit(rng, op, arguments):
    x = rng.normal(size=arguments["x"]).astype("float16")
    before = anex.get_num_threads()
    try:
        results = []
        for threads in (1, 2, 5):
            anex.set_num_threads(threads)
            results.append(run(op, **{**arguments, "x": x})[0])
    finally:
        anex.set_num_threads(before)
    assert all((result == results[0]).all() for result in results)
