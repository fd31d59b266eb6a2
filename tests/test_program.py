"""Compiled programs: calling, binding, sharing between threads, pickling, closing; and every wrong call."""

import copy
import functools
import os
import pickle
import re
import subprocess
import sys
import threading

import lean
import numpy as np
import pytest
import torch
from coremltools.converters.mil import Builder as mb
from coremltools.converters.mil.mil import types
from memory import growth

import anex


@anex.graph(x=(2, 3), y=(2, 3))
def affine(x, y):
    total = mb.add(x=x, y=y, name="total")
    return total, mb.sub(x=x, y=y, name="difference")


@anex.graph(x=(1, 64, 1, 32), y=(1, 64, 1, 32))
def plus(x, y):
    return mb.add(x=x, y=y, name="z")


X = np.arange(6, dtype=np.float16).reshape(2, 3)
Y = np.full((2, 3), 0.5, np.float16)
OUT = np.zeros((2, 3), np.float16)


@pytest.fixture
def program(device):
    return anex.compile(affine, device=device)


def test_inputs_go_by_position_by_name_or_both(program):
    for total, difference in (program(X, Y), program(x=X, y=Y), program(y=Y, x=X), program(X, y=Y)):
        np.testing.assert_array_equal(total, X + Y)
        np.testing.assert_array_equal(difference, X - Y)


def test_out_goes_with_inputs_given_in_any_way(program):
    out = (anex.empty((2, 3)), anex.empty((2, 3)))
    calls = (
        lambda: program(X, Y, out=out),
        lambda: program(out=out, y=Y, x=X),
        lambda: program(X, y=Y, out=out),
        lambda: program(*(X, Y), **{"out": out}),
        lambda: functools.partial(program, X, out=out)(Y),
        lambda: type(program).__call__(program, X, Y, out=out),
    )
    for call in calls:
        np.asarray(out[0])[...] = np.asarray(out[1])[...] = 0
        assert call() is out
        np.testing.assert_array_equal(out[0], X + Y)
        np.testing.assert_array_equal(out[1], X - Y)
    assert program(X, Y, out=None) is not None


def test_specs_tell_names_shapes_and_dtypes(program, device):
    assert dict(program.inputs) == {"x": anex.spec((2, 3)), "y": anex.spec((2, 3))}
    assert list(program.outputs) == ["total", "difference"]
    assert program.device == device
    assert repr(program).startswith("anex.Program(x: (2, 3) float16, y: (2, 3) float16 -> total: (2, 3) float16")
    with pytest.raises(TypeError):
        program.inputs["x"] = None


def test_out_is_written_and_returned(program):
    out = (anex.empty((2, 3)), np.empty((2, 3), np.float16))
    assert program(X, Y, out=out) is out
    np.testing.assert_array_equal(out[0], X + Y)
    np.testing.assert_array_equal(out[1], X - Y)
    single = anex.compile(plus)
    x = np.ones((1, 64, 1, 32), np.float16)
    z = np.empty_like(x)
    assert single(x, x, out=z) is z
    assert (z == 2).all()


@pytest.mark.parametrize("layout", ["padded", "sliced", "transposed", "reversed", "broadcast", "odd address", "torch"])
def test_inputs_and_outputs_of_any_layout_give_the_same(program, layout):
    def lay(values):
        if layout == "padded":
            return anex.tensor(values, padded=True)
        if layout == "sliced":
            wide = np.zeros((4, 9), values.dtype)
            wide[::2, 1::3][...] = values
            return wide[::2, 1::3]
        if layout == "transposed":
            return np.asfortranarray(values)
        if layout == "reversed":
            return np.ascontiguousarray(values[::-1, ::-1])[::-1, ::-1]
        if layout == "odd address":
            raw = np.zeros(values.nbytes + 1, np.uint8)[1:].view(values.dtype).reshape(values.shape)
            raw[...] = values
            return raw
        if layout == "torch":
            return torch.from_numpy(values.copy())
        return values

    x = np.broadcast_to(X[0], (2, 3)) if layout == "broadcast" else lay(X)
    out = (lay(np.zeros((2, 3), np.float16)), lay(np.zeros((2, 3), np.float16)))
    if layout == "broadcast":
        out = None
    total, difference = program(x, lay(Y), out=out)
    np.testing.assert_array_equal(np.asarray(total), np.asarray(x) + Y)
    np.testing.assert_array_equal(np.asarray(difference), np.asarray(x) - Y)


def test_read_only_arrays_are_fine_as_inputs_and_refused_as_outputs(program):
    frozen = X.copy()
    frozen.flags.writeable = False
    np.testing.assert_array_equal(program(frozen, Y)[0], X + Y)
    with pytest.raises(anex.ArgumentError, match=r"total.*(written|read-only)"):
        program(X, Y, out=(frozen, np.empty_like(X)))


@pytest.mark.parametrize(
    ("call", "error", "says"),
    [
        (lambda p: p(), anex.ArgumentError, r"takes 2 input\(s\) \(x, y\); got 0"),
        (lambda p: p(X), anex.ArgumentError, "takes 2"),
        (lambda p: p(X, Y, X), anex.ArgumentError, "got 3"),
        (lambda p: p(x=X), anex.ArgumentError, "missing 'y'"),
        (lambda p: p(X, z=Y), anex.ArgumentError, "unknown 'z', missing 'y'"),
        (lambda p: p(X, Y, x=X), anex.ArgumentError, "'x' given twice"),
        (lambda p: p(X, Y[:1]), anex.ShapeError, r"'y' is \(1, 3\) float16; the program has \(2, 3\)"),
        (lambda p: p(X, Y[0]), anex.ShapeError, "'y'"),
        (lambda p: p(X, Y.astype(np.float32)), anex.DTypeError, "'y' is .* float32; the program has .* float16"),
        (lambda p: p(X, Y.astype(np.float64)), anex.DTypeError, "'y' .*format 'd'"),
        (lambda p: p(X, Y.astype(">f2")), anex.DTypeError, "'y'"),
        (lambda p: p(X, [[1, 2, 3]] * 2), anex.ArgumentError, "'y' is a list"),
        (lambda p: p(X, None), anex.ArgumentError, "'y' is a NoneType"),
        (lambda p: p(X, np.zeros((1,) * 9, np.float16)), anex.ShapeError, "rank 9"),
        (lambda p: p(X, Y, out=X), anex.ArgumentError, r"2 output\(s\) \(total, difference\); out= has 1"),
        (lambda p: p(X, Y, out=(X, Y)), anex.ArgumentError, "'total' shares memory with 'x'"),
        (lambda p: p(X, Y, out=(Y[::-1], X.copy())), anex.ArgumentError, "'total' shares memory with 'y'"),
        (lambda p: p(X, Y, out=(OUT, OUT)), anex.ArgumentError, "'difference' shares memory with 'total'"),
        (lambda p: p(X, Y, out=(OUT, np.zeros(3, np.float16))), anex.ShapeError, "output 'difference'"),
    ],
)
def test_a_wrong_call_names_the_input_and_leaves_the_program_usable(program, call, error, says):
    with pytest.raises(error, match=says) as caught:
        call(program)
    assert isinstance(caught.value, anex.Error)
    np.testing.assert_array_equal(program(X, Y)[0], X + Y)


def test_nan_and_infinity_pass_through(program):
    x = np.array([[np.nan, np.inf, -np.inf], [65504, -0.0, 6e-8]], np.float16)
    total, _ = program(x, np.zeros_like(x))
    np.testing.assert_array_equal(np.asarray(total), x)


def test_a_tensor_cannot_be_closed_while_a_program_reads_it_but_can_after(program):
    x = anex.tensor(X)
    program(x, Y)
    x.close()
    with pytest.raises(anex.ClosedError):
        program(x, Y)


def test_the_same_program_serves_many_threads(device):
    program = anex.compile(plus, device=device)
    wrong = []

    def work(k):
        x = np.full((1, 64, 1, 32), k, np.float16)
        out = np.empty_like(x)
        for _ in range(300):
            program(x, x, out=out)
            if not (out == 2 * k).all():
                wrong.append(k)

    threads = [threading.Thread(target=work, args=(k,)) for k in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong


def test_python_runs_while_a_program_does():
    @anex.graph(x=(1, 1024, 1, 1024))
    def heavy(x):
        w = np.zeros((1024, 1024, 1, 1), np.float16)
        for _ in range(20):
            x = mb.conv(x=x, weight=w)
        return x

    program = anex.compile(heavy)
    x = np.zeros((1, 1024, 1, 1024), np.float16)
    ticks, done = [0], threading.Event()
    seen = []

    def work():
        before = ticks[0]
        program(x)
        seen.append(ticks[0] - before)
        done.set()

    thread = threading.Thread(target=work)
    thread.start()
    while not done.is_set():
        ticks[0] += 1
    thread.join()
    assert seen[0] > 100  # with the GIL held this thread could not have counted at all


def test_a_program_travels_by_pickle_and_recompiles_where_it_arrives(program, device):
    back = pickle.loads(pickle.dumps(program))
    assert back.device == device
    assert dict(back.inputs) == dict(program.inputs)
    np.testing.assert_array_equal(back(X, Y)[0], X + Y)
    np.testing.assert_array_equal(copy.deepcopy(program)(X, Y)[1], X - Y)


def test_a_closed_program_says_so_and_with_closes_it(device):
    with anex.compile(affine, device=device) as program:
        program(X, Y)
    with pytest.raises(ValueError, match="closed"):
        program(X, Y)
    program.close()


def test_closing_while_another_thread_runs_lets_the_run_finish(device):
    for _ in range(20):
        program = anex.compile(plus, device=device)
        x = np.ones((1, 64, 1, 32), np.float16)
        failures = []

        def work(program=program, x=x, failures=failures):
            try:
                while True:
                    if not (np.asarray(program(x, x)) == 2).all():
                        failures.append("wrong")
            except anex.ClosedError:
                return

        thread = threading.Thread(target=work)
        thread.start()
        program.close()
        thread.join()
        assert not failures


def test_text_and_package_come_back_out(program, tmp_path):
    assert program.mil.startswith("program(1.3)")
    program.save(tmp_path / "affine.mlpackage")
    program.save(tmp_path / "affine.mlmodelc")
    for back in (anex.from_mlpackage(tmp_path / "affine.mlpackage"), anex.from_mil(tmp_path / "affine.mlmodelc")):
        np.testing.assert_array_equal(anex.compile(back)(X, Y)[0], X + Y)


# ---- compiling ------------------------------------------------------------------------------------


WITHOUT_AN_ANE = """
import anex, numpy as np
from test_program import X, Y, affine
try:
    anex.compile(affine, device="ane")
except NotImplementedError as error:
    print(type(error).__name__, error)
program = anex.compile(affine, device="ane", fallback="cpu")
print(program.device, np.array_equal(program(X, Y)[0], X + Y))
"""


def test_without_an_ane_it_is_refused_with_the_reason_and_the_way_out_and_a_fallback_takes_over():
    environment = {name: value for name, value in os.environ.items() if name != "ANEX_ANE_FRAMEWORK"}
    environment["PYTHONPATH"] = lean.path(*sys.path)
    done = subprocess.run(
        [sys.executable, "-c", WITHOUT_AN_ANE], env=environment, capture_output=True, text=True, check=True
    )
    refusal, taken_over = done.stdout.splitlines()
    assert re.match(r"UnsupportedError device='ane' is not available: .*device='cpu'", refusal)
    assert taken_over == "cpu True"


def test_an_unknown_device_is_told_the_known_ones():
    with pytest.raises(anex.ArgumentError, match="'gpu' is none of 'ane', 'cpu'"):
        anex.compile(affine, device="gpu")


def test_all_refused_ops_are_listed_at_once():
    @mb.program(input_specs=[mb.TensorSpec((4,))])
    def odd(x):
        kept = mb.make_list(init_length=1, elem_shape=(4,), name="where")
        return mb.list_read(ls=mb.list_write(ls=kept, index=0, value=x), index=0, name="elsewhere")

    with pytest.raises(anex.UnsupportedError) as caught:
        anex.compile(odd)
    assert "make_list 'where'" in str(caught.value)
    assert "list_read 'elsewhere'" in str(caught.value)


def test_dynamic_shapes_are_refused_with_the_reason():
    from coremltools.converters.mil.mil import get_new_symbol

    @mb.program(input_specs=[mb.TensorSpec((get_new_symbol(), 3))])
    def dynamic(x):
        return mb.relu(x=x)

    with pytest.raises(anex.UnsupportedError, match=r"'x' has the dynamic shape .* static shapes"):
        anex.compile(dynamic)


def test_rank_six_is_refused_by_name():
    @mb.program(input_specs=[mb.TensorSpec((1, 1, 1, 1, 1, 6))])
    def deep(x):
        return mb.relu(x=x)

    with pytest.raises(anex.ShapeError, match=r"'x'.*rank 6"):
        anex.compile(deep)


def test_something_else_than_a_mil_program_is_refused():
    with pytest.raises(anex.ArgumentError, match="takes a MIL program, got a function"):
        anex.compile(lambda x: x)


def test_an_output_that_is_an_input_or_a_constant_or_twice_the_same_value():
    @mb.program(input_specs=[mb.TensorSpec((2, 3), dtype=types.fp16)])
    def same(x):
        y = mb.relu(x=x, name="y")
        flat = mb.reshape(x=y, shape=[6], name="flat")
        return mb.identity(x=x, name="copy"), y, flat, mb.const(val=np.float16([1, 2]), name="two")

    x = np.array([[1, -2, 3], [-4, 5, -6]], np.float16)
    copied, y, flat, two = anex.compile(same)(x)
    np.testing.assert_array_equal(copied, x)
    np.testing.assert_array_equal(y, np.maximum(x, 0))
    np.testing.assert_array_equal(flat, np.maximum(x, 0).ravel())
    assert two.tolist() == [1, 2]
    copied[0, 0] = 99
    assert x[0, 0] == 1


def test_any_mb_program_compiles_in_the_dtypes_it_has():
    @mb.program(input_specs=[mb.TensorSpec((3,), dtype=types.int32), mb.TensorSpec((3,), dtype=types.fp32)])
    def mixed(i, f):
        return mb.add(x=mb.cast(x=i, dtype="fp32"), y=f, name="sum")

    program = anex.compile(mixed)
    assert program.outputs["sum"].dtype == np.float32
    np.testing.assert_allclose(program(np.array([1, 2, 3], np.int32), np.float32([0.5, 0.25, 0])), [1.5, 2.25, 3])


# ---- memory ---------------------------------------------------------------------------------------


@pytest.mark.memory
def test_a_hundred_thousand_calls_leave_memory_where_it_was():
    prepare = """
        @anex.graph(x=(1, 64, 1, 32), y=(1, 64, 1, 32))
        def plus(x, y):
            return mb.add(x=x, y=y, name="z")

        program = anex.compile(plus)
        x = anex.ones((1, 64, 1, 32))
        out = anex.empty_like(x)
    """
    assert growth(prepare, "program(x, x, out=out); program(x, x)", warm=1000, n=50_000) < 256 << 10


@pytest.mark.memory
def test_compiling_and_closing_again_and_again_leaves_no_memory_behind():
    prepare = """
        weight = np.ones((256, 256, 1, 1), np.float16)

        @anex.graph(x=(1, 256, 1, 64))
        def layer(x):
            return mb.conv(x=x, weight=weight)

        x = np.ones((1, 256, 1, 64), np.float16)

        def cycle():
            with anex.compile(layer) as program:
                program(x)
    """
    assert growth(prepare, "cycle()", warm=50, n=300) < 2 << 20
