"""anex.graph and anex.spec: programs from coremltools' builder."""

import os
import subprocess
import sys
import threading

import coremltools as ct
import numpy as np
import pytest
from coremltools.converters.mil.mil import Builder as mb
from coremltools.converters.mil.mil import types
from mil_facts import constants, inputs, main, ops, outputs

import anex
from anex import errors
from anex.spec import Spec, spec

X = (1, 4, 1, 8)


def build(function, **given):
    return anex.graph(**(given or {"x": X}))(function)


def weight(program, op, argument):
    dtype, shape, data = constants(program)[op, argument, 0]
    return np.frombuffer(data, dtype).reshape(shape)


# Inputs and outputs ------------------------------------------------------------------------------


def test_a_graph_is_a_coremltools_program_with_fp16_inputs_named_as_the_keywords():
    @anex.graph(x=X, scale=(4, 1, 1))
    def program(scale, x):
        return mb.mul(x=x, y=scale, name="y")

    assert isinstance(program, ct.converters.mil.mil.Program)
    assert [name for name, *_ in inputs(program)] == ["x", "scale"]
    assert {str(var.dtype) for var in main(program).inputs.values()} == {str(main(program).outputs[0].dtype)}
    assert [name for name, *_ in outputs(program)] == ["y"]
    assert main(program).opset_version == ct.target.iOS18


def test_a_graph_may_return_several_outputs_in_their_order():
    program = build(lambda x: (mb.relu(x=x, name="b"), mb.exp(x=x, name="a")))
    assert [name for name, *_ in outputs(program)] == ["b", "a"]


@pytest.mark.parametrize("target", ["iOS16", ct.target.iOS16, "macOS13"])
def test_the_target_may_be_a_member_or_its_name(target):
    program = anex.graph(target, x=X)(lambda x: mb.relu(x=x))
    assert main(program).opset_version == ct.target.iOS16


@pytest.mark.parametrize("target", ["iOS99", "iOS14", 9, object()])
def test_a_target_that_is_none_or_older_than_mil_is_refused(target):
    with pytest.raises(errors.ArgumentError, match="iOS15, iOS16"):
        anex.graph(target, x=X)(lambda x: mb.relu(x=x))


@pytest.mark.parametrize("dtype", ["float16", "float32", "int8", "uint8", "int16", "uint16", "int32", "bool"])
def test_an_input_has_the_dtype_of_its_spec(dtype):
    program = build(lambda x: mb.identity(x=x, name="y"), x=spec(X, dtype))
    name = ct.converters.mil.mil.types.builtin_to_string(main(program).inputs["x"].dtype)
    assert name == dtype.replace("float", "fp")


def test_equal_functions_give_equal_programs_whatever_was_built_before():
    def function(x):
        return mb.relu(x=mb.add(x=x, y=1.0))

    first = build(function)
    build(lambda x: mb.relu(x=mb.relu(x=x)))
    assert ops(build(function)) == ops(first)


def test_threads_may_build_at_once():
    failures = []

    def work():
        try:
            for _ in range(5):
                program = build(lambda x: mb.relu(x=mb.add(x=x, y=1.0), name="y"))
                assert len(ops(program)) == 2
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failures


# Constants ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("value", [2, 2.0, np.float32(2), np.float64(2), np.float16(2), [2.0] * 8, [2] * 8])
def test_numbers_beside_an_fp16_tensor_become_fp16(value):
    program = build(lambda x: mb.mul(x=x, y=value, name="y"))
    y = weight(program, "y", "y")
    assert y.dtype == np.float16
    assert (y == 2).all()


@pytest.mark.parametrize("dtype", [np.float32, np.float64, np.float16])
def test_weights_become_fp16_exactly_as_numpy_rounds_them(dtype):
    w = np.random.default_rng(3).normal(size=(8, 4, 1, 1)).astype(dtype)
    program = build(lambda x: mb.conv(x=x, weight=w, bias=w[:, 0, 0, 0], name="y"))
    np.testing.assert_array_equal(weight(program, "y", "weight"), w.astype(np.float16))
    assert weight(program, "y", "bias").dtype == np.float16


def test_constants_beside_an_fp32_tensor_stay_fp32():
    program = build(lambda x: mb.layer_norm(x=x, axes=[1], epsilon=1e-12, name="y"), x=spec(X, "float32"))
    assert weight(program, "y", "epsilon") == np.float32(1e-12)


def test_constants_in_a_list_of_tensors_follow_them():
    program = build(lambda x: mb.concat(values=[np.ones(X), x], axis=1, name="y"))
    assert constants(program)["y", "values", 0][0] == "float16"


def test_arguments_that_are_no_tensors_keep_their_dtype():
    def function(x):
        return mb.upsample_nearest_neighbor(x=x, scale_factor_height=2.0, scale_factor_width=1.0, name="y")

    program = build(function)
    assert weight(program, "y", "scale_factor_height").dtype == np.float32
    assert weight(program, "y", "scale_factor_width").dtype == np.float32


def test_indices_stay_integers():
    program = build(lambda x: mb.gather(x=x, indices=[0, 2], axis=1, name="y"))
    assert weight(program, "y", "indices").dtype == np.int32


def test_mb_const_says_its_dtype_itself_and_the_error_says_the_way_out():
    with pytest.raises(errors.CompileError, match=r"fp32.*\.astype\(np\.float16\)") as caught:
        build(lambda x: mb.add(x=x, y=mb.const(val=np.float32(1))))
    assert isinstance(caught.value.__cause__, ValueError)


@pytest.mark.parametrize("value", [1e9, -1e9, 1e-12, np.float64(7e4), [0.0, 1e6]])
def test_a_constant_that_fp16_cannot_hold_is_refused_not_made_inf_or_zero(value):
    with pytest.raises(errors.CompileError, match=r"add 'y'.*constant y.*float16 holds"):
        build(lambda x: mb.add(x=x, y=value, name="y"), x=(2,))


@pytest.mark.parametrize("value", [np.inf, -np.inf, np.nan, 0.0, -0.0])
def test_infinities_nan_and_zeros_are_constants_like_others(value):
    program = build(lambda x: mb.add(x=x, y=value, name="y"))
    np.testing.assert_array_equal(weight(program, "y", "y"), np.float16(value))


def test_small_weights_may_round_to_zero():
    program = build(lambda x: mb.add(x=x, y=np.full(8, 1e-9), name="y"))
    assert not weight(program, "y", "y").any()


def test_integer_arrays_are_not_made_floats():
    with pytest.raises(errors.CompileError, match="int32"):
        build(lambda x: mb.add(x=x, y=np.arange(8, dtype=np.int32)))


def test_values_equal_what_coremltools_infers():
    @anex.graph(x=X)
    def program(x):
        constant = mb.const(val=np.linspace(-2, 2, 8).astype(np.float16))
        return mb.add(x=x, y=mb.mul(x=mb.exp(x=constant), y=0.5, name="half"), name="y")

    expected = np.exp(np.linspace(-2, 2, 8).astype(np.float16)) * np.float16(0.5)
    half = next(op for op in main(program).operations if op.name == "half")
    np.testing.assert_allclose(half.outputs[0].val, expected, rtol=1e-3)


def test_the_builder_is_untouched_afterwards():
    before = vars(mb)["_add_op"]
    build(lambda x: mb.add(x=x, y=1.0))
    with pytest.raises(errors.CompileError):
        build(lambda x: mb.add(x=x, y=1e9))
    assert vars(mb)["_add_op"] is before


# Errors ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("function", "message"),
    [
        (lambda x: mb.reshape(x=x, shape=[3, 3]), "reshape 'reshape_0'.*Invalid target shape"),
        (lambda x: mb.add(x=x, y=np.ones(5)), "add 'add_0'.*Incompatible dim 3"),
        (lambda x: mb.relu(x=x, name="r", foo=3), "relu 'r'.*Unknown input 'foo'"),
        (lambda x: mb.relu(), "relu_0.*Required input x is missing"),
        (lambda x: mb.conv(x=x, weight=np.ones((4, 3, 1, 1))), "C_in / groups"),
        (lambda x: mb.cast(x=x, dtype="fp99"), "cast 'cast_0'.*fp99"),
        (lambda x: mb.reshape(x=x, shape=[1, 1, 1, 4, 1, 8]), "rank 6"),
        (lambda x: 3, "returns int"),
        (lambda x: None, "returns NoneType"),
        (lambda x: (), "no output"),
        (lambda x: x, "'x' is an input too"),
        (lambda x: (mb.relu(x=x, name="y"), mb.exp(x=x, name="y")), "'y' is another output too"),
        (lambda x: mb.relu(x=x, name="x"), "'x' is an input too"),
    ],
)
def test_what_the_builder_refuses_is_a_compile_error_that_names_the_graph(function, message):
    with pytest.raises(errors.CompileError, match=message):
        build(function)


def test_an_op_nobody_knows_is_unsupported():
    with pytest.raises(errors.UnsupportedError, match=r"graph 'wrong': nobody knows the op 'frobnicate'"):

        @anex.graph(x=X)
        def wrong(x):
            return mb.frobnicate(x=x)


def test_an_op_newer_than_the_target_is_a_compile_error_that_says_which_target_has_it():
    with pytest.raises(errors.CompileError, match="iOS18"):
        anex.graph("iOS17", x=X)(lambda x: mb.scaled_dot_product_attention(query=x, key=x, value=x))


@pytest.mark.parametrize("error", [ZeroDivisionError, KeyError, ValueError, TypeError])
def test_errors_of_the_functions_own_stay_as_they_are(error):
    def body(i):
        raise error("mine")

    def looping(x):
        start = mb.reduce_sum(x=x, keep_dims=False)
        return mb.while_loop(_cond=lambda i: mb.less(x=i, y=3.0), _body=body, loop_vars=(start,))

    for function in (body, looping):
        with pytest.raises(error) as caught:
            anex.graph(**{"i" if function is body else "x": X})(function)
        assert type(caught.value) is error


def test_numpys_errors_in_the_function_stay_numpys():
    with pytest.raises(ValueError, match="broadcast") as caught:
        build(lambda x: mb.add(x=x, y=np.ones(3) + np.ones(4)))
    assert not isinstance(caught.value, errors.Error)


def test_the_inputs_must_be_the_functions_parameters():
    with pytest.raises(errors.ArgumentError, match=r"missing a required argument: 'y'.*given are \(x\)"):
        build(lambda y: mb.relu(x=y))


def test_the_next_graph_builds_after_one_that_failed():
    with pytest.raises(errors.CompileError):
        build(lambda x: mb.reshape(x=x, shape=[3]))
    assert outputs(build(lambda x: mb.relu(x=x)))


@pytest.mark.parametrize("name", ["state", "bool", "größe"])
def test_an_input_name_that_mil_text_cannot_hold_is_refused_with_another(name):
    with pytest.raises(errors.ArgumentError, match="would do"):
        anex.graph(**{name: X})(lambda **inputs: mb.relu(x=inputs[name]))


# Specs -------------------------------------------------------------------------------------------


def test_a_spec_is_a_value():
    assert spec([2, np.int64(3)]) == Spec((2, 3), np.dtype("float16"))
    assert hash(spec(3, "int32")) == hash(spec((3,), np.int32))
    assert repr(spec((), bool)) == "Spec((), bool)"
    with pytest.raises(AttributeError):
        spec(3).shape = (4,)


@pytest.mark.parametrize(
    ("shape", "reason"),
    [
        ((0,), "0 is not a size"),
        ((2, -1), "-1 is not a size"),
        ((None, 3), "static shapes"),
        (("batch", 3), "static shapes"),
        ((2.0,), "static shapes"),
        ((True,), "static shapes"),
        ((ct.RangeDim(1, 8),), "static shapes"),
        ((1,) * 6, "rank 6"),
        ("123", "string"),
        (None, "static shapes"),
    ],
)
def test_a_shape_that_is_none_is_refused_with_the_reason(shape, reason):
    with pytest.raises(errors.ShapeError, match=reason):
        spec(shape)


@pytest.mark.parametrize(
    ("dtype", "reason"),
    [
        ("float64", "use float32"),
        (np.int64, "use int32"),
        (int, "use int32"),
        (None, "use float32"),
        (complex, "one of float16"),
        ("U3", "one of"),
        (">f2", "one of"),
        ("nonsense", "not a dtype"),
    ],
)
def test_a_dtype_core_ml_does_not_have_is_refused_with_one_it_has(dtype, reason):
    with pytest.raises(errors.DTypeError, match=reason):
        spec(3, dtype)


def test_rank_0_inputs_are_refused():
    with pytest.raises(errors.ShapeError, match="rank 0"):
        anex.graph(x=())


# The process around ------------------------------------------------------------------------------


def run(code):
    env = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}  # with coremltools' torch frontend
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, env=env)


def test_building_and_saving_prints_nothing(tmp_path):
    result = run(f"""
import numpy as np
import anex, anex.build, anex.load, anex.store
def function(x, unused):
    from coremltools.converters.mil.mil import Builder as mb
    return mb.greater(x=mb.silu(x=x), y=1.0, name="7:y")
program = anex.build.graph(x=(1, 4, 1, 8), unused=(3,))(function)
anex.store.save(program, {str(tmp_path / "p.mlpackage")!r})
anex.load.from_mlpackage({str(tmp_path / "p.mlpackage")!r})
import torch
class Module(torch.nn.Module):
    def forward(self, x):
        return x * float(x.sum())
anex.build.from_torch(Module(), x=(1, 4))
""")
    assert (result.stdout, result.stderr) == ("", "")


def test_coremltools_and_torch_are_imported_at_first_use_only():
    code = "import sys, anex.build, anex.load, anex.store; print({'coremltools', 'torch'} & set(sys.modules))"
    assert run(code).stdout.strip() == "set()"


def test_building_and_compiling_leave_coremltools_as_it_was():
    from coremltools.converters.mil.mil.types import is_tensor

    seen = []

    @anex.graph(x=(1, 2))
    def twice(x):
        seen.append(types.is_tensor)
        return mb.add(x=x, y=x)

    anex.compile(twice)
    assert seen[0](types.tensor(types.fp16, (1, 2)))
    assert not seen[0](types.fp16)
    assert not seen[0](None)
    assert not seen[0]([])
    assert types.is_tensor is is_tensor
