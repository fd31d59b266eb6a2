"""Products of one activation by several matrices run as one, which is split: the numbers are as if they were apart."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from fusion_case import Case, each_dtype, each_isa, pointwise

import anex
from anex import _native, mb

pytestmark = pytest.mark.cpu_engine


def ops(plan: _native.Plan) -> list[str]:
    return [op for op, _, _ in plan.nodes()]


def matrices(rng: Any, dtype: str, *rows: int, inputs: int = 24) -> list[np.ndarray]:
    return [(rng.normal(size=(n, inputs)) / 5).astype(dtype) for n in rows]


@each_dtype
@each_isa
@pytest.mark.parametrize("biased", [False, True])
def test_query_key_and_value_are_one_product(rng, dtype, isa, biased):
    weights, biases = matrices(rng, dtype, 40, 7, 40), [rng.normal(size=n).astype(dtype) for n in (40, 7, 40)]

    def graph(x: Any) -> Any:
        rest = [{"bias": bias} if biased else {} for bias in biases]
        parts = [mb.linear(x=x, weight=w, **more) for w, more in zip(weights, rest, strict=True)]
        return tuple(mb.transpose(x=part, perm=(0, 2, 1)) for part in parts)

    case = Case(graph, dtype=dtype, isa=isa, x=rng.normal(size=(2, 9, 24)))
    x = case.inputs["x"].astype(np.float64)
    wide = [
        x @ w.T.astype(np.float64) + (b.astype(np.float64) if biased else 0)
        for w, b in zip(weights, biases, strict=True)
    ]
    case.check(tuple(part.transpose(0, 2, 1) for part in wide))
    assert ops(case.fused) == ["linear", "split", *["transpose"] * 3]
    assert ops(case.strict).count("linear") == 3


@pytest.mark.parametrize("batch", [1, 2])
def test_convolutions_of_one_tap_are_one(rng, batch):
    weights = [w[:, :, None, None] for w in matrices(rng, "float32", 16, 32)]

    def graph(x: Any) -> Any:
        return tuple(mb.reduce_max(x=mb.conv(x=x, weight=w), axes=[3], keep_dims=False) for w in weights)

    case = Case(graph, x=rng.normal(size=(batch, 24, 3, 8)))
    case.check(tuple(pointwise(w, case.inputs["x"]).max(3) for w in weights))
    assert ops(case.fused)[:2] == ["conv", "split"]


def test_products_stay_apart_where_something_runs_as_part_of_them_or_they_are_returned(rng):
    a, b, c, d = matrices(rng, "float32", 12, 12, 12, 12)

    def graph(x: Any) -> Any:
        gate = mb.mul(x=mb.silu(x=mb.linear(x=x, weight=a)), y=mb.linear(x=x, weight=b))
        return gate, mb.linear(x=x, weight=c), mb.transpose(x=mb.linear(x=x, weight=d), perm=(1, 0))

    assert ops(Case(graph, x=rng.normal(size=(5, 24))).check().fused).count("linear") == 4


def test_products_that_are_not_alike_stay_apart(rng):
    a, b = matrices(rng, "float32", 12, 12)
    kernel = rng.normal(size=(12, 24, 3, 1)).astype("float32")

    def graph(x: Any, z: Any) -> Any:
        others = [mb.linear(x=x, weight=a), mb.linear(x=z, weight=a)]
        y = mb.expand_dims(x=mb.transpose(x=x, perm=(0, 2, 1)), axes=[3])
        wide = [mb.conv(x=y, weight=kernel, pad_type="same"), mb.conv(x=y, weight=b[:, :, None, None])]
        return tuple(mb.reduce_max(x=part, axes=[1]) for part in others + wide)

    made = ops(Case(graph, x=rng.normal(size=(1, 5, 24)), z=rng.normal(size=(1, 5, 24))).check().fused)
    assert [made.count(op) for op in ("linear", "conv", "split")] == [2, 2, 0]


def test_matrices_that_nobody_can_write_are_not_copied(rng):
    """Programs share them: two hold them once."""
    weights = matrices(rng, "float32", 12, 12)
    for w in weights:
        w.flags.writeable = False

    def graph(x: Any) -> Any:
        return tuple(mb.transpose(x=mb.linear(x=x, weight=mb.const(val=w)), perm=(1, 0)) for w in weights)

    assert ops(Case(graph, x=rng.normal(size=(5, 24))).check().fused).count("linear") == 2


def test_the_profile_counts_what_siblings_read_once(rng):
    a, b = matrices(rng, "float32", 8, 16)

    @anex.graph(x=anex.spec((5, 24), "float32"))
    def graph(x: Any) -> Any:
        return tuple(mb.transpose(x=mb.linear(x=x, weight=w), perm=(1, 0)) for w in (a, b))

    rows = anex.compile(graph).profile(np.ones((5, 24), np.float32), repeat=1).rows
    (product,) = [row for row in rows if row.op == "linear"]
    assert product.flops == 2 * 5 * 24 * (8 + 16)
    assert product.bytes == 4 * (5 * 24 + 24 * (8 + 16) + 5 * (8 + 16) + 8 + 16)
