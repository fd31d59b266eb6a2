"""``ane_numerics=True``: the documented cliffs, by hand, and against the stand-in's own model of the same facts."""

from __future__ import annotations

import pickle
import warnings

import harness
import numpy as np
import pytest
from fake_ane import build_interpreter, interpreter
from fake_ane.cases import CASES, CONSTANTS
from fuzz.check import quiet
from fuzz.graph import build
from fuzz.maker import random_graph
from strict_case import difference, same_bits

import anex
from anex import _native, mb, store
from anex.ops import OPS
from anex.ops.rules import GENERIC

ALL = {"narrow_reduce": True, "matmul_cliff": True, "flush_subnormals": True, "slice_clamp": True}
PATH = "@model_path/weights/weight.bin"


def run(program, *arguments, **options):
    """The outputs, and the text of every AneWarning."""
    compiled = anex.compile(program, device="cpu", ane_numerics=True, **options)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        found = compiled(*arguments)
    assert all(warning.category is anex.AneWarning for warning in caught)
    outputs = found if isinstance(found, tuple) else (found,)
    return [np.array(y) for y in outputs], [str(warning.message) for warning in caught]


def op_of(op, *, dtype="float16", **arguments):
    given = {name: v.astype(dtype) if isinstance(v, np.ndarray) else v for name, v in arguments.items()}
    program = harness.build(op, given)
    return program, program.test_inputs


# ---- by hand --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("op", "n", "most"), [("reduce_sum", 2048, 2048), ("reduce_sum", 4096, 2048)])
def test_sums_count_up_to_2048(op, n, most):
    program, given = op_of(op, x=np.ones((2, n)), axes=[-1])
    (y,), told = run(program, *given)
    assert (y == most).all()
    assert np.asarray(anex.compile(program)(*given)).tolist() == [n, n]
    assert len(told) == (n > 2048)
    if told:
        assert "reduce_sum 'y': 4096 addition(s) were rounded because the sum was above 2048" in told[0]
        assert "FRG: M2 Pro and M5" in told[0]


def test_sums_below_2048_that_round_are_not_told_of(rng):
    program, given = op_of("reduce_sum", x=rng.normal(size=(3, 500)), axes=[1])
    assert run(program, *given)[1] == []


@pytest.mark.parametrize("op", ["matmul", "linear", "einsum"])
def test_products_are_infinite_from_32752_on(op):
    column = np.array([[200.0], [181.0], [100.0], [-300.0]])
    wide, shape = column.astype("float16"), (4, 4)
    if op == "matmul":
        program = harness.build(op, {"x": wide, "y": wide, "transpose_y": True})
    elif op == "linear":
        program = harness.build(op, {"x": wide, "weight": wide}, constants=("weight",))
    else:
        shape = (1, 4, 1, 4)
        values = [wide.reshape(1, 1, 1, 4).transpose(0, 3, 1, 2), wide.reshape(1, 1, 1, 4)]
        program = harness.build(op, {"values": values, "equation": "nchw,nwhu->nchu"})
    given = program.test_inputs
    (y,), (told,) = run(program, *given)
    exact = (column @ column.T).reshape(shape)
    rounded = exact.astype("float16")
    np.testing.assert_array_equal(y, np.where(np.abs(rounded) >= 32752, np.sign(exact) * np.inf, rounded))
    assert (
        f"{op} 'y': 9 value(s) from 32752 on became infinite (up to inf)" in told
    )  # 181 * 181 rounds to 32768; 90000 is above fp16
    assert "[matmul-range] on every chip; FRG: M2 Pro and M5, H3: zeros instead" in told


def test_what_was_infinite_before_is_not_told_of():
    program, given = op_of("matmul", x=np.array([[np.inf, 1.0]]), y=np.array([[2.0], [3.0]]))
    (y,), told = run(program, *given)
    assert y == np.inf
    assert not told


def test_a_slice_inside_the_last_axis_overflows_before_a16():
    x = np.array([[5000.0, 4094.0, 4096.0, -4100.0, np.nan]])
    program, given = op_of("slice_by_index", x=x, begin=[0, 1], end=[1, 5])
    for chip in ("h13g", "h15s", None):
        (y,), (told,) = run(program, *given, **({"chip": chip} if chip else {}))
        np.testing.assert_array_equal(y, [[4094, np.inf, -np.inf, np.nan]])
        assert "2 value(s) from 4096 on became infinite (up to 4100)" in told
    for chip in ("h16g", "h17s"):
        (y,), told = run(program, *given, chip=chip)
        np.testing.assert_array_equal(y, x[:, 1:].astype("float16"))
        assert not told
    program, given = op_of("slice_by_index", x=x, begin=[0, 0], end=[1, 5])
    assert run(program, *given)[1] == []


def test_subnormal_results_are_zero_and_keep_their_sign():
    program, given = op_of("mul", x=np.array([2.0**-14, -(2.0**-14), 2.0**-13, 0.0]), y=np.array([0.5] * 4))
    (y,), (told,) = run(program, *given)
    assert y.tobytes() == np.array([0, -0.0, 2.0**-14, 0], "float16").tobytes()
    assert "mul 'y': 2 value(s) below 6.1e-05 became zero (up to 3.05e-05)" in told


def test_the_blocks_of_control_flow_have_cliffs_too():
    @anex.graph(x=(2, 2))
    def loop(x):
        def body(i, z):
            return mb.add(x=i, y=1), mb.matmul(x=z, y=z, name="squared")

        return mb.while_loop(_cond=lambda i, z: mb.less(x=i, y=3), _body=body, loop_vars=(0, x))[1]

    (y,), told = run(loop, np.full((2, 2), 16, "float16"))
    assert np.isinf(y).all()
    assert ["squared" in text for text in told] == [True]


def test_fp32_and_integers_have_no_cliffs():
    for program, given in (
        op_of("matmul", dtype="float32", x=np.full((2, 2), 1e-39), y=np.full((2, 2), 300.0)),
        op_of("reduce_sum", dtype="int32", x=np.ones((1, 5000)), axes=[1]),
    ):
        found, told = run(program, *given)
        assert not told
        strict = anex.compile(program, strict=True)(*given)
        assert found[0].tobytes() == np.asarray(strict).tobytes()


@pytest.mark.parametrize(("n", "most"), [(2048, 2047), (5000, 5000 - 1)])
def test_indices_come_back_in_float16(n, most):
    x = np.zeros((2, n))
    x[0, most] = x[1, 3] = 1
    program, given = op_of("reduce_argmax", x=x, axis=-1)
    (y,), told = run(program, *given)
    assert y.dtype == np.int32
    assert y.tolist() == [int(np.float16(most)), 3]
    assert len(told) == (float(np.float16(most)) != most)
    if told:
        assert f"1 index(es) above 2048 came back rounded (up to {np.float16(most):g})" in told[0]
    program, given = op_of("topk", x=x, k=1, axis=-1)
    (values, places), _ = run(program, *given)
    assert values.ravel().tolist() == [1, 1]
    assert places.ravel().tolist() == [int(np.float16(most)), 3]


# ---- as an option ---------------------------------------------------------------------------------------------


def test_each_call_tells_of_its_own_values_and_at_the_line_that_calls():
    program, (x, y) = op_of("mul", x=np.array([1.0, 2.0]), y=np.array([2.0**-20, 2.0**-21]))
    compiled = anex.compile(program, ane_numerics=True)
    with pytest.warns(anex.AneWarning, match="2 value") as caught:
        compiled(x, y)
    assert caught[0].filename == __file__
    with pytest.warns(anex.AneWarning, match="1 value"):
        compiled(x, np.array([1, 2.0**-20], "float16"))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        compiled(x, x)
    with pytest.warns(anex.AneWarning, match="2 value"):
        np.testing.assert_array_equal(compiled.submit(x, y).result(), [0, 0])


def test_what_a_profile_met_is_not_told_of_later():
    program, (x, y) = op_of("mul", x=np.array([1.0]), y=np.array([2.0**-20]))
    compiled = anex.compile(program, ane_numerics=True)
    with pytest.warns(anex.AneWarning, match=" 1 value"):
        compiled.profile(x, y, repeat=2)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        compiled(x, x)


def test_programs_without_the_option_have_none_of_its_nodes():
    program, _ = op_of("matmul", x=np.ones((2, 2)), y=np.ones((2, 2)))
    for options in ({}, {"strict": True}):
        compiled = anex.compile(program, **options)
        assert isinstance(compiled._executable, _native.Plan)
        assert [op for op, *_ in compiled._executable.nodes()] == ["matmul"]


def test_the_option_is_kept_by_a_pickle():
    program, given = op_of("reduce_sum", x=np.ones((1, 4096)), axes=[1])
    again = pickle.loads(pickle.dumps(anex.compile(program, ane_numerics=True, chip="h14g")))
    with pytest.warns(anex.AneWarning):
        assert np.asarray(again(*given)) == 2048


def test_a_chip_is_one_and_says_nothing_without_the_option():
    program, _ = op_of("relu", x=np.ones(3))
    with pytest.raises(anex.ArgumentError, match="chip 'm1'"):
        anex.compile(program, ane_numerics=True, chip="m1")
    with pytest.raises(anex.ArgumentError, match="does nothing without"):
        anex.compile(program, chip="h13g")
    with pytest.raises(anex.ArgumentError, match="ane_numerics=1 is neither"):
        anex.compile(program, ane_numerics=1)


def test_every_cliff_stands_on_a_rule_with_a_limit_in_its_statement():
    rules = {rule.id: rule for op in OPS.values() for rule in (*op.ane, *GENERIC) if rule.cliff}
    assert set(rules) == {"sum-range", "mean-range", "matmul-range", "slice-range", "index-range", "subnormal"}


# ---- against the stand-in -------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def parse():
    library = interpreter.load(build_interpreter.build())
    return lambda source, files=None: interpreter.Program(library, source, files)


def same_as_the_stand_in(parse, program, given):
    """Every output, to the last bit; whether a cliff was met."""
    compiled = anex.compile(program, device="cpu", ane_numerics=True)
    source, weights = store.to_text(program)
    wanted = parse(source, {PATH: weights}).run(dict(zip(compiled.inputs, given, strict=True)), **ALL)
    found, told = run(program, *given)
    for name, left, right in zip(compiled.outputs, found, wanted, strict=True):
        assert same_bits(left, right), f"{name}: {difference(left, right)}"
    return bool(told)


SCALES = [2.0**-18, 1.0, 2.0**6, 2.0**11]


@pytest.mark.parametrize("op", sorted(CASES))
def test_each_op_has_the_cliffs_of_the_stand_in(parse, op):
    for scale in SCALES:
        arguments = {
            name: (v * np.float32(scale)).astype(v.dtype) if harness.is_tensor(v) and v.dtype == "float16" else v
            for name, v in CASES[op].items()
        }
        program = harness.build(op, arguments, constants=CONSTANTS)
        if "y" in program.functions["main"].inputs:  # text has one namespace
            program.functions["main"].outputs[0].name = "result"
        same_as_the_stand_in(parse, program, program.test_inputs)


def test_random_programs_have_the_cliffs_of_the_stand_in(parse):
    met = 0
    for seed in range(150):
        with quiet():
            graph, _ = random_graph(seed)
            rng = np.random.default_rng(seed)
            for name, v in graph.inputs.items():
                if v.dtype == "float16":
                    with np.errstate(over="ignore"):
                        graph.inputs[name] = (v * 2.0 ** rng.integers(-16, 12)).astype("float16")
            try:
                program = build(graph, graph.sinks())
                compiled = anex.compile(program)
            except Exception:  # coremltools' builder refuses what only the first values fitted
                continue
        if any(op.op_type not in (*CASES, "const") for op in program.functions["main"].operations):
            continue  # the stand-in computes what the engine has
        met += same_as_the_stand_in(parse, program, [graph.inputs[name] for name in compiled.inputs])
    assert met > 10
