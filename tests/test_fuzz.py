"""Random programs agree with the reference, whichever way they run, and strict ones to the last bit."""

from __future__ import annotations

import numpy as np
import pytest
from fuzz.check import Count, Wrong, check, quiet
from fuzz.graph import Graph, Ref, Step, build
from fuzz.maker import FAMILIES, Maker, random_graph
from fuzz.reference_control import unlikely
from fuzz.shrink import shrink, text

import anex
from anex import _native

PROGRAMS, BATCH = 100, 10
# what random programs leave out, and where it is tested instead
LEFT_OUT = {
    "anex_copy": "the engine's own", "anex_overflow": "test_ane_numerics.py", "anex_flush": "test_ane_numerics.py",
    "anex_narrow_sum": "test_ane_numerics.py", "anex_narrow_index": "test_ane_numerics.py",
}  # fmt: skip


@pytest.mark.parametrize("seed", range(0, PROGRAMS, BATCH))
def test_random_programs_agree_with_the_reference_on_any_threads_and_instruction_set(seed):
    count = Count()
    for one in range(seed, seed + BATCH):
        with quiet():
            graph, maker = random_graph(one)
        try:
            check(graph, one, count)
        except Exception as error:
            graph, smaller = shrink(graph, maker, one)
            pytest.fail(f"seed {one}: {error}\nsmallest: {smaller or error}\n{text(graph)}")
    assert count.compared > 0.8 * count.elements  # or nothing would be shown


def test_every_op_is_among_the_random_ones_or_left_out_by_name():
    random_graph(0)
    assert set(FAMILIES) | set(LEFT_OUT) == set(_native.kernels())
    assert not set(FAMILIES) & set(LEFT_OUT)


@pytest.mark.parametrize("op", ["anex_conv_int8", "anex_linear_int8", "anex_linear_codes", "anex_attention"])
def test_ops_of_the_engines_own_are_among_the_random_ones(op):
    """MIL knows them as several ops, which the engine joins."""
    found = set()
    for seed in range(40):
        with quiet():
            graph, _ = random_graph(seed, [op])
        program = anex.compile(build(graph, graph.sinks()), device="cpu")
        found |= {name for name, _, _ in program._executable.nodes()}
        if op in found:
            return
    pytest.fail(f"{op} is not among {sorted(found)}")


def test_random_numbers_that_are_spread_otherwise_are_noticed():
    rng, shape = np.random.default_rng(0), (40, 50)
    normal = {"mean": 0.0, "stddev": 1.0}
    assert unlikely("random_normal", rng.normal(0, 1, shape), normal) is None
    assert "distribution function" in unlikely("random_normal", rng.normal(0, 1.5, shape), normal)
    assert "outside" in unlikely("random_uniform", rng.uniform(0, 1.1, shape), {"low": 0.0, "high": 1.0})
    assert "for [0.5 0.5]" in unlikely("random_bernoulli", 1.0 * (rng.random(shape) < 0.6), {"prob": 0.5})
    logits = {"x": np.log([0.2, 0.8]), "mode": "logits"}
    assert unlikely("random_categorical", rng.choice(2, 900, p=[0.2, 0.8]), logits) is None
    assert unlikely("random_categorical", rng.choice(2, 900), logits)


def test_a_failing_program_is_made_small(monkeypatch):
    """The reference is made to lie about one op."""
    from fuzz import reference

    seed = 3
    with quiet():
        maker = Maker(seed)
        (x,) = maker.emit("relu", x=maker.fresh((3, 4)))
        (y,) = maker.emit("tanh", x=maker.emit("square", x=x)[0])
        maker.emit("add", x=y, y=maker.emit("abs", x=x)[0])
    graph = maker.graph
    monkeypatch.setitem(reference.FUNCTIONS, "tanh", lambda x: x * 0 + 2)
    with pytest.raises(Wrong, match="tanh"):
        check(graph, seed)
    smallest, error = shrink(graph, maker, seed)
    assert [step.op for step in smallest.steps] == ["tanh"]
    assert "tanh" in str(error)
    assert "= tanh(x = " in text(smallest)


def test_a_program_is_made_again_from_its_seed():
    one, other = (random_graph(7)[0] for _ in range(2))
    assert [(s.op, s.results) for s in one.steps] == [(s.op, s.results) for s in other.steps]
    assert all((one.inputs[n] == other.inputs[n]).all() for n in one.inputs)


def test_what_is_needed_of_a_program():
    steps = [
        Step("relu", "a", {"x": Ref("x")}, ("a",)),
        Step("tanh", "b", {"x": Ref("y")}, ("b",)),
        Step("add", "c", {"x": Ref("a"), "y": 1.0}, ("c",)),
    ]
    graph = Graph({"x": None, "y": None}, steps)
    assert [step.name for step in graph.needed(["c"]).steps] == ["a", "c"]
    assert list(graph.needed(["c"]).inputs) == ["x"]
    assert graph.sinks() == ["b", "c"]
