"""Weights that stay compressed: products of float activations by codes of 8 and 4 bits, decoded where they multiply."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from coremltools.converters.mil.mil import types
from hypothesis import given, settings
from hypothesis import strategies as st
from test_products_int8 import ISAS, each_isa, ops, plan

import anex
from anex import mb

pytestmark = pytest.mark.cpu_engine

ROWS = [1, 3, 8, 24, 70]


def narrow(rng: np.random.Generator, shape: tuple[int, ...], name: str) -> np.ndarray:
    dtype = types.string_to_builtin(name)
    known = types.type_mapping.builtin_to_range(dtype)
    return rng.integers(known.low, known.high + 1, shape).astype(types.nptype_from_builtin(dtype))


def close(found: Any, wanted: np.ndarray, rtol: float = 1e-5, size: float = 0) -> None:
    """``size``: that of the terms, where sums may cancel to less than they are rounded to."""
    atol = rtol * max(size, float(np.abs(wanted).max()))
    np.testing.assert_allclose(np.asarray(found, "float64"), wanted, rtol=rtol, atol=atol)


@settings(deadline=None, max_examples=80)
@given(data=st.data(), seed=st.integers(0, 2**32 - 1))
def test_blockwise_weights_multiply_as_if_they_were_dense(data, seed):
    rng = np.random.default_rng(seed)
    kind, isa = data.draw(st.sampled_from(["int8", "uint8", "int4", "uint4"])), data.draw(st.sampled_from(ISAS))
    m, blocks, block = (data.draw(st.sampled_from(v)) for v in (ROWS, [1, 2, 3], [1, 16, 32, 60, 300, 384]))
    n, k, product = data.draw(st.integers(1, 70)), blocks * block, data.draw(st.sampled_from(["linear", "matmul"]))
    offset, bias = data.draw(st.sampled_from([None, "same", "float"])), data.draw(st.booleans())
    codes, scale = narrow(rng, (n, k), kind), rng.uniform(0.01, 0.1, (n, blocks)).astype("float32")
    offsets = {None: None, "same": narrow(rng, scale.shape, kind), "float": scale * 40}[offset]
    x, b = rng.normal(size=(m, k)).astype("float32"), rng.normal(size=n).astype("float32")
    wide = codes.astype("float64") - (0 if offsets is None else np.repeat(offsets.astype("float64"), block, 1))
    dense = wide * np.repeat(scale.astype("float64"), block, 1)

    @anex.graph(x=anex.spec(x.shape, "float32"))
    def graph(x):
        more = {} if offsets is None else {"offset": offsets if product == "linear" else offsets.T.copy()}
        if product == "linear":
            w = mb.constexpr_blockwise_shift_scale(data=codes, scale=scale, **more)
            return mb.linear(x=x, weight=w, **({"bias": b} if bias else {}))
        turned = codes.T.copy().astype(codes.dtype)
        return mb.matmul(x=x, y=mb.constexpr_blockwise_shift_scale(data=turned, scale=scale.T.copy(), **more))

    found = plan(graph, isa)
    assert ops(found) == ["anex_linear_codes"]
    size = float((np.abs(x).astype("float64") @ np.abs(dense).T).max())
    close(found.run((x,)), x.astype("float64") @ dense.T + (b if bias and product == "linear" else 0), size=size)


def few_rows(
    rng: np.random.Generator, isa: str, x: np.ndarray, n: int, block: int, kind: str = "int4", offset: str | None = None
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """What the engine makes of float32 ``x`` [m, k] and random codes, the dense matrix [n, k] in float64, and what its
    magnitudes are at most."""
    k = x.shape[1]
    codes, scale = narrow(rng, (n, k), kind), rng.uniform(0.01, 0.1, (n, k // block)).astype("float16")
    offsets = {
        None: None,
        "same": narrow(rng, scale.shape, kind),
        "half": rng.normal(size=scale.shape).astype("float16"),
    }
    more = {} if offset is None else {"offset": offsets[offset]}

    @anex.graph(x=anex.spec(x.shape, "float32"))
    def graph(x):
        return mb.linear(x=x, weight=mb.constexpr_blockwise_shift_scale(data=codes, scale=scale, **more))

    found = plan(graph, isa)
    assert ops(found) == ["anex_linear_codes"]
    zero = 0 if offset is None else np.repeat(offsets[offset].astype("float64"), block, 1)
    scale = np.repeat(scale.astype("float64"), block, 1)
    return np.asarray(found.run((x,)), "float64"), (codes.astype("float64") - zero) * scale, (15 + np.abs(zero)) * scale


@each_isa
@pytest.mark.parametrize("kind", ["int4", "uint4"])
@pytest.mark.parametrize("offset", [None, "same", "half"])
@pytest.mark.parametrize(("k", "block"), [(32, 32), (160, 32), (416, 32), (1152, 384), (70, 70), (1, 1), (999, 999)])
def test_few_rows_by_codes_of_4_bits_are_as_near_as_floats(rng, isa, kind, offset, k, block):
    """Within some units in the last place of a float, of what the terms may add up to."""
    x = rng.normal(size=(3, k)).astype("float32") * np.float32(10) ** rng.uniform(-3, 3, (3, k)).astype("float32")
    found, dense, most = few_rows(rng, isa, x, 37, block, kind, offset)
    assert (np.abs(found - x.astype("float64") @ dense.T) <= 2.0**-21 * (np.abs(x.astype("float64")) @ most.T)).all()


@each_isa
@pytest.mark.parametrize("magnitude", [1e-44, 1e-37, 1e-30, 1e-20, 1e20, 1e35])
def test_activations_of_any_magnitude_keep_their_precision(rng, isa, magnitude):
    x = (rng.normal(size=(2, 96)) * magnitude).astype("float32")
    x[0, :32] *= np.float32(1e-3)
    found, dense, most = few_rows(rng, isa, x, 9, 32)
    size = np.abs(x.astype("float64")) @ most.T
    assert (np.abs(found - x.astype("float64") @ dense.T) <= 2.0**-21 * size + 96 * 2.0**-148).all()


@each_isa
@pytest.mark.parametrize("block", [32, 96])
@pytest.mark.parametrize("values", [[np.inf], [-np.inf], [np.nan], [np.inf, -np.inf]])
def test_activations_that_are_not_finite_give_what_numpy_gives(rng, isa, values, block):
    x = rng.normal(size=(2, 96)).astype("float32")
    x[0, 40 : 40 + len(values)] = values  # the other row is finite
    found, dense, _ = few_rows(rng, isa, x, 70, block)
    with np.errstate(invalid="ignore"):
        wanted = (x.astype("float64")[:, None] * dense).sum(-1)
    np.testing.assert_array_equal(np.isnan(found), np.isnan(wanted))
    np.testing.assert_array_equal(found[0], np.float32(wanted[0]))
    close(found[1], wanted[1], size=10)


@each_isa
@pytest.mark.parametrize("m", ROWS)
@pytest.mark.parametrize(("kind", "groups"), [("uint1", 1), ("uint2", 1), ("uint3", 2), ("uint4", 1), ("uint4", 3)])
def test_palettes_multiply_as_if_they_were_dense(rng, isa, m, kind, groups):
    n, k = 192, 300
    indices, lut = narrow(rng, (n, k), kind), rng.normal(size=(groups, 1, 2 ** int(kind[4:]), 1)).astype("float32")
    x = rng.normal(size=(m, k)).astype("float32")

    @anex.graph(x=anex.spec(x.shape, "float32"))
    def graph(x):
        return mb.linear(x=x, weight=mb.constexpr_lut_to_dense(indices=indices, lut=lut))

    found = plan(graph, isa)
    assert ops(found) == ["anex_linear_codes"]
    table = np.repeat(lut[:, 0, :, 0], n // groups, 0).astype("float64")
    close(found.run((x,)), x.astype("float64") @ np.take_along_axis(table, indices.astype("int64"), 1).T)


@each_isa
@pytest.mark.parametrize("positions", ROWS)
@pytest.mark.parametrize("batch", [1, 2])
@pytest.mark.parametrize("kind", ["int8", "int4"])
def test_a_convolution_of_one_tap_reads_codes_and_what_follows_joins(rng, isa, positions, batch, kind):
    codes, scale = narrow(rng, (40, 96, 1, 1), kind), rng.uniform(0.001, 0.01, (40, 1, 1, 1)).astype("float16")
    x, bias = (rng.normal(size=shape).astype("float16") for shape in ((batch, 96, 1, positions), (40,)))

    @anex.graph(x=anex.spec(x.shape, "float16"))
    def graph(x):
        w = mb.constexpr_blockwise_shift_scale(data=codes, scale=scale)
        return mb.relu(x=mb.conv(x=x, weight=w, bias=bias))

    found = plan(graph, isa)
    assert ops(found) == ["anex_linear_codes"]
    dense = (codes * scale.astype("float64"))[:, :, 0, 0]
    wanted = np.einsum("ok,bkhs->bohs", dense, x.astype("float64")) + bias.astype("float64")[:, None, None]
    close(found.run((x,)), np.maximum(wanted, 0), 1e-2)


def graph_of(kind: str, n: int, k: int, m: int, block: int) -> Any:
    rng = np.random.default_rng(0)
    scale = rng.uniform(0.01, 0.1, (n, k // block)).astype("float16")
    codes = narrow(rng, (n, k), kind)

    @anex.graph(x=anex.spec((m, k), "float16"))
    def graph(x):
        return mb.linear(x=x, weight=mb.constexpr_blockwise_shift_scale(data=codes, scale=scale))

    return graph


@pytest.mark.parametrize(("kind", "block", "most"), [("int8", 512, 1.02), ("int4", 512, 0.52), ("int4", 32, 0.65)])
def test_memory_is_that_of_the_codes(kind, block, most):
    """Of few rows bytes stay where they are, and nothing is packed."""
    n, k = 1024, 512
    for m in (4, 40):
        assert plan(graph_of(kind, n, k, m, block)).stats()["packed_bytes"] <= most * n * k + 8192
    assert plan(graph_of("int8", n, k, 4, k)).stats()["packed_bytes"] < 8192
    assert plan(graph_of(kind, n, k, 40, block), strict=True).stats()["packed_bytes"] >= 2 * n * k


@pytest.mark.parametrize("m", ROWS)
def test_one_thread_and_two_give_the_same_bits(rng, m):
    graph, x = graph_of("int4", 300, 512, m, 32), rng.normal(size=(m, 512)).astype("float16")
    before, found = anex.get_num_threads(), set()
    try:
        for threads in (1, 2):
            anex.set_num_threads(threads)
            found.add(np.asarray(plan(graph).run((x,))).tobytes())
    finally:
        anex.set_num_threads(before)
    assert len(found) == 1


def test_palettes_of_more_entries_or_vectors_are_dense_as_before(rng):
    for indices, lut in (
        (narrow(rng, (32, 24), "uint6"), rng.normal(size=(1, 1, 64, 1))),
        (narrow(rng, (16, 24), "uint4"), rng.normal(size=(1, 1, 16, 2))),
        (narrow(rng, (32, 24), "uint4"), rng.normal(size=(1, 2, 16, 1))),
        (narrow(rng, (32, 24), "uint4"), rng.normal(size=(2, 1, 16, 1))),
    ):
        vector = {"vector_axis": np.int32(0)} if lut.shape[-1] > 1 else {}

        @anex.graph(x=anex.spec((2, 24), "float32"))
        def graph(x, indices=indices, lut=lut, vector=vector):
            w = mb.constexpr_lut_to_dense(indices=indices, lut=lut.astype("float32"), **vector)
            return mb.linear(x=x, weight=w)

        found = plan(graph)
        assert ops(found) == ["linear"]
