"""Products of quantised operands: sums exact in int32 on every instruction set, and what a W8A8 program becomes."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import anex
from anex import _native, mb
from anex.devices.cpu import lower

pytestmark = pytest.mark.cpu_engine

ISAS = _native.instruction_sets()
each_isa = pytest.mark.parametrize("isa", ISAS)


def plan(graph: Any, isa: str | None = None, strict: bool = False) -> _native.Plan:
    compiled = anex.compile(graph)
    return lower(graph.functions["main"], compiled.inputs, compiled.outputs, isa, strict=strict)


def ops(found: _native.Plan) -> list[str]:
    return [op for op, _, _ in found.nodes()]


def drawn(rng: np.random.Generator, shape: tuple[int, ...], dtype: str) -> np.ndarray:
    info = np.iinfo(dtype)
    return rng.integers(info.min, info.max + 1, shape).astype(dtype)


def dequantized(x: Any, zero: np.generic | None) -> Any:
    """Scale 1: what the product sums are integers, and the result is the sum itself."""
    more = {} if zero is None else {"zero_point": zero}
    return mb.dequantize(input=x, scale=np.float32(1), **more)


def stored(weight: np.ndarray, scale: np.ndarray) -> Any:
    return mb.constexpr_blockwise_shift_scale(data=weight, scale=scale.astype("float32"))


@settings(deadline=None, max_examples=60)
@given(data=st.data(), seed=st.integers(0, 2**32 - 1))
def test_linear_sums_are_the_exact_integers(data, seed):
    rng = np.random.default_rng(seed)
    m, k, n = (data.draw(st.integers(low, high)) for low, high in ((1, 40), (4, 1100), (1, 70)))
    dtype, isa = data.draw(st.sampled_from(["int8", "uint8"])), data.draw(st.sampled_from(ISAS))
    zero = data.draw(st.sampled_from([None, *drawn(rng, (2,), dtype)]))
    x, weight = drawn(rng, (m, k), dtype), drawn(rng, (n, k), "int8")
    product = data.draw(st.sampled_from(["linear", "matmul", "matmul transposed"]))

    @anex.graph(x=anex.spec(x.shape, dtype))
    def graph(x):
        d = dequantized(x, zero)
        if product == "linear":
            return mb.linear(x=d, weight=stored(weight, np.ones((1, 1))))
        if product == "matmul":
            return mb.matmul(x=d, y=stored(np.ascontiguousarray(weight.T), np.ones((1, 1))))
        return mb.matmul(x=d, y=stored(weight, np.ones((1, 1))), transpose_y=True)

    found = plan(graph, isa)
    assert ops(found) == ["anex_linear_int8"]
    wanted = (x.astype("int64") - (0 if zero is None else int(zero))) @ weight.astype("int64").T
    np.testing.assert_array_equal(np.asarray(found.run((x,))), wanted.astype("float32"))


@pytest.mark.parametrize("product", ["linear", "matmul", "matmul transposed"])
@pytest.mark.parametrize("offset", [False, True])
def test_a_scale_may_serve_a_block_of_output_channels(rng, product, offset):
    x, weight = drawn(rng, (3, 32), "int8"), drawn(rng, (6, 32), "int8") // 2
    scale, zero = np.array([[1], [2], [4]], "float32"), np.array([[3], [-5], [7]], "int8")

    def stored_as(turn: Any) -> Any:
        more = {"offset": turn(zero)} if offset else {}
        return mb.constexpr_blockwise_shift_scale(data=turn(weight), scale=turn(scale), **more)

    @anex.graph(x=anex.spec(x.shape, "int8"))
    def graph(x):
        d = dequantized(x, None)
        if product == "linear":
            return mb.linear(x=d, weight=stored_as(np.copy))
        turned = product == "matmul"
        w = stored_as(lambda v: np.ascontiguousarray(v.T)) if turned else stored_as(np.copy)
        return mb.matmul(x=d, y=w, transpose_y=not turned)

    found = plan(graph)
    assert ops(found) == ["anex_linear_int8"]
    wide = (weight.astype("int64") - np.repeat(zero, 2, 0) * offset) * np.repeat(scale.astype("int64"), 2, 0)
    np.testing.assert_array_equal(np.asarray(found.run((x,))), (x.astype("int64") @ wide.T).astype("float32"))


@settings(deadline=None, max_examples=60)
@given(data=st.data(), seed=st.integers(0, 2**32 - 1), rank=st.integers(1, 3))
def test_conv_sums_are_the_exact_integers_and_padding_is_zero(data, seed, rank):
    rng = np.random.default_rng(seed)

    def draw(low: int, high: int) -> int:
        return data.draw(st.integers(low, high))

    groups, batch, dtype = draw(1, 2), draw(1, 3), data.draw(st.sampled_from(["int8", "uint8"]))
    kernel, stride, dilation = ([draw(1, high) for _ in range(rank)] for high in (3, 3, 2))
    pad = [draw(0, 2) for _ in range(2 * rank)]
    size = [draw((k - 1) * d + 1, 14) for k, d in zip(kernel, dilation, strict=True)]
    inside, outside = draw(4, 9), draw(1, 20)
    zero = data.draw(st.sampled_from([None, *drawn(rng, (2,), dtype)]))
    x = drawn(rng, (batch, groups * inside, *size), dtype)
    weight = drawn(rng, (groups * outside, inside, *kernel), "int8")
    isa = data.draw(st.sampled_from(ISAS))

    @anex.graph(x=anex.spec(x.shape, dtype))
    def graph(x):
        w = stored(weight, np.ones([1] * weight.ndim))
        where = dict(strides=stride, dilations=dilation, pad_type="custom", pad=pad)
        return mb.conv(x=dequantized(x, zero), weight=w, groups=groups, **where)

    found = plan(graph, isa)
    assert ops(found) == ["anex_conv_int8"]
    centred = torch.from_numpy(x.astype("float64") - (0 if zero is None else int(zero)))
    around = [side for axis in reversed(range(rank)) for side in pad[2 * axis : 2 * axis + 2]]
    convolve = getattr(torch.nn.functional, f"conv{rank}d")  # float64 holds these sums exactly
    padded, floats = torch.nn.functional.pad(centred, around), torch.from_numpy(weight.astype("float64"))
    wanted = convolve(padded, floats, None, stride, 0, dilation, groups)
    np.testing.assert_array_equal(np.asarray(found.run((x,))), wanted.numpy().astype("float32"))


@each_isa
def test_the_longest_sum_of_the_largest_products_does_not_overflow(isa):
    x, weight = np.full((1, 1 << 16), 255, "uint8"), np.full((3, 1 << 16), -128, "int8")

    @anex.graph(x=anex.spec(x.shape, "uint8"))
    def graph(x):
        return mb.linear(x=dequantized(x, None), weight=stored(weight, np.ones((1, 1))))

    found = plan(graph, isa)
    assert ops(found) == ["anex_linear_int8"]
    assert np.asarray(found.run((x,))).tolist() == [[float(-255 * 128 * (1 << 16))] * 3]


def layers(dtype: str, *, channels: int = 37, size: int = 9) -> tuple[Any, np.ndarray]:
    """quantize -> dequantize -> conv with bias -> relu -> quantize -> dequantize, twice: coremltools' W8A8."""
    rng = np.random.default_rng(7)
    weights = [drawn(rng, (channels, channels, 3, 3), "int8") for _ in range(2)]
    scales = rng.uniform(2e-4, 8e-4, (2, channels, 1, 1, 1)).astype(dtype)
    biases = rng.normal(size=(2, channels)).astype(dtype)
    step = np.dtype(dtype).type(0.03)

    @anex.graph(x=anex.spec((1, channels, size, size), dtype))
    def graph(x):
        for weight, scale, bias in zip(weights, scales, biases, strict=True):
            q = mb.quantize(input=x, scale=step, zero_point=np.int8(3), output_dtype="int8")
            d = mb.dequantize(input=q, scale=step, zero_point=np.int8(3))
            w = mb.constexpr_blockwise_shift_scale(data=weight, scale=scale)
            x = mb.relu(x=mb.conv(x=d, weight=w, bias=bias, pad_type="same"))
        q = mb.quantize(input=x, scale=step, zero_point=np.int8(3), output_dtype="int8")
        return mb.dequantize(input=q, scale=step, zero_point=np.int8(3))

    return graph, rng.normal(size=(1, channels, size, size)).astype(dtype)


@pytest.mark.parametrize("dtype", ["float16", "float32"])
@each_isa
def test_a_w8a8_layer_is_one_op_and_its_result_a_step_at_most_from_the_unfused(dtype, isa):
    graph, x = layers(dtype)
    fused, strict = plan(graph, isa), plan(graph, isa, strict=True)
    assert ops(fused) == ["quantize", "anex_conv_int8", "anex_conv_int8", "dequantize"]
    assert ops(strict).count("conv") == 2
    apart = np.abs(np.asarray(fused.run((x,)), "float64") - np.asarray(strict.run((x,)), "float64")) / 0.03
    assert apart.max() < 1.1 * (1 if dtype == "float32" else 2)
    assert (apart > 0.5).mean() < (0.001 if dtype == "float32" else 0.05)


def test_every_instruction_set_and_number_of_threads_gives_the_same_integers():
    graph, x = layers("float16")
    before, found = anex.get_num_threads(), set()
    try:
        for threads in (1, 2):
            anex.set_num_threads(threads)
            found |= {np.asarray(plan(graph, isa).run((x,))).tobytes() for isa in ISAS if isa != "generic"}
    finally:
        anex.set_num_threads(before)
    assert len(found) == 1


@each_isa
@pytest.mark.parametrize("dtype", ["int8", "uint8"])
@pytest.mark.parametrize("m", [5, 60])  # fewer rows are read where they lie, without anything after them
def test_a_float_product_ends_in_bytes_too(rng, isa, dtype, m):
    x, weight = rng.normal(size=(m, 50)).astype("float32"), rng.normal(size=(70, 50)).astype("float32")
    zero = np.dtype(dtype).type(5)

    @anex.graph(x=anex.spec(x.shape, "float32"))
    def graph(x):
        y = mb.linear(x=x, weight=weight)
        return mb.quantize(input=y, scale=np.float32(0.25), zero_point=zero, output_dtype=dtype)

    found = plan(graph, isa)
    assert ops(found) == ["linear"]
    exact = x.astype("float64") @ weight.astype("float64").T
    info = np.iinfo(dtype)
    wanted = np.clip(np.rint(exact / 0.25) + 5, info.min, info.max)
    tie = np.abs(exact / 0.25 - np.floor(exact / 0.25) - 0.5) < 1e-4  # either neighbour will do
    np.testing.assert_array_equal(np.asarray(found.run((x,)))[~tie], wanted[~tie])


def test_what_int8_cannot_hold_or_vary_stays_as_it_was(rng):
    x = drawn(rng, (3, 32), "int8")
    weight = drawn(rng, (5, 32), "int8")

    one = np.float32(1)

    def made(offset: Any = None, scale: np.ndarray | None = None, x_scale: Any = one) -> list[str]:
        @anex.graph(x=anex.spec(x.shape, "int8"))
        def graph(x):
            axis = {"axis": 1} if np.ndim(x_scale) else {}
            d = mb.dequantize(input=x, scale=x_scale, **axis)
            more = {} if offset is None else {"offset": offset}
            w = mb.constexpr_blockwise_shift_scale(
                data=weight, scale=np.ones((1, 1), "float32") if scale is None else scale, **more
            )
            return mb.linear(x=d, weight=w)

        return ops(plan(graph))

    assert made() == ["anex_linear_int8"]
    assert made(scale=np.ones((5, 1), "float32")) == ["anex_linear_int8"]
    assert made(scale=np.ones((5, 1), "float32"), offset=np.full((5, 1), 100, "int8")) != ["anex_linear_int8"]
    assert made(scale=np.ones((5, 4), "float32")) != ["anex_linear_int8"]
    assert made(x_scale=np.ones(32, "float32")) != ["anex_linear_int8"]
