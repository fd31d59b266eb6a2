"""Programs of several functions, on every device."""

import pickle

import numpy as np
import pytest

import anex
from anex import devices, mb, mil

TEXT = """program(1.3)
{
    func NAME<ios18>(tensor<fp16, [1, 4]> x) {
        tensor<fp16, [1, 4]> y = mul(x = x, y = x);
    } -> (y);
    func plus<ios18>(tensor<fp16, [2, 3]> b, tensor<fp16, [2, 3]> a) {
        tensor<fp16, [2, 3]> s = add(x = a, y = b);
        tensor<fp16, [2, 3]> d = sub(x = a, y = b);
    } -> (s, d);
}
"""


def two(name="main"):
    return anex.from_mil(TEXT.replace("NAME", name), function="*")


X = np.array([[1, 2, 3, 4]], np.float16)
A, B = np.full((2, 3), 5, np.float16), np.full((2, 3), 3, np.float16)


def check(program):
    assert list(program.functions) == ["main", "plus"]
    assert program(X).tolist() == [[1, 4, 9, 16]]
    assert program.functions["main"](x=X).tolist() == [[1, 4, 9, 16]]
    total, difference = program.functions["plus"](a=A, b=B)
    assert (np.asarray(total) == 8).all()
    assert (np.asarray(difference) == 2).all()


def test_each_function_is_a_program_and_the_whole_calls_main(device):
    program = anex.compile(two(), device=device)
    check(program)
    assert list(program.inputs) == ["x"]
    assert list(program.functions["plus"].inputs) == ["b", "a"]
    assert program.submit(X).result(30).tolist() == [[1, 4, 9, 16]]
    assert program.functions["plus"].submit(B, A).result(30)[1][0, 0] == 2
    assert "functions main, plus" in repr(program)


def test_without_a_main_the_functions_are_named(device):
    program = anex.compile(two("times"), device=device)
    assert program.functions["times"](X).tolist() == [[1, 4, 9, 16]]
    for call in (lambda: program(X), lambda: program(x=X), lambda: program.profile(X)):
        with pytest.raises(anex.ArgumentError, match="has the functions plus, times and no main"):
            call()
    assert isinstance(program.submit(X).exception(30), anex.ArgumentError)
    assert not program.inputs


def test_a_program_of_one_function_is_its_own_function(device):
    program = anex.compile(anex.from_mil(TEXT.replace("NAME", "times"), function="times"), device=device)
    assert program.functions["main"] is program


def test_functions_share_one_compiled_program(device):
    program = anex.compile(two(), device=device)
    check(program)
    if device == "ane":
        whole = {part.stats()["identifier"] for part in program.functions.values()}
        assert len(whole) == 1
    program.functions["plus"].close()
    assert program(X).tolist() == [[1, 4, 9, 16]]
    program.close()
    with pytest.raises(anex.ClosedError):
        program(X)


def test_several_functions_survive_pickling_saving_and_printing(device, tmp_path):
    program = anex.compile(two(), device=device)
    check(pickle.loads(pickle.dumps(program)))
    assert pickle.loads(pickle.dumps(program.functions["plus"]))(B, A)[0][0, 0] == 8
    assert sorted(mil.from_text(program.mil).functions) == ["main", "plus"]
    program.save(tmp_path / "both.mlmodelc")
    check(anex.compile(anex.from_mil(tmp_path / "both.mlmodelc", function="*"), device=device))


def test_an_op_that_a_device_refuses_is_named_with_its_function():
    if "ane" not in devices.available():
        pytest.skip("the binding was built without Objective-C")

    @anex.graph(x=(2, 8))
    def windows(x):
        return mb.sliding_windows(x=x, axis=1, size=4, name="w")

    program = two()
    program.add_function("windows", windows.functions["main"])
    with pytest.raises(anex.UnsupportedError, match="windows: sliding_windows 'w'"):
        anex.compile(program, device="ane")
