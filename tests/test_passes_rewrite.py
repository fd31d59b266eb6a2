"""Each rewriting pass: the op is gone and the values are what they were, odd shapes among them."""

import math

import numpy as np
import pytest
from passes_case import only, op_types, same

import anex
from anex import mb
from anex.passes import prepare
from anex.passes.refused import REWRITES


def half(rng, *shape):
    return rng.normal(size=shape).astype(np.float16)


# ---- attention ----------------------------------------------------------------------------------


# anex.graph wants the parameters by name
def graph_of(names, body):
    scope = {"body": body}
    exec(f"def program({', '.join(names)}):\n    return body({', '.join(f'{n}={n}' for n in names)})", scope)
    return scope["program"]


@pytest.mark.parametrize(
    ("shape", "keys", "out", "mask", "kind"),
    [
        ((1, 3, 7, 5), 11, 4, None, None),
        ((1, 3, 7, 5), 11, 4, (7, 11), "float16"),
        ((2, 3, 7, 5), 11, 4, (2, 1, 7, 11), "float16"),
        ((2, 7, 5), 11, 3, (11,), "float16"),
        ((2, 3, 7, 5), 11, 4, (1, 1, 1, 11), "bool"),
        ((2, 7, 5), 11, 3, (7, 11), "bool"),
        ((1, 2, 2, 3, 4), 5, 6, (3, 5), "float16"),
        ((1, 2, 1, 32), 33, 32, (1, 33), "bool"),
    ],
)
def test_attention_is_written_out(rng, shape, keys, out, mask, kind):
    *batch, _, width = shape
    specs = {"q": tuple(shape), "k": (*batch, keys, width), "v": (*batch, keys, out)}
    if mask:
        specs["m"] = anex.spec(mask, kind)

    def body(q, k, v, m=None):
        extra = {} if m is None else {"attn_mask": m}
        return mb.scaled_dot_product_attention(query=q, key=k, value=v, name="y", **extra)

    program = anex.graph(**specs)(graph_of(specs, body))
    arguments = [half(rng, *shape), half(rng, *batch, keys, width), half(rng, *batch, keys, out)]
    if mask:
        arguments.append(rng.random(mask) < 0.7 if kind == "bool" else half(rng, *mask))
        if kind == "bool":
            arguments[-1][..., 0] = True  # a row without any key has no answer
    prepared = same(program, rng, arguments=arguments)
    assert "scaled_dot_product_attention" not in op_types(prepared.program)
    assert "softmax" in op_types(prepared.program)


def test_written_out_attention_equals_torch(rng):
    import torch

    shape = (1, 2, 9, 16)

    @anex.graph(q=shape, k=shape, v=shape, m=anex.spec((9, 9), "bool"))
    def program(q, k, v, m):
        return mb.scaled_dot_product_attention(query=q, key=k, value=v, attn_mask=m, name="y")

    q, k, v = (half(rng, *shape) for _ in range(3))
    causal = np.tril(np.ones((9, 9), bool))
    with anex.compile(prepare(program).program) as compiled:
        found = np.asarray(compiled(q, k, v, causal.astype(np.uint8)))
    wanted = torch.nn.functional.scaled_dot_product_attention(
        *(torch.from_numpy(a).float() for a in (q, k, v)), is_causal=True
    )
    np.testing.assert_allclose(found, wanted.numpy(), atol=4e-3)


@pytest.mark.parametrize(("shape", "axis"), [((1, 2, 3, 512), -1), ((1, 513, 1, 5), 1), ((700, 3), 0), ((2, 1031), 1)])
def test_long_softmaxes_are_written_out(rng, shape, axis):
    @anex.graph(x=shape)
    def program(x):
        return mb.softmax(x=x, axis=axis, name="y")

    prepared = same(program, rng, arguments=[(rng.normal(size=shape) * 8).astype(np.float16)])
    assert [op for op in op_types(prepared.program) if op != "reshape"] == [
        "reduce_max", "sub", "exp", "reduce_sum", "real_div",
    ]  # fmt: skip


def test_short_softmaxes_stay(rng):
    @anex.graph(x=(1, 4, 3, 511))
    def program(x):
        return mb.softmax(x=x, axis=-1, name="y")

    assert op_types(same(program, rng).program) == ["softmax"]


# ---- gelu, bias, products -----------------------------------------------------------------------


@pytest.mark.parametrize("mode", ["EXACT", "TANH_APPROXIMATION", "SIGMOID_APPROXIMATION"])
def test_gelu_is_written_out(mode):
    @anex.graph(x=(1, 4, 1, 16384))
    def program(x):
        return mb.gelu(x=x, mode=mode, name="y")

    every = np.arange(65536, dtype=np.uint16).view(np.float16)
    x = np.where(np.isfinite(every), every, 0).astype(np.float16).reshape(1, 4, 1, 16384)
    with anex.compile(program) as before, anex.compile(prepare(program).program) as after:
        wanted, found = (np.asarray(p(x), np.float64) for p in (before, after))
    difference = np.abs(found - wanted)
    assert (difference <= 5e-4 + 2e-3 * np.abs(wanted)).all()
    assert "gelu" not in op_types(prepare(program).program)


def test_tanh_gelu_is_within_5e_4_of_the_exact_one():
    x = np.linspace(-8, 8, 200001)
    erf = np.vectorize(math.erf)(x / math.sqrt(2))
    tanh = np.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x**3))
    assert np.abs(x / 2 * (erf - tanh)).max() < 5e-4


@pytest.mark.parametrize("kernel", [(3,), (3, 1), (1, 2, 3)])
def test_the_bias_of_a_convolution_becomes_an_addition(rng, kernel):
    weight, bias = half(rng, 5, 3, *kernel), half(rng, 5)

    @anex.graph(x=(2, 3, *[n + 4 for n in kernel]))
    def program(x):
        return mb.conv(x=x, weight=weight, bias=bias, strides=[2] * len(kernel), name="y")

    prepared = same(program, rng, only("conv_bias"))
    assert op_types(prepared.program) == ["conv", "add"]
    (conv,) = (op for op in prepared.program.functions["main"].operations if op.op_type == "conv")
    assert conv.inputs.get("bias") is None


def test_so_does_that_of_a_transposed_and_of_a_grouped_one(rng):
    weight, grouped = half(rng, 4, 3, 3, 3), half(rng, 3, 1, 1, 5)

    @anex.graph(x=(1, 4, 5, 7))
    def program(x):
        up = mb.conv_transpose(x=x, weight=weight, bias=np.ones(3, np.float16), output_shape=[1, 3, 9, 13],
                               strides=[2, 2], pad_type="custom", pad=[1, 1, 1, 1])  # fmt: skip
        return mb.conv(x=up, weight=grouped, bias=np.arange(3).astype(np.float16), groups=3, name="y")

    assert op_types(same(program, rng, only("conv_bias")).program) == ["conv_transpose", "add", "conv", "add"]


@pytest.mark.parametrize("shape", [(5, 7), (1, 5, 7), (2, 3, 7), (2, 3, 5, 7)])
def test_linear_layers_become_convolutions_when_asked(rng, shape):
    weight, bias, y = half(rng, 9, 7), half(rng, 9), half(rng, 9, 3)

    @anex.graph(x=shape)
    def program(x):
        hidden = mb.linear(x=x, weight=weight, bias=bias)
        return mb.matmul(x=mb.relu(x=hidden), y=y, name="z"), mb.matmul(x=hidden, y=y.T, transpose_y=True, name="w")

    types = op_types(same(program, rng, {"linear_to_conv": True}).program)
    assert types.count("conv") == 3
    assert not {"linear", "matmul"} & {*types}
    assert {"linear", "matmul"} <= {*op_types(prepare(program).program)}


@pytest.mark.parametrize(("tx", "ty"), [(False, False), (True, False), (False, True), (True, True)])
def test_contractions_are_padded_to_multiples_of_32_when_asked(rng, tx, ty):
    @anex.graph(x=(2, 37, 5) if tx else (2, 5, 37), y=(2, 3, 37) if ty else (2, 37, 3))
    def program(x, y):
        z = mb.matmul(x=x, y=y, transpose_x=tx, transpose_y=ty, name="z")
        return z, mb.linear(x=z, weight=np.eye(4, 3, dtype=np.float16), name="w")

    prepared = same(program, rng, {"matmul_pad_k32": True}, chip="h13g")
    products = [op for op in prepared.program.functions["main"].operations if op.op_type in ("matmul", "linear")]
    assert len(products) == 2
    assert products[0].inputs["x"].shape[1 if tx else 2] == 64
    assert products[1].inputs["weight"].shape == (4, 32)


@pytest.mark.parametrize(("axis", "keep"), [(-1, True), (-1, False), (1, True), (1, False)])
def test_long_sums_become_products_when_asked(rng, axis, keep):
    @anex.graph(x=(2, 3, 2500) if axis == -1 else (2, 2500, 3))
    def program(x):
        return mb.reduce_sum(x=x, axes=[axis], keep_dims=keep, name="y")

    prepared = same(program, rng, {"sum_by_matmul": True}, atol=6e-3)
    assert "reduce_sum" not in op_types(prepared.program)


# ---- ops the engine refuses ---------------------------------------------------------------------

POINTS = {
    "acos": np.linspace(-1, 1, 401),
    "asin": np.linspace(-1, 1, 401),
    "atanh": np.linspace(-0.99, 0.99, 401),
    "cosh": np.linspace(-11.5, 11.5, 401),
    "sinh": np.linspace(-11.5, 11.5, 401),
    "tan": np.linspace(-1.4, 1.4, 401),
}


@pytest.mark.parametrize("op", POINTS)
def test_functions_the_engine_lacks_are_written_out(rng, op):
    x = POINTS[op].astype(np.float16).reshape(1, 1, 1, -1)

    @anex.graph(x=x.shape)
    def program(x):
        return getattr(mb, op)(x=x, name="y")

    prepared = prepare(program)
    assert op not in op_types(prepared.program)
    with anex.compile(program) as before, anex.compile(prepared.program) as after:
        wanted, found = (np.asarray(p(x), np.float64) for p in (before, after))
    np.testing.assert_allclose(found, wanted, rtol=8e-3, atol=2e-3)


@pytest.mark.parametrize("op", ["logical_and", "logical_or", "logical_xor"])
def test_truth_values_are_computed_in_numbers(rng, op):
    kind = anex.spec((2, 2, 5), "bool")

    @anex.graph(x=kind, y=anex.spec((5,), "bool"))
    def program(x, y):
        return getattr(mb, op)(x=x, y=y, name="z")

    assert op not in op_types(same(program, rng).program)


def test_mod_is_written_out(rng):
    x = np.float16([[7, -7, 7.5, -7.5, 0, 100.25]])
    y = np.float16([[3, 3, -2, -2, 5, 0.5]])

    @anex.graph(x=x.shape, y=y.shape)
    def program(x, y):
        return mb.mod(x=x, y=y, name="z")

    assert op_types(same(program, rng, arguments=[x, y]).program) == ["floor_div", "mul", "sub"]


@pytest.mark.parametrize(("lower", "upper"), [(-1, 0), (0, -1), (1, 2), (0, 0), (-1, -1)])
@pytest.mark.parametrize("shape", [(5, 7), (2, 7, 5)])
def test_bands_are_cut_by_select(rng, shape, lower, upper):
    @anex.graph(x=shape)
    def program(x):
        return mb.band_part(x=x, lower=lower, upper=upper, name="y")

    assert "band_part" not in op_types(same(program, rng, atol=0).program)


@pytest.mark.parametrize("exclusive", [False, True])
@pytest.mark.parametrize("reverse", [False, True])
@pytest.mark.parametrize(("shape", "axis"), [((2, 3, 7), -1), ((2, 5, 3), 1), ((6, 3), 0), ((1, 2, 3, 5), 1)])
def test_running_sums_are_products_with_a_triangle(rng, shape, axis, reverse, exclusive):
    @anex.graph(x=shape)
    def program(x):
        return mb.cumsum(x=x, axis=axis, reverse=reverse, exclusive=exclusive, name="y")

    types = op_types(same(program, rng).program)
    assert "cumsum" not in types
    assert "matmul" in types


@pytest.mark.parametrize(("axis", "keep"), [([-1], True), ([0, 2], False), ([1], False), (None, True), (None, False)])
def test_products_of_elements_halve_the_axis(rng, axis, keep):
    @anex.graph(x=(3, 7, 5))
    def program(x):
        return mb.reduce_prod(x=x, axes=axis, keep_dims=keep, name="y")

    x = (1 + 0.1 * rng.normal(size=(3, 7, 5))).astype(np.float16)
    prepared = same(program, rng, arguments=[x], atol=2e-2)
    assert "reduce_prod" not in op_types(prepared.program)


@pytest.mark.parametrize("axis", [-1, 0, 1])
def test_one_hot_compares_with_a_range(rng, axis):
    @anex.graph(x=anex.spec((2, 5), "int32"))
    def program(x):
        return mb.one_hot(indices=x, one_hot_vector_size=9, axis=axis, on_value=np.float16(2), off_value=np.float16(-1),
                          name="y")  # fmt: skip

    prepared = same(program, rng, arguments=[rng.integers(0, 9, (2, 5)).astype(np.int32)], atol=0)
    assert "one_hot" not in op_types(prepared.program)


def test_reshape_like_becomes_reshape(rng):
    @anex.graph(x=(2, 6), like=(3, 4))
    def program(x, like):
        return mb.reshape_like(x=x, ref_tensors=[like], begins=[0], ends=[2], end_masks=[False], name="y")

    assert "reshape_like" not in op_types(same(program, rng).program)


def test_every_rewrite_was_tried_here():
    tried = {
        *POINTS,
        "logical_and",
        "logical_or",
        "logical_xor",
        "mod",
        "band_part",
        "cumsum",
        "reshape_like",
        "reduce_prod",
        "one_hot",
    }
    assert {*REWRITES} == tried | {"identity"}
