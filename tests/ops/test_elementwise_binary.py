"""Elementwise ops of two operands and select: broadcasting, dtypes, division, comparisons, powers."""

import itertools

import numpy as np
import pytest
from harness import check, run
from hypothesis import given, settings
from hypothesis import strategies as st
from test_elementwise import INTEGERS, alone

import anex
from anex import _native

# numpy, the reference, warns about what is tested here on purpose
pytestmark = pytest.mark.filterwarnings("ignore:.*encountered in:RuntimeWarning")

ARITHMETIC = ["add", "sub", "mul", "maximum", "minimum"]
DIVISION = ["real_div", "floor_div", "mod"]
COMPARISONS = ["equal", "not_equal", "greater", "greater_equal", "less", "less_equal"]
LOGICAL = ["logical_and", "logical_or", "logical_xor"]
INT32 = np.array([-(2**31), -(2**31) + 1, -65537, -7, -3, -2, -1, 0, 1, 2, 3, 7, 46341, 65536, 2**31 - 1], np.int32)


def pairs(values):
    """Every ordered pair of ``values``, as two arrays."""
    return tuple(np.array(side) for side in zip(*itertools.product(values, values), strict=True))


# ---- broadcasting ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("x", "y"),
    [((5,), (5,)), ((5,), (1,)), ((1,), (7,)), ((33, 17), (17,)), ((33, 17), (33, 1)), ((33, 1), (1, 17)),
     ((2, 3, 4, 5), (3, 1, 1)), ((2, 3, 4, 5), (1, 1, 4, 1)), ((2, 3, 4, 1), (1, 1, 4, 1)),
     ((2, 3, 4, 5), (2, 1, 4, 1)), ((2, 3, 4, 5), (1, 3, 1, 5)), ((7, 1, 5, 1, 3), (1, 4, 1, 2, 1)),
     ((300, 2), (2,)), ((300, 2), (300, 1)), ((9, 8, 7, 16), (8, 1, 16)), ((5, 400, 2, 3), (400, 1, 3)),
     ((40, 16, 2), (16, 1)), ((40, 1, 2), (16, 1)), ((3, 1500), (3, 1)), ((3, 1500), (1500,)), ((3, 1, 700), (1, 2, 1)),
     ((1, 64, 1, 32), (1, 64, 1, 32)), ((2, 700, 9), (700, 1)), ((1, 8, 1, 300), (1, 1, 6, 1)), ((64, 255), (255,))],
)  # fmt: skip
@pytest.mark.parametrize("dtype", ["float16", "float32", "int32"])
def test_operands_broadcast_either_way(device, rng, x, y, dtype):
    x, y = (rng.integers(-50, 50, shape).astype(dtype) for shape in (x, y))
    for a, b in ((x, y), (y, x)):
        np.testing.assert_array_equal(*run("sub", x=a, y=b, device=device), a - b)


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_any_shapes_that_broadcast(data):
    sizes = st.lists(st.sampled_from([1, 2, 3, 5, 16, 40, 300]), min_size=1, max_size=5)
    shape = data.draw(sizes.filter(lambda shape: np.prod(shape) < 50_000))
    masks = [data.draw(st.lists(st.booleans(), min_size=len(shape), max_size=len(shape))) for _ in range(3)]
    skips = [data.draw(st.integers(0, len(shape) - 1)) for _ in range(3)]
    shapes = [[n if keep else 1 for n, keep in zip(shape, mask, strict=True)] for mask in masks]
    rng = np.random.default_rng(0)
    x, y, c = (rng.integers(-9, 9, s[skip:]).astype("float16") for s, skip in zip(shapes, skips, strict=True))
    np.testing.assert_array_equal(*run("sub", x=x, y=y), x - y)
    wanted = np.where(c > 0, x, y)
    np.testing.assert_array_equal(alone("select", c > 0, x, y, dtype="float16", shape=wanted.shape), wanted)


@pytest.mark.parametrize("y", [(1, 512, 1, 1), (1, 1, 1, 700), (1, 512, 1, 700), (1,), (2, 1, 3, 1), (3, 1)])
def test_broadcasting_in_large_tensors_split_among_threads(device, rng, y):
    x, y = rng.normal(size=(2, 512, 3, 700)), rng.normal(size=y)
    check("mul", x=x, y=y, device=device, dtype="float16", expected=lambda x, y: x * y)


@pytest.mark.parametrize("constant", ["x", "y"])
def test_one_operand_may_be_constant(device, rng, constant):
    x, y = rng.normal(size=(2, 3, 4, 5)), rng.normal(size=(3, 1, 1))
    check("sub", x=x, y=y, constants=(constant,), device=device)
    check("add", x=x, y=np.float32(1.5), device=device, dtype="float32")
    check("real_div", x=np.float32(1.5), y=x, device=device, dtype="float32")


# ---- arithmetic -----------------------------------------------------------------------------------


@pytest.mark.parametrize("op", ARITHMETIC + DIVISION + COMPARISONS)
def test_binary_ops_of_floats(device, rng, op):
    check(op, x=rng.normal(size=(3, 33)), y=rng.normal(size=(3, 33)), device=device)


@pytest.mark.parametrize("op", ARITHMETIC + COMPARISONS + ["floor_div", "mod"])
def test_binary_ops_of_int32_at_its_ends(device, op):
    x, y = pairs(INT32)
    with np.errstate(all="ignore"):
        check(op, x=x, y=y, device=device)


def test_real_div_of_int32_rounds_toward_zero(device):
    x, y = pairs(INT32)
    a, b = x.astype(np.int64), y.astype(np.int64)
    wanted = np.where(b == 0, 0, np.sign(a) * np.sign(b) * (np.abs(a) // np.maximum(np.abs(b), 1)))
    check("real_div", x=x, y=y, device=device, expected=wanted.astype(np.int32))


@pytest.mark.parametrize("op", [*ARITHMETIC, *COMPARISONS, "floor_div", "mod"])
@pytest.mark.parametrize("dtype", INTEGERS)
def test_binary_ops_of_every_integer_width(rng, op, dtype):
    info = np.iinfo(dtype)
    x, y = (rng.integers(info.min, info.max, 200, dtype=np.int64, endpoint=True).astype(dtype) for _ in range(2))
    function = {"sub": np.subtract, "mul": np.multiply, "floor_div": np.floor_divide}.get(op, getattr(np, op, None))
    with np.errstate(all="ignore"):
        wanted = function(x, y)
    np.testing.assert_array_equal(alone(op, x, y, dtype=wanted.dtype.name), wanted)


@pytest.mark.cpu_engine
@pytest.mark.parametrize("op", ["floor_div", "mod"])
@pytest.mark.parametrize("dtype", ["float16", "float32"])
def test_division_with_a_remainder_is_numpys(device, rng, op, dtype):
    special = [0.0, -0.0, 1, -1, 2.5, -2.5, 0.1, 1e-3, 6e4, -6e4, np.inf, -np.inf, np.nan]
    x, y = pairs(special)
    wide = rng.normal(size=(2, 400)) * 10.0 ** rng.uniform(-4, 4, (2, 400))
    huge = rng.normal(size=(2, 200)) * 10.0 ** rng.uniform(-30, 30, (2, 200)) * (dtype == "float32")
    x, y = (np.concatenate(parts).astype(dtype) for parts in ((x, wide[0], huge[0]), (y, wide[1], huge[1])))
    with np.errstate(all="ignore"):
        wanted = (np.floor_divide if op == "floor_div" else np.mod)(x.astype(np.float32), y.astype(np.float32))
        wanted = wanted.astype(dtype)
    (found,) = run(op, x=x, y=y, device=device)
    np.testing.assert_array_equal(found, wanted)
    zeros = wanted == 0
    np.testing.assert_array_equal(np.signbit(found[zeros]), np.signbit(wanted[zeros]))


@pytest.mark.parametrize("op", ["maximum", "minimum"])
def test_a_nan_wins(device, op):
    x, y = pairs([np.nan, 1.0, -1.0, np.inf, -np.inf])
    check(op, x=x, y=y, device=device, rtol=0)


@pytest.mark.parametrize("op", COMPARISONS)
def test_comparisons_of_special_values(device, op):
    x, y = pairs([np.nan, 0.0, -0.0, 1.0, np.inf, -np.inf])
    check(op, x=x, y=y, device=device)


@pytest.mark.parametrize("op", LOGICAL)
def test_logical_ops_broadcast(device, rng, op):
    check(op, x=rng.random((3, 1, 40)) < 0.5, y=rng.random((5, 1)) < 0.5, device=device)


# ---- pow ------------------------------------------------------------------------------------------


def test_pow_of_floats(device, rng):
    check("pow", x=rng.uniform(0, 3, (3, 33)), y=rng.uniform(-3, 3, (3, 33)), device=device)
    x, y = pairs([0.0, -0.0, 1.0, -1.0, 2.0, -2.0, 3.0, 0.5, -0.5, 1e10, -1e10, np.inf, -np.inf, np.nan])
    with np.errstate(all="ignore"):
        check("pow", x=x, y=y, device=device, dtype="float32", expected=lambda x, y: np.power(x, y))


@pytest.mark.parametrize("y", [2.0, -1.0, 0.5, 3.0, 0.0])
def test_pow_by_a_constant(device, rng, y):
    x = np.concatenate([rng.uniform(0, 5, 50), [0.0, -0.0, np.inf, -np.inf, np.nan]]).astype(np.float32)
    with np.errstate(all="ignore"):
        wanted = np.power(x, np.full_like(x, y))  # x ** 0.5 would be a square root, which is NaN at -inf
    check("pow", x=x, y=np.float32(y), device=device, dtype="float32", rtol=1e-6, expected=wanted)


def test_pow_of_int32(device):
    x, y = pairs(INT32)
    wanted = np.where(x == 1, 1, np.where(x == -1, np.where(y % 2 == 0, 1, -1), 0))
    with np.errstate(all="ignore"):
        wanted = np.where(y < 0, wanted, np.power(x, np.maximum(y, 0))).astype(np.int32)
    check("pow", x=x, y=y, device=device, expected=wanted)


# ---- select ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", ["float16", "float32", "bool", "int32"])
def test_select_of_every_dtype(device, rng, dtype):
    cond, a, b = rng.random((3, 1, 33)) < 0.5, rng.integers(0, 2, (5, 33)).astype(dtype), np.ones((3, 5, 1), dtype)
    check("select", cond=cond, a=a, b=b, device=device)


@pytest.mark.parametrize("dtype", ["int8", "uint8", "int16", "uint16", "uint32"])
def test_select_of_integers_of_other_widths(rng, dtype):
    info = np.iinfo(dtype)
    cond, (a, b) = rng.random(99) < 0.5, rng.integers(info.min, info.max, (2, 99), dtype=np.int64).astype(dtype)
    np.testing.assert_array_equal(alone("select", cond, a, b, dtype=dtype), np.where(cond, a, b))


@pytest.mark.parametrize("isa", _native.instruction_sets())
def test_select_moves_bits_whatever_they_mean(isa):
    bits = np.arange(2**16, dtype=np.uint16).view(np.float16)
    cond = np.arange(2**16) % 3 == 0
    found = alone("select", cond, bits, bits[::-1].copy(), dtype="float16", isa=isa)
    np.testing.assert_array_equal(
        found.view(np.uint16), np.where(cond, bits.view(np.uint16), bits[::-1].view(np.uint16))
    )


# ---- errors ---------------------------------------------------------------------------------------


def test_operands_of_two_kinds_are_refused():
    with pytest.raises(anex.Error, match=r"add \"y\": the operands are float32 and int32; cast one"):
        alone("add", np.zeros(3, np.float32), np.zeros(3, np.int32), dtype="float32")


def test_operands_that_do_not_broadcast_are_refused():
    with pytest.raises(anex.Error, match=r"\(3\) does not broadcast to the result's shape \(2, 4\)"):
        alone("add", np.zeros((2, 4), np.float32), np.zeros(3, np.float32), dtype="float32", shape=(2, 4))


def test_select_refuses_values_of_two_dtypes():
    arrays = np.zeros(3, bool), np.zeros(3, np.float16), np.zeros(3, np.float32)
    with pytest.raises(anex.Error, match=r"cond is bool, a float16 and b float32"):
        alone("select", *arrays, dtype="float32")
