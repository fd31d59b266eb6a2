"""Matrix products: linear, matmul, einsum, on shapes around the edges of register tiles and cache blocks."""

import numpy as np
import pytest
from harness import check, run, tolerance
from hypothesis import given, settings
from hypothesis import strategies as st

import anex
from anex import _native, mb
from anex.devices.cpu import lower

ISAS = _native.instruction_sets()
EDGES = [1, 2, 5, 12, 13, 17, 32, 33, 48, 65]


def normal(rng, *shape):
    return rng.normal(size=shape).astype(np.float32)


# ---- linear ---------------------------------------------------------------------------------------


def dense(x, weight, bias=0):
    return x @ weight.T + bias


@pytest.mark.parametrize("opset", ["iOS15", "iOS17", "iOS18"])
@pytest.mark.parametrize("shape", [(7,), (5, 7), (2, 5, 7)])
def test_linear_over_ranks(device, rng, shape, opset):
    weight, bias = normal(rng, 9, 7), normal(rng, 9)
    check(
        "linear",
        x=normal(rng, *shape),
        weight=weight,
        bias=bias,
        constants=("weight", "bias"),
        opset=opset,
        expected=dense,
        device=device,
    )


@pytest.mark.parametrize("shape", [(2, 3, 5, 7), (2, 1, 3, 5, 7)])
def test_linear_of_rank_4_and_5(device, rng, shape):
    check(
        "linear", x=normal(rng, *shape), weight=normal(rng, 9, 7), constants=("weight",), expected=dense, device=device
    )


@pytest.mark.parametrize("n", [1, 3, 31, 33, 257])
@pytest.mark.parametrize("k", [1, 17, 255, 257, 600])
@pytest.mark.parametrize("m", [1, 3, 12, 25])
def test_linear_of_odd_sizes(device, rng, m, n, k):
    weight, bias = normal(rng, n, k), normal(rng, n)
    check(
        "linear",
        x=normal(rng, m, k),
        weight=weight,
        bias=bias,
        constants=("weight", "bias"),
        expected=dense,
        device=device,
    )


def test_linear_with_float16_weights_of_a_float32_input(device, rng):
    rtol = tolerance(1e-4)
    x, weight, bias = normal(rng, 5, 40), normal(rng, 30, 40).astype(np.float16), normal(rng, 30).astype(np.float16)
    (found,) = run("linear", x=x, weight=weight, bias=bias, constants=("weight", "bias"), device=device)
    assert found.dtype == np.float32
    np.testing.assert_allclose(
        found, dense(x, weight.astype(np.float64), bias.astype(np.float64)), rtol=rtol, atol=rtol
    )


def test_linear_of_integers_wraps_as_numpy(device, rng):
    big = {
        "x": rng.integers(-(2**30), 2**30, (4, 9)),
        "weight": rng.integers(-(2**30), 2**30, (5, 9)),
        "bias": rng.integers(-9, 9, 5),
    }
    check(
        "linear",
        **{name: value.astype(np.int32) for name, value in big.items()},
        constants=("weight", "bias"),
        device=device,
    )


@pytest.mark.parametrize("kinds", [("float16", "int32"), ("float32", "int32"), ("int32", "float16")])
def test_products_of_integers_and_floats_have_the_dtype_that_is_not_constant(device, rng, kinds):
    x, y = rng.integers(-9, 9, (3, 4, 9)).astype(kinds[0]), rng.integers(-9, 9, (3, 9, 5)).astype(kinds[1])
    weight, bias = y[0].T.copy(), np.arange(5).astype(kinds[1])
    for found, wanted in [
        (run("linear", x=x, weight=weight, bias=bias, constants=("weight", "bias"), device=device), x @ y[0] + bias),
        (run("matmul", x=x, y=y, constants=("y",), device=device), x @ y),
        (run("matmul", x=x[:1], y=y, constants=("y",), device=device), x[:1] @ y),
    ]:
        assert found[0].dtype == kinds[0]
        np.testing.assert_array_equal(found[0], wanted)


def test_linear_with_weight_and_bias_computed_while_running(rng):
    x, weight, bias = normal(rng, 5, 40), normal(rng, 33, 40), normal(rng, 33)
    plan = _native.Plan()
    inputs = [
        plan.add_input(name, value.shape, "float32") for name, value in {"x": x, "weight": weight, "bias": bias}.items()
    ]
    y = plan.add_value((5, 33), "float32")
    plan.add_op("linear", "y", inputs, [], [y])
    plan.finish([("y", y)])
    np.testing.assert_allclose(plan.run((x, weight, bias)), dense(x, weight, bias), rtol=1e-4, atol=1e-4)


# ---- matmul ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("transpose_y", [False, True])
@pytest.mark.parametrize("transpose_x", [False, True])
@pytest.mark.parametrize("constant", [(), ("x",), ("y",)])
@pytest.mark.parametrize(
    ("m", "n", "k"), [(5, 9, 7), (1, 40, 33), (40, 1, 33), (33, 65, 1), (1, 1, 300), (70, 66, 270)]
)
def test_matmul_of_transposed_and_constant_operands(device, rng, m, n, k, constant, transpose_x, transpose_y):
    x = normal(rng, k, m) if transpose_x else normal(rng, m, k)
    y = normal(rng, n, k) if transpose_y else normal(rng, k, n)
    product = (x.T if transpose_x else x).astype(np.float16).astype(np.float64) @ (y.T if transpose_y else y).astype(
        np.float16
    )
    check(
        "matmul",
        x=x,
        y=y,
        transpose_x=transpose_x,
        transpose_y=transpose_y,
        constants=constant,
        device=device,
        expected=product,
        rtol=1e-2,
    )


@pytest.mark.parametrize("constant", [(), ("x",), ("y",)])
@pytest.mark.parametrize(
    ("x_shape", "y_shape"),
    [
        ((3, 5, 7), (7, 6)),
        ((5, 7), (3, 7, 6)),
        ((2, 3, 5, 7), (3, 7, 6)),
        ((2, 1, 5, 7), (1, 3, 7, 6)),
        ((2, 3, 5, 7), (2, 3, 7, 6)),
        ((4, 2, 1, 5, 7), (1, 3, 7, 6)),
        ((1, 5, 7), (4, 7, 1)),
        ((7,), (7, 6)),
    ],
)
def test_matmul_broadcasts_batches(device, rng, x_shape, y_shape, constant):
    check(
        "matmul",
        x=normal(rng, *x_shape),
        y=normal(rng, *y_shape),
        constants=constant,
        expected=lambda x, y, **_: x @ y,
        device=device,
    )


@pytest.mark.parametrize("transpose", [False, True])
def test_matmul_of_integers_wraps_as_numpy(device, rng, transpose):
    x, y = (
        rng.integers(-(2**30), 2**30, (2, 4, 9)),
        rng.integers(-(2**30), 2**30, (2, 5, 9) if transpose else (2, 9, 5)),
    )
    check("matmul", x=x.astype(np.int32), y=y.astype(np.int32), transpose_y=transpose, device=device)


def test_matmul_takes_the_dtype_of_the_operand_that_is_not_constant(device, rng):
    x, y = normal(rng, 5, 7).astype(np.float16), normal(rng, 7, 6)
    (found,) = run("matmul", x=x, y=y, constants=("y",), device=device)
    assert found.dtype == np.float16
    np.testing.assert_allclose(found, x.astype(np.float64) @ y, rtol=1e-2, atol=1e-2)


@pytest.mark.cpu_engine
@settings(max_examples=40, deadline=None)
@given(m=st.sampled_from(EDGES), n=st.sampled_from(EDGES), k=st.sampled_from([*EDGES, 256, 513]), data=st.data())
def test_matmul_of_any_shape(m, n, k, data):
    rng = np.random.default_rng(m * 10007 + n * 101 + k)
    transpose_x, transpose_y = data.draw(st.booleans()), data.draw(st.booleans())
    x = normal(rng, 2, *((k, m) if transpose_x else (m, k)))
    y = normal(rng, 2, *((n, k) if transpose_y else (k, n)))
    isa = data.draw(st.sampled_from(ISAS))
    constants = data.draw(st.sampled_from([(), ("x",), ("y",)]))
    check(
        "matmul",
        x=x,
        y=y,
        transpose_x=transpose_x,
        transpose_y=transpose_y,
        constants=constants,
        isa=isa,
        rtol=2e-2,
        atol=1e-3,
        expected=lambda x, y, **_: (x.swapaxes(1, 2) if transpose_x else x) @ (y.swapaxes(1, 2) if transpose_y else y),
    )


@pytest.mark.parametrize("isa", ISAS)
@pytest.mark.parametrize(("m", "n", "k"), [(1, 64, 300), (64, 1, 300), (13, 33, 257), (100, 200, 300), (7, 5, 3)])
def test_matmul_in_every_instruction_set(rng, isa, m, n, k):
    for constants in [(), ("y",)]:
        check(
            "matmul",
            x=normal(rng, m, k),
            y=normal(rng, k, n),
            constants=constants,
            isa=isa,
            expected=lambda x, y, **_: x @ y,
        )


@pytest.mark.parametrize("isa", ISAS)
def test_linear_in_every_instruction_set(rng, isa):
    for m in (1, 9, 40):
        arguments = {"x": normal(rng, m, 300), "weight": normal(rng, 70, 300), "bias": normal(rng, 70)}
        check("linear", **arguments, constants=("weight", "bias"), isa=isa, expected=dense)


@pytest.mark.parametrize("isa", ISAS)
def test_every_float16_comes_through_a_product_with_one(isa):
    y = np.arange(65536, dtype=np.uint16).view(np.float16).reshape(1, -1)
    for constants in [(), ("y",)]:
        (found,) = run("matmul", x=np.ones((8, 1), np.float16), y=y, constants=constants, isa=isa)
        np.testing.assert_array_equal(found, np.broadcast_to(y, (8, 65536)))


@pytest.mark.cpu_engine
def test_matmul_gives_the_same_bits_for_any_number_of_threads(rng):
    x, y = normal(rng, 3, 150, 700), normal(rng, 3, 700, 200)
    before = anex.get_num_threads()
    results = []
    try:
        for threads in (1, 2, 5):
            anex.set_num_threads(threads)
            results.append(run("matmul", x=x, y=y)[0])
    finally:
        anex.set_num_threads(before)
    assert all(np.array_equal(results[0], other) for other in results[1:])


def test_infinities_stay_in_their_own_row_and_column(device, rng):
    x, y = normal(rng, 30, 40), normal(rng, 40, 50)
    x[3, 5], y[7, 9] = np.inf, np.nan
    with np.errstate(invalid="ignore"):
        check("matmul", x=x, y=y, dtype="float32", expected=lambda x, y, **_: x @ y, device=device)


# ---- einsum ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("constant", [(), ("values_0",), ("values_1",)])
@pytest.mark.parametrize(
    ("equation", "x_shape", "y_shape"),
    [
        ("nchw,nwhu->nchu", (2, 5, 3, 7), (2, 7, 3, 6)),
        ("nchw,nwhu->nchu", (1, 5, 3, 7), (2, 7, 3, 6)),
        ("nchw,nwhu->nchu", (2, 5, 1, 7), (2, 7, 3, 6)),
        ("nchw,nwhu->nchu", (2, 5, 3, 7), (1, 7, 1, 6)),
        ("abcd,adce->abce", (2, 64, 8, 33), (2, 33, 8, 64)),
        ("chw,whr->chr", (5, 3, 7), (7, 3, 6)),
        ("chw,whr->chr", (5, 1, 7), (7, 3, 1)),
    ],
)
def test_einsum_multiplies_over_the_last_axis(device, rng, equation, x_shape, y_shape, constant):
    def product(values, equation):
        return np.einsum(equation, *broadcast(values))

    def broadcast(values):
        x, y = values
        h = max(x.shape[-2], y.shape[-2])
        x, y = np.broadcast_to(x, (*x.shape[:-2], h, x.shape[-1])), np.broadcast_to(y, (*y.shape[:-2], h, y.shape[-1]))
        n = [max(x.shape[0], y.shape[0])] if x.ndim == 4 else []
        return np.broadcast_to(x, (*n, *x.shape[-3:])), np.broadcast_to(y, (*n, *y.shape[-3:]))

    check(
        "einsum",
        values=[normal(rng, *x_shape), normal(rng, *y_shape)],
        equation=equation,
        constants=constant,
        expected=product,
        device=device,
    )


@pytest.mark.parametrize("isa", ISAS)
@pytest.mark.parametrize("m", [1, 2, 3, 4])
@pytest.mark.parametrize("dtype", ["float16", "float32"])
def test_few_rows_times_a_matrix_that_is_not_constant(rng, dtype, m, isa):
    x, y = rng.normal(size=(2, m, 37)).astype(dtype), rng.normal(size=(2, 37, 384)).astype(dtype)
    (found,) = run("matmul", x=x, y=y, isa=isa)
    np.testing.assert_allclose(found, x.astype(np.float64) @ y.astype(np.float64), rtol=2e-3, atol=5e-3)


@pytest.mark.parametrize("isa", ISAS)
@pytest.mark.parametrize(("n", "k"), [(32, 32), (50, 70), (96, 300)])
@pytest.mark.parametrize("dtype", ["float16", "float32"])
def test_a_product_with_the_transpose_of_a_matrix_that_is_not_constant(rng, dtype, n, k, isa):
    x, y = rng.normal(size=(29, k)).astype(dtype), rng.normal(size=(n, k)).astype(dtype)
    (found,) = run("matmul", x=x, y=y, transpose_y=True, isa=isa)
    np.testing.assert_allclose(found, x.astype(np.float64) @ y.T.astype(np.float64), rtol=2e-3, atol=2e-2)


@pytest.mark.cpu_engine
@pytest.mark.parametrize("isa", ISAS)
@pytest.mark.parametrize("dtype", ["float16", "float32"])
@pytest.mark.parametrize(("m", "k", "n"), [(400, 1000, 100), (250, 264, 260), (130, 300, 33)])
def test_rows_that_are_made_ready_while_others_are_multiplied(rng, isa, dtype, m, k, n):
    """Products of several tiles, blocks of k and rests of panels: right, and the same whatever range a thread has."""
    x, y = rng.normal(size=(m, k)).astype(dtype), (rng.normal(size=(k, n)) / k**0.5).astype(dtype)
    graph = anex.graph(x=anex.spec(x.shape, dtype), y=anex.spec(y.shape, dtype))(lambda x, y: mb.matmul(x=x, y=y))
    compiled = anex.compile(graph)
    plan = lower(graph.functions["main"], compiled.inputs, compiled.outputs, isa)
    found, before = [], anex.get_num_threads()
    try:
        for threads in (1, 2, 3):
            anex.set_num_threads(threads)
            found.append(np.array(plan.run((x, y))))
    finally:
        anex.set_num_threads(before)
    wanted = x.astype(np.float64) @ y.astype(np.float64)
    atol = 2e-3 if dtype == "float16" else 1e-5
    np.testing.assert_allclose(found[0].astype(np.float64), wanted, atol=atol, rtol=1e-3)
    for other in found[1:]:
        np.testing.assert_array_equal(found[0], other)
