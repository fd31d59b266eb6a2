"""Control flow, states and random numbers: programs that do more than map inputs to outputs."""

import coremltools as ct
import numpy as np
import pytest
import torch
from coremltools.converters.mil import Builder as mb
from coremltools.converters.mil.mil import types

import anex

IOS18 = {"opset_version": ct.target.iOS18}


def test_a_while_loop_runs_its_body_until_the_condition_fails(device):
    weight = np.array([[0.5, 0.0], [0.25, 1.0]], np.float32)

    @mb.program(input_specs=[mb.TensorSpec((1,), dtype=types.int32), mb.TensorSpec((2, 2)), mb.TensorSpec((2, 2))])
    def power(n, x, shift):  # x <- x @ weight + shift, n times; `shift` comes from outside the loop
        i, y = mb.while_loop(
            _cond=lambda i, y: mb.squeeze(x=mb.less(x=i, y=n)),
            _body=lambda i, y: (mb.add(x=i, y=1), mb.add(x=mb.matmul(x=y, y=weight), y=shift)),
            loop_vars=(np.zeros(1, np.int32), x),
        )
        return i, mb.identity(x=y, name="y")

    program = anex.compile(power, device=device)
    x = np.array([[1, 2], [3, 4]], np.float32)
    shift = np.full((2, 2), 0.5, np.float32)
    for n in (0, 1, 7):
        expected = x
        for _ in range(n):
            expected = expected @ weight + shift
        count, y = program(np.array([n], np.int32), x, shift)
        assert count.tolist() == [n]
        np.testing.assert_allclose(y, expected, rtol=1e-5)


def test_cond_takes_the_branch_its_predicate_names(device):
    @mb.program(input_specs=[mb.TensorSpec((1,), dtype=types.int32), mb.TensorSpec((3,))])
    def choose(flag, x):
        doubled = mb.mul(x=x, y=2.0)
        positive = mb.squeeze(x=mb.greater(x=flag, y=0))
        big = mb.squeeze(x=mb.greater(x=flag, y=10))

        def nested():
            return mb.cond(pred=big, _true_fn=lambda: mb.add(x=doubled, y=100.0), _false_fn=lambda: mb.add(x=x, y=1.0))

        return mb.cond(pred=positive, _true_fn=nested, _false_fn=lambda: mb.sub(x=x, y=doubled), name="y")

    program = anex.compile(choose, device=device)
    x = np.array([1, 2, 3], np.float32)
    for flag, expected in ((-1, -x), (5, x + 1), (11, 2 * x + 100)):
        np.testing.assert_array_equal(program(np.array([flag], np.int32), x), expected)


def test_a_branch_may_hand_out_a_value_from_outside_as_it_is(device):
    @mb.program(input_specs=[mb.TensorSpec((1,), dtype=types.int32), mb.TensorSpec((3,))])
    def either(flag, x):
        positive = mb.squeeze(x=mb.greater(x=flag, y=0))
        return mb.cond(pred=positive, _true_fn=lambda: mb.identity(x=x), _false_fn=lambda: mb.relu(x=x))

    program = anex.compile(either, device=device)
    x = np.array([-1, 2, -3], np.float32)
    np.testing.assert_array_equal(program(np.array([1], np.int32), x), x)
    np.testing.assert_array_equal(program(np.array([0], np.int32), x), np.maximum(x, 0))


def test_torchs_gru_which_becomes_a_loop_equals_torchs(device):
    module = torch.nn.GRU(6, 5, num_layers=2, batch_first=True).eval()
    x = torch.randn(2, 7, 6, generator=torch.Generator().manual_seed(0))
    program = anex.compile(anex.from_torch(module, x=x, precision="float32"), device=device)
    with torch.no_grad():
        expected, hidden = module(x)
    found, last = program(x)
    np.testing.assert_allclose(found, expected, atol=1e-5)
    np.testing.assert_allclose(last, hidden, atol=1e-5)


def test_an_op_without_a_kernel_inside_a_block_is_named():
    @mb.program(input_specs=[mb.TensorSpec((1,), dtype=types.int32), mb.TensorSpec((3,))])
    def hidden(flag, x):
        positive = mb.squeeze(x=mb.greater(x=flag, y=0))
        return mb.cond(
            pred=positive,
            _true_fn=lambda: mb.reduce_sum(x=mb.cast(x=mb.non_zero(x=x, name="inner"), dtype="fp32"), axes=[0, 1]),
            _false_fn=lambda: mb.reduce_sum(x=x, axes=[0]),
        )

    with pytest.raises(anex.UnsupportedError, match=r"cond .*: in it, non_zero 'inner'"):
        anex.compile(hidden)


# ---- states ---------------------------------------------------------------------------------------


@mb.program(input_specs=[mb.TensorSpec((1, 4), types.fp16), mb.StateTensorSpec((1, 4), types.fp16)], **IOS18)
def running_sum(x, total):
    before = mb.read_state(input=total, name="before")
    after = mb.coreml_update_state(state=total, value=mb.add(x=before, y=x))
    return mb.mul(x=after, y=np.float16(10), name="y"), mb.sub(x=after, y=before, name="difference")


def test_a_state_keeps_what_one_call_writes_for_the_next(device):
    program = anex.compile(running_sum, device=device)
    assert dict(program.inputs) == {"x": anex.spec((1, 4))}
    assert dict(program.states) == {"total": anex.spec((1, 4))}
    one, other = program.make_state(), program.make_state()
    x = np.array([[1, 2, 3, 4]], np.float16)
    for i in range(1, 4):
        y, difference = program(x, state=one)
        np.testing.assert_array_equal(y, 10 * i * x)
        np.testing.assert_array_equal(difference, x)  # what was read before the write has not changed
    np.testing.assert_array_equal(program(x=x, state=other)[0], 10 * x)
    np.testing.assert_array_equal(one["total"], 3 * x)
    one["total"][...] = 0
    np.testing.assert_array_equal(program(x, state=one)[0], 10 * x)


def test_a_state_that_nothing_reads_is_still_written(device):
    @mb.program(input_specs=[mb.TensorSpec((2,), types.fp16), mb.StateTensorSpec((2,), types.fp16)], **IOS18)
    def keep(x, last):
        mb.coreml_update_state(state=last, value=mb.relu(x=x))
        return mb.add(x=x, y=x, name="y")

    program = anex.compile(keep, device=device)
    state = program.make_state()
    program(np.array([-1, 5], np.float16), state=state)
    assert state["last"].tolist() == [0, 5]


def test_a_stateful_program_without_its_state_says_how_to_get_one(device):
    program = anex.compile(running_sum, device=device)
    x = np.zeros((1, 4), np.float16)
    with pytest.raises(anex.ArgumentError, match=r"keeps total .*make_state\(\)"):
        program(x)
    with pytest.raises(anex.ArgumentError, match="make_state"):
        program(x, state={"total": x})

    @anex.graph(x=(1, 4))
    def stateless(x):
        return mb.relu(x=x)

    with pytest.raises(anex.ArgumentError, match="no states"):
        anex.compile(stateless)(x, state=program.make_state())


def test_a_stateful_program_survives_text_and_package(device, tmp_path):
    program = anex.compile(running_sum, device=device)
    program.save(tmp_path / "sum.mlpackage")
    x = np.ones((1, 4), np.float16)
    for back in (anex.from_mil(program.mil), anex.from_mlpackage(tmp_path / "sum.mlpackage")):
        again = anex.compile(back, device=device)
        state = again.make_state()
        again(x, state=state)
        np.testing.assert_array_equal(again(x, state=state)[0], 20 * x)


# ---- random numbers -------------------------------------------------------------------------------


def draw(op, device, **arguments):
    @mb.program(input_specs=[mb.TensorSpec((1,))])
    def program(x):
        values = getattr(mb, op)(**arguments)
        return mb.add(x=mb.cast(x=values, dtype="fp32"), y=x, name="y")

    compiled = anex.compile(program, device=device)
    return lambda: np.array(compiled(np.zeros(1, np.float32)))


@pytest.mark.parametrize(
    ("op", "arguments", "mean", "deviation"),
    [
        ("random_uniform", {"low": -1.0, "high": 3.0}, 1.0, 4 / 12**0.5),
        ("random_normal", {"mean": 2.0, "stddev": 0.5}, 2.0, 0.5),
        ("random_bernoulli", {"prob": 0.3}, 0.3, 0.21**0.5),
    ],
)
def test_random_numbers_have_the_moments_asked_for(device, op, arguments, mean, deviation):
    values = draw(op, device, shape=[100, 1000], seed=7, **arguments)()
    assert abs(values.mean() - mean) < 5 * deviation / 300
    assert abs(values.std() - deviation) < 0.02 * deviation
    assert np.abs(np.corrcoef(values[:, 0], values[:, 1])[0, 1]) < 0.5


def test_a_seed_repeats_and_no_seed_does_not(device):
    seeded = draw("random_normal", device, shape=[64], seed=3)
    np.testing.assert_array_equal(seeded(), seeded())
    np.testing.assert_array_equal(seeded(), draw("random_normal", device, shape=[64], seed=3)())
    assert (seeded() != draw("random_normal", device, shape=[64], seed=4)()).any()
    fresh = draw("random_normal", device, shape=[64], seed=-1)
    assert (fresh() != fresh()).any()


@pytest.mark.parametrize("mode", ["probs", "logits"])
def test_random_categorical_follows_logits_and_probabilities(device, mode):
    probabilities = np.array([[0.1, 0.2, 0.7], [0.5, 0.5, 0.0]], np.float32)

    @mb.program(input_specs=[mb.TensorSpec((2, 3))])
    def program(x):
        return mb.random_categorical(x=x, mode=mode, size=4000, seed=1)

    x = probabilities if mode == "probs" else np.log(probabilities + 1e-30)
    found = np.asarray(anex.compile(program, device=device)(x))
    assert found.shape == (2, 4000)
    for row, expected in zip(found, probabilities, strict=True):
        np.testing.assert_allclose(np.bincount(row.astype(int), minlength=3) / 4000, expected, atol=0.03)


def test_lists_are_refused_by_name(device):
    @anex.graph(x=(3,), n=anex.spec((1,), "int32"))
    def kept(x, n):
        start = mb.make_list(init_length=2, elem_shape=(3,), dtype="fp16")
        _, filled = mb.while_loop(
            _cond=lambda i, _: mb.squeeze(x=mb.less(x=i, y=n)),
            _body=lambda i, ls: (mb.add(x=i, y=1), mb.list_write(ls=ls, index=mb.squeeze(x=i), value=x)),
            loop_vars=(n, start),
        )
        return mb.list_read(ls=filled, index=0, name="y")

    with pytest.raises(anex.UnsupportedError, match="make_list 'make_list_0'") as caught:
        anex.compile(kept, device=device)
    assert "list_read 'y'" in str(caught.value)


def test_stateful_programs_and_loops_are_profiled(device):
    program = anex.compile(running_sum, device=device)
    profile = program.profile(np.ones((1, 4), np.float16), state=program.make_state(), repeat=3)
    assert {"read_state", "coreml_update_state", "add"} <= {row.op for row in profile.rows}

    @mb.program(input_specs=[mb.TensorSpec((1,), dtype=types.int32)])
    def count(n):
        return mb.while_loop(
            _cond=lambda i: mb.squeeze(x=mb.less(x=i, y=n)),
            _body=lambda i: mb.add(x=i, y=1),
            loop_vars=(np.zeros(1, np.int32),),
        )

    rows = anex.compile(count, device=device).profile(np.array([5], np.int32), repeat=3).rows
    assert [row.op for row in rows] == ["while_loop"]
