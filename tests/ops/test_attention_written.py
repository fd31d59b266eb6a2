"""Attention written out as matmul, softmax and matmul runs as one op. Compared with float64 and strict plans."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from fusion_case import Case, each_dtype, each_isa
from test_attention import attended
from test_attention_transposed import ops

from anex import mb

pytestmark = [pytest.mark.cpu_engine, pytest.mark.fuses]

QUERIES, KEYS, E, EV = 40, 50, 16, 24


def operands(rng: Any) -> dict[str, np.ndarray]:
    shapes = {"q": (2, 3, QUERIES, E), "k": (2, 3, KEYS, E), "v": (2, 3, KEYS, EV)}
    return {name: rng.normal(size=shape).astype(np.float16).astype(np.float64) for name, shape in shapes.items()}


def turned(x: np.ndarray) -> np.ndarray:
    return np.ascontiguousarray(x.swapaxes(-1, -2))


@each_dtype
@each_isa
@pytest.mark.parametrize("columns", [False, True])
@pytest.mark.parametrize("mask", [None, (KEYS,), (QUERIES, KEYS), (2, 1, 1, KEYS), (2, 3, QUERIES, KEYS)])
def test_it_is_one_op_in_rows_and_in_columns(rng, dtype, isa, columns, mask):
    """Columns as MiniLM has them on the Neural Engine: [size, length], and so is the result."""
    x = operands(rng)
    added = None if mask is None else rng.normal(size=mask).astype(np.float16)

    def graph(q: Any, k: Any, v: Any) -> Any:
        scaled = mb.mul(x=q, y=np.asarray(E**-0.5, dtype))
        scores = mb.matmul(x=scaled, y=k, transpose_x=columns, transpose_y=not columns)
        if added is not None:
            scores = mb.add(x=scores, y=added.astype(dtype))
        weights = mb.softmax(x=scores, axis=-1)
        if columns:
            return mb.matmul(x=v, y=weights, transpose_y=True)
        return mb.matmul(x=weights, y=v)

    expected = attended(x["q"], x["k"], x["v"], added)
    given = {name: turned(each) for name, each in x.items()} if columns else x
    case = Case(graph, dtype=dtype, isa=isa, **given).check(turned(expected) if columns else expected)
    assert ops(case.fused) == ["anex_attention"]
    assert ops(case.strict).count("matmul") == 2


def test_a_factor_of_the_scores_and_transposes_around_it_are_part_of_it(rng):
    """As torch modules have it that split [batch, length, heads, size] themselves."""
    x = operands(rng)

    def graph(q: Any, k: Any, v: Any) -> Any:
        q, k, v = (mb.transpose(x=each, perm=(0, 2, 1, 3)) for each in (q, k, v))
        scores = mb.real_div(x=mb.matmul(x=q, y=mb.transpose(x=k, perm=(0, 1, 3, 2))), y=np.float32(3))
        mixed = mb.matmul(x=mb.softmax(x=mb.mul(x=np.float32(0.5), y=scores), axis=3), y=v)
        return mb.transpose(x=mixed, perm=(0, 2, 1, 3))

    expected = attended(x["q"] * (E**0.5 / 6), x["k"], x["v"]).swapaxes(1, 2)
    case = Case(graph, **{name: np.ascontiguousarray(each.swapaxes(1, 2)) for name, each in x.items()})
    assert ops(case.check(expected).fused) == ["anex_attention"]


@pytest.mark.parametrize("why", ["read twice", "other axis", "factors", "few", "broadcast heads", "column mask"])
def test_what_attention_does_not_say_stays_written_out(rng, why):
    x = operands(rng)
    if why == "few":
        x["q"] = np.ascontiguousarray(x["q"][:, :, :3])
    if why == "broadcast heads":
        x["k"] = np.ascontiguousarray(x["k"][:, :1])

    def graph(q: Any, k: Any, v: Any) -> Any:
        scores = mb.matmul(x=q, y=k, transpose_y=True)
        if why == "factors":
            scores = mb.mul(x=scores, y=np.linspace(0.5, 1, KEYS, dtype=np.float32))
        if why == "column mask":
            scores = mb.add(x=scores, y=np.linspace(0, 1, QUERIES, dtype=np.float32)[:, None])
        weights = mb.softmax(x=scores, axis=2 if why == "other axis" else -1)
        mixed = mb.matmul(x=weights, y=v)
        return (mixed, weights) if why == "read twice" else mixed

    assert ops(Case(graph, **x).check().fused).count("matmul") == 2
