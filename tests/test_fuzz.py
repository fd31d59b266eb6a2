"""Random programs agree with the reference, whichever way they run, and strict ones to the last bit."""

from __future__ import annotations

import pytest
from fuzz.check import Count, Wrong, check, quiet
from fuzz.graph import Graph, Ref, Step
from fuzz.maker import FAMILIES, Maker, random_graph
from fuzz.shrink import shrink, text

from anex import _native

PROGRAMS, BATCH = 100, 10
# what random programs leave out, and where it is tested instead
LEFT_OUT = {
    "anex_copy": "the engine's own", "anex_overflow": "test_ane_numerics.py", "anex_flush": "test_ane_numerics.py",
    "anex_narrow_sum": "test_ane_numerics.py", "anex_narrow_index": "test_ane_numerics.py",
    "anex_conv_int8": "ops/test_products_int8.py",
    "anex_linear_int8": "ops/test_products_int8.py", "anex_linear_codes": "ops/test_products_codes.py",
    "random_uniform": "ops/test_generate.py", "random_normal": "ops/test_generate.py",
    "random_bernoulli": "ops/test_generate.py", "random_categorical": "ops/test_generate.py",
    "cond": "test_control.py", "while_loop": "test_control.py", "read_state": "test_control.py",
    "coreml_update_state": "test_control.py",
    "fill": "ops/test_generate.py", "range_1d": "ops/test_generate.py",
    "conv_quantized": "ops/test_conv.py",
    "constexpr_cast": "ops/test_quantization.py",
    "constexpr_lut_to_sparse": "ops/test_quantization.py",
    "constexpr_sparse_blockwise_shift_scale": "ops/test_quantization.py",
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
