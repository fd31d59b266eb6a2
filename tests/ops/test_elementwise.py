"""Elementwise ops of one operand: values, special values, dtypes, casts, errors."""

import numpy as np
import pytest
from harness import check, run, tolerance
from hypothesis import given, settings
from hypothesis import strategies as st

import anex
from anex import _native

# numpy, the reference, warns about what is tested here on purpose
pytestmark = pytest.mark.filterwarnings("ignore:.*encountered in:RuntimeWarning")

ANYWHERE = [
    "abs", "atan", "ceil", "cos", "erf", "exp", "exp2", "floor", "round", "sign", "sin", "square", "tan", "tanh",
]  # fmt: skip
DOMAIN = {
    "acos": (-1, 1), "asin": (-1, 1), "atanh": (-0.98, 0.98), "cosh": (-5, 5), "inverse": (0.5, 3), "log": (0.01, 9),
    "rsqrt": (0.1, 9), "sinh": (-5, 5), "sqrt": (0, 9),
}  # fmt: skip
RANGES = {op: (-4, 4) for op in ANYWHERE} | DOMAIN
INTEGERS = ["int8", "uint8", "int16", "uint16", "int32"]


def alone(op, *arrays, dtype, shape=None, isa=None, extra=()):
    """One kernel without MIL, which allows fewer dtypes than the engine; ``extra``: constants behind the arrays."""
    plan = _native.Plan(isa)
    inputs = [plan.add_input(f"x{i}", x.shape, x.dtype.name) for i, x in enumerate(arrays)]
    constants = [plan.add_constant(value) for value in extra]
    shape = np.broadcast_shapes(*(x.shape for x in arrays)) if shape is None else shape
    y = plan.add_value(shape, dtype)
    plan.add_op(op, "y", inputs + constants, [], [y])
    plan.finish([("y", y)])
    return np.array(plan.run(arrays))


# ---- values ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("shape", [(1,), (3,), (17,), (33, 1), (2, 3, 5), (1, 4, 1, 33), (2, 1, 3, 1, 7)])
@pytest.mark.parametrize("op", ANYWHERE + sorted(DOMAIN))
def test_unary_ops_agree_with_coremltools(device, rng, op, shape):
    check(op, x=rng.uniform(*RANGES[op], shape), device=device)


@pytest.mark.parametrize("op", ["exp", "sqrt", "sin", "abs"])
def test_unary_ops_of_tensors_that_are_split_among_threads(device, rng, op):
    x = rng.uniform(*RANGES[op], (3, 257, 1031))
    check(op, x=x, device=device, dtype="float16", expected=lambda x: getattr(np, op)(x))


@pytest.mark.parametrize("op", ["inverse", "log", "rsqrt"])
@pytest.mark.parametrize("opset", ["iOS15", "iOS17"])
def test_epsilon_is_added_first(device, rng, op, opset):
    check(op, x=rng.uniform(0.1, 2, (5, 7)), epsilon=np.float32(0.5), device=device, opset=opset, dtype="float32")


def test_epsilon_may_have_another_dtype(device, rng):
    def expected(x, epsilon):
        return (x + epsilon) ** -0.5

    x = rng.uniform(0.1, 2, (5, 7))
    check("rsqrt", x=x, epsilon=np.float32(0.25), device=device, dtype="float16", expected=expected)


def test_log_of_zero_is_the_log_of_epsilon(device):
    (y,) = run("log", x=np.zeros(3, np.float32), device=device)
    np.testing.assert_allclose(y, np.log(np.float64(np.float32(1e-45))), rtol=tolerance(1e-6))


def test_round_goes_to_even_and_keeps_the_sign_of_zero(device):
    x = np.array([-2.5, -1.5, -0.5, -0.2, -0.0, 0.5, 1.5, 2.5, 3.5, 1e7, np.inf, np.nan])
    check("round", x=x, device=device, rtol=0)
    (y,) = run("round", x=x.astype(np.float32), device=device)
    np.testing.assert_array_equal(np.signbit(y), np.signbit(np.round(x)))


@pytest.mark.parametrize(
    "op", ["exp", "log", "sqrt", "rsqrt", "inverse", "tanh", "erf", "sin", "sign", "floor", "ceil", "abs"]
)
def test_special_values_are_numpys(device, op):
    x = np.array([0.0, -0.0, 1, -1, np.inf, -np.inf, np.nan, 65504, -65504, 6e-8])
    with np.errstate(all="ignore"):
        check(op, x=x, device=device, dtype="float32", atol=1e-30)


@pytest.mark.parametrize("op", ["sin", "cos", "tan"])
def test_trigonometry_of_huge_values(device, rng, op):
    x = np.concatenate([rng.uniform(-2e6, 2e6, 500), 10.0 ** rng.uniform(5, 38, 500), [np.inf]]).astype(np.float32)
    with np.errstate(invalid="ignore"):
        check(op, x=x, device=device, dtype="float32", rtol=1e-6, atol=1e-9, expected=lambda x: getattr(np, op)(x))


@pytest.mark.parametrize("op", ["abs", "sign", "square"])
def test_integers_wrap_around_as_numpys_do(device, rng, op):
    x = rng.integers(-(2**31), 2**31, (3, 50), dtype=np.int64).astype(np.int32)
    x[0, :4] = [-(2**31), -1, 0, 1]
    check(op, x=x, device=device)


def test_exp2_of_integers_saturates(device):
    x = np.array([-40, -1, 0, 1, 5, 30, 31, 100], np.int32)
    check("exp2", x=x, device=device, expected=np.array([0, 0, 1, 2, 32, 2**30, 2**31 - 1, 2**31 - 1]))


@pytest.mark.parametrize("opset", ["iOS15", "iOS17"])
def test_clip(device, rng, opset):
    x = rng.normal(size=(4, 33)) * 3
    x[0, :3] = [np.nan, np.inf, -np.inf]
    check("clip", x=x, alpha=np.float32(-1.5), beta=np.float32(2), device=device, opset=opset, dtype="float32")


def test_clip_and_threshold_of_integers(rng, device):
    x = rng.integers(-(2**31), 2**31, 100).astype(np.int32)
    low, high = np.int32(-(2**30) - 1), np.int32(2**30 + 1)  # not floats
    np.testing.assert_array_equal(alone("clip", x, dtype="int32", extra=(low, high)), np.clip(x, low, high))
    check("threshold", x=x, alpha=high, device=device)


def test_threshold(device, rng):
    check("threshold", x=rng.normal(size=(4, 33)), alpha=np.float32(0.25), device=device, dtype="float32")


def test_logical_not(device, rng):
    check("logical_not", x=rng.random((3, 40)) < 0.5, device=device)


@pytest.mark.parametrize("isa", _native.instruction_sets())
@pytest.mark.parametrize("dtype", ["float16", "float32"])
def test_results_are_the_same_bits_in_every_instruction_set(rng, isa, dtype):
    x = rng.uniform(-5, 5, (7, 211)).astype(dtype)
    shorter = [] if dtype == "float16" else ["sigmoid", "gelu"]  # csrc/cpu/quick.h: of float16 only strict plans' agree
    for op in ["abs", "exp", "tanh", "erf", "sin", "atan", "round", "softplus", *shorter]:
        bits, wanted = (run(op, x=x, isa=name)[0].view(f"u{x.itemsize}") for name in (isa, "generic"))
        np.testing.assert_array_equal(bits, wanted, err_msg=op)


# ---- cast -----------------------------------------------------------------------------------------


def saturated(x, dtype):
    """Toward zero, to the ends of the range beyond it, NaN to 0."""
    info = np.iinfo(dtype)
    return np.array([0 if np.isnan(v) else int(min(max(v, info.min), info.max)) for v in x.tolist()], dtype)


@pytest.mark.parametrize("to", ["fp16", "fp32", "bool", *INTEGERS])
@pytest.mark.parametrize("dtype", ["float16", "float32", "bool", *INTEGERS])
def test_cast_of_values_that_fit_everywhere(device, rng, dtype, to):
    x = rng.integers(0, 100, (3, 37)).astype(dtype)
    (y,) = run("cast", x=x, dtype=to, device=device)
    name = {"fp16": "float16", "fp32": "float32"}.get(to, to)
    assert y.dtype.name == name
    np.testing.assert_array_equal(y, x.astype(name))


@pytest.mark.parametrize("to", [*INTEGERS, "uint32"])
@pytest.mark.parametrize("dtype", ["float16", "float32"])
def test_cast_from_floats_truncates_and_saturates(rng, dtype, to):
    ends = [float(v) for v in (np.iinfo(to).min, np.iinfo(to).max)]
    x = np.concatenate([
        [0, -0.0, 0.9, -0.9, 1.5, -1.5, np.nan, np.inf, -np.inf],
        [*ends, ends[0] - 1, ends[1] + 1, 2.0**31, -(2.0**31), 2.0**32],
        rng.uniform(-300, 300, 100), rng.uniform(-70000, 70000, 100), rng.uniform(-5e9, 5e9, 100),
    ])  # fmt: skip
    with np.errstate(over="ignore"):
        x = x.astype(dtype)
    np.testing.assert_array_equal(alone("cast", x, dtype=to), saturated(x.astype(np.float64), to))


@pytest.mark.parametrize("to", ["bool", "float16", "float32", "uint32", *INTEGERS])
@pytest.mark.parametrize("dtype", ["uint32", *INTEGERS])
def test_cast_from_integers_keeps_the_low_bits(rng, dtype, to):
    info = np.iinfo(dtype)
    x = rng.integers(info.min, info.max, 300, dtype=np.int64, endpoint=True).astype(dtype)
    x[:3] = [info.min, info.max, 0]
    with np.errstate(over="ignore"):
        wanted = x.astype(np.float32).astype(to) if to == "float16" else x.astype(to)
    np.testing.assert_array_equal(alone("cast", x, dtype=to), wanted)


def test_a_nan_is_true(device):
    (y,) = run("cast", x=np.array([np.nan, 0, -0.0, 1e-7], np.float32), dtype="bool", device=device)
    assert y.tolist() == [True, False, False, True]


@settings(max_examples=30, deadline=None)
@given(x=st.lists(st.floats(width=32, allow_subnormal=False), min_size=1, max_size=70))
def test_cast_to_float16_rounds_as_numpy_does(x):
    x = np.array(x, np.float32)
    with np.errstate(over="ignore"):
        np.testing.assert_array_equal(*run("cast", x=x, dtype="fp16"), x.astype(np.float16))


# ---- errors ---------------------------------------------------------------------------------------


def test_a_dtype_without_meaning_for_the_op_is_refused():
    with pytest.raises(anex.UnsupportedError, match=r"exp \"y\": .*no kernel for int32"):
        alone("exp", np.zeros(3, np.int32), dtype="int32")


def test_a_shape_that_does_not_broadcast_is_refused():
    with pytest.raises(anex.Error, match=r"\(3, 2\) does not broadcast to the result's shape \(4\)"):
        alone("exp", np.zeros((3, 2), np.float32), dtype="float32", shape=(4,))
