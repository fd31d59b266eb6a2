"""Ops that run as one node give what they give apart, up to the roundings that fusion leaves out."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from coremltools.converters.mil.mil import Builder as mb
from fusion_case import Case, each_dtype, each_isa, gelu, pointwise, silu, softmax

from anex import _native
from anex.devices import fuse
from anex.devices.cpu import kernels

# ---- what fuses -----------------------------------------------------------------------------


@each_dtype
@each_isa
def test_a_fused_feed_forward_network_is_two_nodes(rng, dtype, isa):
    x, w1, w2 = (
        rng.normal(size=(1, 48, 1, 70)),
        rng.normal(size=(100, 48, 1, 1)) / 7,
        rng.normal(size=(48, 100, 1, 1)) / 10,
    )
    w1, w2 = w1.astype(dtype), w2.astype(dtype)

    def ffn(x):
        hidden = mb.gelu(x=mb.conv(x=x, weight=w1), mode="EXACT")
        return mb.add(x=x, y=mb.conv(x=hidden, weight=w2), name="y")

    case = Case(ffn, dtype=dtype, isa=isa, x=x)
    case.check(case.inputs["x"] + pointwise(w2, gelu(pointwise(w1, case.inputs["x"]))), nodes=2)


@each_dtype
def test_swiglu_is_three_products_and_nothing_else(rng, dtype):
    weights = [(rng.normal(size=s) / 6).astype(dtype) for s in [(80, 32), (80, 32), (32, 80)]]

    def mlp(x):
        gate, up = mb.silu(x=mb.linear(x=x, weight=weights[0])), mb.linear(x=x, weight=weights[1])
        return mb.linear(x=mb.mul(x=gate, y=up), weight=weights[2], name="y")

    case = Case(mlp, dtype=dtype, x=rng.normal(size=(2, 9, 32)))
    a, b, c = (w.astype(np.float64) for w in weights)
    x = case.inputs["x"].astype(np.float64)
    case.check((silu(x @ a.T) * (x @ b.T)) @ c.T, nodes=3)


@each_dtype
@each_isa
@pytest.mark.parametrize("rows", [1, 3, 17, 130])
@pytest.mark.parametrize("mask_shape", [(1, 1, 1, 50), (2, 1, 1, 50), (2, 3, None, 50), (1,), (None, 50), (2, 3, 1, 1)])
def test_scores_scaled_and_masked_are_one_node(rng, dtype, isa, rows, mask_shape):
    q, k = rng.normal(size=(2, 3, rows, 20)), rng.normal(size=(2, 3, 50, 20))
    mask = rng.normal(size=tuple(rows if n is None else n for n in mask_shape))

    def scores(q, k, mask):
        scaled = mb.mul(x=mb.matmul(x=q, y=k, transpose_y=True), y=np.dtype(dtype).type(0.25))
        return mb.add(x=mask, y=scaled, name="y")

    case = Case(scores, dtype=dtype, isa=isa, q=q, k=k, mask=mask)
    q, k, mask = (v.astype(np.float64) for v in case.inputs.values())
    case.check(q @ np.swapaxes(k, 2, 3) * 0.25 + mask, nodes=1)


@each_isa
@pytest.mark.parametrize("spatial", [(5, 40), (1, 1), (3, 7)])
@pytest.mark.parametrize("batch", [1, 3])
@pytest.mark.parametrize("kernel", [1, 3])
@pytest.mark.parametrize("groups", [1, 2, 12])
def test_bias_activation_and_residual_join_any_convolution(rng, isa, spatial, batch, kernel, groups):
    weight = (rng.normal(size=(24, 12 // groups, kernel, kernel)) / 4).astype(np.float32)
    bias = rng.normal(size=(24, 1, 1)).astype(np.float32)

    def block(x, residual):
        y = mb.conv(x=x, weight=weight, groups=groups, pad_type="same")
        return mb.add(x=residual, y=mb.clip(x=mb.add(x=y, y=bias), alpha=-0.5, beta=2.0), name="y")

    case = Case(
        block, isa=isa, x=rng.normal(size=(batch, 12, *spatial)), residual=rng.normal(size=(batch, 24, *spatial))
    )
    case.check(nodes=1)


@each_dtype
def test_a_chain_of_elementwise_ops_is_one_node(rng, dtype):
    def chain(x, z):
        y = mb.add(x=mb.mul(x=x, y=np.dtype(dtype).type(0.5)), y=z)
        return mb.mul(x=mb.tanh(x=mb.relu(x=y)), y=z, name="y")

    case = Case(chain, dtype=dtype, x=rng.normal(size=(1, 7, 3, 300)), z=rng.normal(size=(7, 1, 300)))
    x, z = (v.astype(np.float64) for v in case.inputs.values())
    case.check(np.tanh(np.maximum(0.5 * x + z, 0)) * z, nodes=1)


def test_both_sides_of_an_op_may_be_the_chain(rng):
    def square(x):
        y = mb.exp(x=x)
        return mb.mul(x=y, y=y, name="y")

    case = Case(square, x=rng.normal(size=(5, 40)))
    case.check(np.exp(2 * case.inputs["x"].astype(np.float64)), nodes=1)


def test_a_chain_on_the_right_of_an_op_that_does_not_commute(rng):
    def graph(x, z):
        return mb.real_div(x=mb.sub(x=z, y=mb.exp(x=x)), y=x, name="y")

    case = Case(graph, x=rng.normal(size=(5, 40)) + 3, z=rng.normal(size=(40,)))
    x, z = (v.astype(np.float64) for v in case.inputs.values())
    case.check((z - np.exp(x)) / x, nodes=1)


def test_a_residual_computed_after_the_product_is_there_in_time(rng):
    weight = rng.normal(size=(16, 16)).astype(np.float32)

    def graph(x):
        product = mb.linear(x=x, weight=weight)
        later = mb.softmax(x=mb.exp(x=x), axis=-1)
        return mb.add(x=product, y=later, name="y")

    case = Case(graph, x=rng.normal(size=(4, 16)))
    x = case.inputs["x"].astype(np.float64)
    case.check(x @ weight.T.astype(np.float64) + softmax(np.exp(x)), nodes=3)


@each_dtype
def test_select_is_a_step_wherever_the_chain_enters(rng, dtype):
    def graph(x, mask):
        y = mb.select(cond=mask, a=mb.mul(x=x, y=x), b=np.dtype(dtype).type(-7))
        y = mb.select(cond=mb.greater(x=mb.abs(x=x), y=np.dtype(dtype).type(1)), a=y, b=x)
        return mb.add(x=y, y=x, name="y")

    case = Case(graph, dtype=dtype, x=rng.normal(size=(3, 5, 33)), mask=rng.random((5, 33)) > 0.5)
    x = case.inputs["x"].astype(np.float64)
    case.check(np.where(abs(x) > 1, np.where(case.inputs["mask"], x * x, -7), x) + x)


def test_every_op_said_to_be_elementwise_joins_a_chain(rng):
    x = rng.random((2, 3, 4)).astype(np.float32) * 0.5 + 0.25
    ready = {"alpha": {"prelu": np.full(3, 0.5), "softplus_parametric": np.full(3, 0.5)},
             "beta": {"softplus_parametric": np.full(3, 0.5)}}  # fmt: skip
    for op in sorted(fuse.ELEMENTWISE):
        names = kernels()[op][0]

        def graph(x, op=op, names=names):
            first = mb.greater(x=x, y=np.float32(0.4)) if op.startswith("logical") else mb.abs(x=x)
            arguments: dict[str, Any] = {names[0]: first}
            if op == "select":
                arguments = {"cond": x > 0 if isinstance(x, np.ndarray) else np.full((4,), True), "a": first, "b": x}
            elif op == "cast":
                arguments["dtype"] = "int32"
            elif "y" in names:
                arguments["y"] = np.full((4,), True) if op.startswith("logical") else np.float32(0.5)
            else:
                defaults = {"epsilon": 1e-3, "alpha": 0.5, "beta": 0.75, "mode": "EXACT"}
                arguments |= {
                    n: ready.get(n, {}).get(op, np.float32(defaults[n]) if n != "mode" else "EXACT") for n in names[1:]
                }
                arguments |= {n: v.astype(np.float32) for n, v in arguments.items() if isinstance(v, np.ndarray)}
            return getattr(mb, op)(**arguments, name="y")

        assert Case(graph, x=x).check().nodes == 1, op


# ---- what does not --------------------------------------------------------------------------


def test_a_value_read_twice_is_computed_once(rng):
    def graph(x):
        y = mb.exp(x=x)
        return mb.add(x=mb.sqrt(x=y), y=mb.sin(x=y), name="y")

    case = Case(graph, x=rng.normal(size=(6, 50)))
    y = np.exp(case.inputs["x"].astype(np.float64))
    case.check(np.sqrt(y) + np.sin(y), nodes=3)


def test_an_output_in_the_middle_of_a_chain_is_stored(rng):
    def graph(x):
        middle = mb.exp(x=mb.abs(x=x), name="middle")
        return middle, mb.sqrt(x=mb.add(x=middle, y=np.float32(1)), name="end")

    case = Case(graph, x=rng.normal(size=(6, 50)))
    middle = np.exp(abs(case.inputs["x"].astype(np.float64)))
    case.check((middle, np.sqrt(middle + 1)), nodes=2)


def test_an_output_returned_twice_is_stored(rng):
    def graph(x):
        y = mb.exp(x=x)
        return y, mb.identity(x=y, name="same"), mb.sqrt(x=y, name="root")

    case = Case(graph, x=rng.normal(size=(6, 5)))
    y = np.exp(case.inputs["x"].astype(np.float64))
    case.check((y, y, np.sqrt(y)))


def test_a_small_value_that_broadcasts_is_computed_once(rng):
    def gate(x, scale):
        return mb.mul(x=x, y=mb.sigmoid(x=scale), name="y")

    case = Case(gate, x=rng.normal(size=(2, 8, 5, 5)), scale=rng.normal(size=(2, 8, 1, 1)))
    x, scale = (v.astype(np.float64) for v in case.inputs.values())
    case.check(x / (1 + np.exp(-scale)), nodes=2)


def test_a_cast_in_the_middle_still_rounds(rng):
    def graph(x):
        rounded = mb.cast(x=mb.mul(x=x, y=np.float32(3)), dtype="fp16")
        return mb.sub(x=mb.cast(x=rounded, dtype="fp32"), y=np.float32(0), name="y")

    case = Case(graph, x=rng.normal(size=(6, 50)))
    expected = (case.inputs["x"] * np.float32(3)).astype(np.float16).astype(np.float32)
    np.testing.assert_array_equal(case.run(case.fused)[0], expected)


def test_integer_steps_wrap_and_divide_as_integers(rng):
    x = rng.integers(-(2**31), 2**31, (3, 70)).astype(np.int32)

    def graph(x):
        y = mb.add(x=mb.mul(x=x, y=np.int32(77777)), y=np.int32(5))
        return mb.floor_div(x=mb.maximum(x=y, y=np.int32(-1000)), y=np.int32(7), name="y")

    y = (x.astype(np.int64) * 77777 + 5).astype(np.uint32).astype(np.int32)
    Case(graph, x=x).check(np.maximum(y, -1000) // 7, nodes=1)


def test_casts_between_integers_and_floats_end_chains_and_start_others(rng):
    def graph(x):
        whole = mb.cast(x=mb.mul(x=x, y=np.float32(10)), dtype="int32")
        back = mb.cast(x=mb.mul(x=whole, y=np.int32(3)), dtype="fp32")
        return mb.mul(x=back, y=np.float32(0.5), name="y")

    case = Case(graph, x=rng.normal(size=(4, 33)))
    case.check(np.trunc(case.inputs["x"] * np.float32(10)) * 3 * 0.5, nodes=3)


def test_a_comparison_after_a_product_is_a_node_of_its_own(rng):
    weight = rng.normal(size=(16, 16)).astype(np.float32)

    def graph(x):
        return mb.greater(x=mb.relu(x=mb.linear(x=x, weight=weight)), y=np.float32(0.5), name="y")

    case = Case(graph, x=rng.normal(size=(4, 16)))
    case.check(case.inputs["x"] @ weight.T > 0.5, nodes=2)


def test_products_of_integers_are_not_followed(rng):
    def graph(x, w):
        return mb.add(x=mb.matmul(x=x, y=w), y=np.int32(2**31 - 1), name="y")

    x, y = (rng.integers(-9, 9, s).astype(np.int32) for s in [(4, 6), (6, 5)])
    Case(graph, x=x, w=y).check((x @ y).astype(np.int32) + np.int32(2**31 - 1), nodes=2)


def test_an_operand_that_turns_every_few_lanes_is_a_node_of_its_own(rng):
    def graph(x, w, scale):
        return mb.mul(x=mb.matmul(x=x, y=w), y=scale, name="y")

    case = Case(graph, x=rng.normal(size=(40, 6)), w=rng.normal(size=(6, 5)), scale=rng.normal(size=(40, 1)))
    x, y, scale = (v.astype(np.float64) for v in case.inputs.values())
    case.check(x @ y * scale, nodes=2)


def test_long_chains_go_on_in_another_node(rng):
    def graph(x, **more):
        for i in range(40):
            x = mb.add(x=x, y=more[f"z{i % 12}"], name=f"y{i}")
        return x

    names = [f"z{i}" for i in range(12)]
    scope: dict[str, Any] = {"graph": graph}
    exec(f"def plain(x, {', '.join(names)}): return graph(x, {', '.join(f'{n}={n}' for n in names)})", scope)
    case = Case(scope["plain"], x=rng.normal(size=(3, 20)), **{n: rng.normal(size=(20,)) for n in names})
    inputs = [v.astype(np.float64) for v in case.inputs.values()]
    case.check(inputs[0] + sum(inputs[1 + i % 12] for i in range(40)))
    assert 2 <= case.nodes <= 6


# ---- numbers --------------------------------------------------------------------------------


def test_float16_is_rounded_once_unless_strict(rng):
    def graph(x):
        return mb.sub(x=mb.add(x=x, y=np.float16(2048)), y=np.float16(2048), name="y")

    case = Case(graph, dtype="float16", x=rng.random((2, 500)))
    x = case.inputs["x"]
    np.testing.assert_array_equal(case.run(case.fused)[0], (x.astype(np.float32) + 2048 - 2048).astype(np.float16))
    np.testing.assert_array_equal(case.run(case.strict)[0], x + np.float16(2048) - np.float16(2048))
    assert case.strict.stats()["nodes"] == 2


@each_dtype
def test_thread_counts_give_equal_bits(rng, dtype):
    w1, w2 = ((rng.normal(size=s) / 16).astype(dtype) for s in [(512, 256, 1, 1), (256, 512, 1, 1)])

    def ffn(x):
        return mb.add(x=x, y=mb.conv(x=mb.silu(x=mb.conv(x=x, weight=w1)), weight=w2), name="y")

    case = Case(ffn, dtype=dtype, x=rng.normal(size=(1, 256, 1, 333)))
    before, found = _native.get_num_threads(), []
    try:
        for threads in (1, 2, 5):
            _native.set_num_threads(threads)
            found.append(case.run(case.fused)[0].tobytes())
    finally:
        _native.set_num_threads(before)
    assert found[0] == found[1] == found[2]
