"""The vectorised float functions against float64, in units in the last place of float32."""

import math

import numpy as np
import pytest
from test_elementwise import alone

from anex import _native

# numpy, the reference, warns about what is tested here on purpose
pytestmark = pytest.mark.filterwarnings("ignore:.*encountered in:RuntimeWarning")

# op: (the function in float64, largest error allowed in units in the last place)
FUNCTIONS = {
    "acos": (np.arccos, 1.5), "asin": (np.arcsin, 2.5), "atan": (np.arctan, 1.5), "atanh": (np.arctanh, 3),
    "ceil": (np.ceil, 0), "cos": (np.cos, 2), "cosh": (np.cosh, 2), "erf": (np.vectorize(math.erf), 3),
    "exp": (np.exp, 1.2), "exp2": (np.exp2, 1.2), "floor": (np.floor, 0), "round": (np.round, 0), "sin": (np.sin, 2),
    "sinh": (np.sinh, 3), "softplus": (lambda x: np.logaddexp(0, x), 2.5), "sqrt": (np.sqrt, 0.51), "tan": (np.tan, 4),
    "tanh": (np.tanh, 3), "sigmoid": (lambda x: np.exp(-np.logaddexp(0, -x)), 3),
}  # fmt: skip
SPECIAL = [0.0, -0.0, 1, -1, 0.5, -0.5, np.inf, -np.inf, np.nan, 1e-45, -1e-45, 1.17e-38, 3.4e38, -3.4e38,
           88.72283, 88.72284, 89.415985, 89.41599, -87.33655, -103.97208, -103.97209, 127.99999, 128]  # fmt: skip


@pytest.fixture(scope="module")
def samples():
    """Every exponent and sign, dense around the places where functions change, and special values."""
    rng = np.random.default_rng(7)
    bits = rng.integers(0, 2**32, 60_000, dtype=np.uint64).astype(np.uint32).view(np.float32)
    near = np.concatenate([rng.uniform(-size, size, 20_000) for size in (0.01, 1, 4, 20, 110, 1e5)])
    return np.concatenate([np.array(SPECIAL, np.float32), near.astype(np.float32), bits])


def compare(found, wanted, allowed, *at):
    """NaNs, infinities and signs equal; elsewhere within ``allowed`` units in the last place of ``wanted``."""
    with np.errstate(over="ignore"):
        rounded = wanted.astype(np.float32)
    np.testing.assert_array_equal(np.isnan(found), np.isnan(rounded))
    number = ~np.isnan(rounded)
    np.testing.assert_array_equal(np.signbit(found[number]), np.signbit(rounded[number]))
    np.testing.assert_array_equal(np.isinf(found), np.isinf(rounded))
    finite = np.isfinite(rounded)
    error = np.abs(found[finite] - wanted[finite]) / np.spacing(np.abs(rounded[finite])).astype(np.float64)
    worst = int(error.argmax())
    where = [x[finite][worst] for x in at]
    left, right = found[finite][worst], wanted[finite][worst]
    assert error[worst] <= allowed, f"{error[worst]:.2f} units at {where}: {left!r}, {right!r}"


@pytest.mark.parametrize("isa", _native.instruction_sets())
@pytest.mark.parametrize("op", sorted(FUNCTIONS))
def test_functions_are_within_a_few_units_in_the_last_place(samples, op, isa):
    function, allowed = FUNCTIONS[op]
    with np.errstate(all="ignore"):
        compare(alone(op, samples, dtype="float32", isa=isa), function(samples.astype(np.float64)), allowed, samples)


@pytest.mark.parametrize("isa", _native.instruction_sets())
def test_log_is_within_a_unit_in_the_last_place(samples, isa):
    found = alone("log", samples, dtype="float32", isa=isa, extra=(np.float32(0),))
    with np.errstate(all="ignore"):
        compare(found, np.log(samples.astype(np.float64)), 1.0, samples)


@pytest.mark.parametrize("isa", _native.instruction_sets())
def test_elu_is_expm1_within_two_units_in_the_last_place(samples, isa):
    found = alone("elu", samples, dtype="float32", isa=isa, extra=(np.float32(1),))
    x = samples.astype(np.float64)
    with np.errstate(all="ignore"):
        compare(found, np.where(x < 0, np.expm1(x), x), 2, samples)


@pytest.mark.parametrize("isa", _native.instruction_sets())
def test_pow_is_rounded_almost_correctly(samples, isa):
    rng = np.random.default_rng(8)
    special = np.array([*SPECIAL, 2, 3, -3, 1.5, 1e10, 2**24 + 2, -7], np.float32)
    size = samples.size
    positive = rng.uniform(0, 4, size).astype(np.float32)
    x = np.concatenate([np.repeat(special, special.size), samples, np.abs(samples), positive])
    y = np.concatenate([
        np.tile(special, special.size), rng.integers(-20, 20, size).astype(np.float32),
        rng.normal(size=size).astype(np.float32), rng.uniform(-70, 70, size).astype(np.float32),
    ])  # fmt: skip
    found = alone("pow", x, y, dtype="float32", isa=isa)
    with np.errstate(all="ignore"):
        compare(found, np.power(x.astype(np.float64), y.astype(np.float64)), 0.51, x, y)
