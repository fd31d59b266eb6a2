"""Attention whose heads its program transposes: the engine sees them through strides. Compared with torch, float64."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from fusion_case import Case, each_dtype, each_isa
from test_attention import attended

import anex
from anex import _native, mb

pytestmark = [pytest.mark.cpu_engine, pytest.mark.fuses]

# The axes of [batch, heads, length, size] in memory, as the permutation that a program gives to come from there.
LAYOUTS = {"rows": None, "columns": (0, 1, 3, 2), "heads inside": (0, 2, 1, 3), "heads inside, columns": (0, 2, 3, 1)}


def ops(plan: _native.Plan) -> list[str]:
    return [op for op, _, _ in plan.nodes()]


def stored(x: np.ndarray, perm: tuple[int, ...] | None) -> np.ndarray:
    """What the permutation makes ``x`` of."""
    return x if perm is None else np.ascontiguousarray(x.transpose(np.argsort(perm)))


def case_of(rng: Any, layout: str, length: int, keys: int, *, mask: np.ndarray | None = None, **options: Any) -> Case:
    perm, e, ev = LAYOUTS[layout], 20, 24
    shapes = {"query": (2, 3, length, e), "key": (2, 3, keys, e), "value": (2, 3, keys, ev)}
    operands = {name: rng.normal(size=shape) for name, shape in shapes.items()}

    def graph(**given: Any) -> Any:
        rest = {"attn_mask": mask} if mask is not None else {}
        if perm is not None:
            given = {name: mb.transpose(x=x, perm=perm) for name, x in given.items()}
        mixed = mb.scaled_dot_product_attention(**given, **rest, name="mixed")
        return mixed if perm is None else mb.transpose(x=mixed, perm=np.argsort(perm))

    case = Case(graph, **options, **{name: stored(x, perm) for name, x in operands.items()})
    rounded = {n: x if perm is None else x.transpose(perm) for n, x in case.inputs.items()}
    case.check(stored(attended(**rounded, attn_mask=mask), perm))
    return case


@each_dtype
@each_isa
@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize(("length", "keys"), [(8, 5), (64, 64), (77, 300)])
def test_heads_in_any_order_are_read_where_they_lie(rng, dtype, isa, layout, length, keys):
    case = case_of(rng, layout, length, keys, dtype=dtype, isa=isa)
    assert ops(case.fused) == ["scaled_dot_product_attention" if layout == "rows" else "anex_attention"]


@pytest.mark.parametrize("layout", LAYOUTS)
def test_a_causal_mask_over_transposed_heads(rng, layout):
    case_of(rng, layout, 100, 100, mask=np.tril(np.ones((100, 100), bool)))
    case_of(rng, layout, 100, 140, mask=np.triu(np.full((2, 1, 100, 140), -np.inf, np.float32), 41))


def test_few_queries_and_strict_plans_keep_their_transposes(rng):
    assert "transpose" in ops(case_of(rng, "columns", 3, 50).fused)
    assert "transpose" in ops(case_of(rng, "columns", 50, 50).strict)


def test_a_transpose_stays_when_others_read_the_result_or_heads_are_last_in_memory(rng):
    x = rng.normal(size=(1, 4, 30, 16))

    def read_twice(x: Any) -> Any:
        mixed = mb.scaled_dot_product_attention(query=x, key=x, value=x)
        return mixed, mb.transpose(x=mixed, perm=(0, 1, 3, 2))

    def heads_last(x: Any) -> Any:
        heads = mb.transpose(x=x, perm=(0, 3, 2, 1))
        return mb.scaled_dot_product_attention(query=heads, key=heads, value=heads)

    assert ops(Case(read_twice, x=x).check().fused) == ["scaled_dot_product_attention", "transpose"]
    assert ops(Case(heads_last, x=x).check().fused) == ["transpose", "scaled_dot_product_attention"]


@each_isa
def test_layouts_give_the_same_bits(rng, isa):
    """And so do threads, as no sum depends on where its terms lie."""
    made = []
    for layout in LAYOUTS:
        case = case_of(np.random.default_rng(0), layout, 70, 200, isa=isa)
        (found,) = case.run(case.fused)
        made.append(found if LAYOUTS[layout] is None else found.transpose(LAYOUTS[layout]))
    for other in made[1:]:
        np.testing.assert_array_equal(made[0], other)


def test_a_masks_reach_is_found_in_each_run_where_the_mask_is_an_input(rng):
    """Rows that are all plain, hidden in part, and with numbers to add, in turn."""
    x = rng.normal(size=(1, 2, 40, 16))
    masks = [np.zeros((40, 40)), np.triu(np.full((40, 40), -np.inf), 1), rng.normal(size=(40, 40))]

    def graph(x: Any, mask: Any) -> Any:
        return mb.scaled_dot_product_attention(query=x, key=x, value=x, attn_mask=mask)

    program = anex.compile(anex.graph(x=anex.spec(x.shape, "float32"), mask=anex.spec((40, 40), "float32"))(graph))
    for mask in masks:
        found = np.asarray(program(x.astype("float32"), mask.astype("float32")))
        np.testing.assert_allclose(found, attended(x, x, x, mask), atol=1e-5)
