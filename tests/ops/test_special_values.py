"""Every elementwise op on NaN, infinities, zeros of both signs, subnormals and the ends of the integers.

The expectation is what coremltools itself computes for constants (``value_inference``). Where that is not
to be followed, ``OTHERWISE`` and ``OPEN_SIGN`` say so and why.
"""

from __future__ import annotations

import itertools
from typing import Any

import harness
import numpy as np
import pytest
from coremltools.converters.mil.mil.ops.registry import SSAOpRegistry

from anex import _native
from anex.devices.fuse import ELEMENTWISE

FLOATS = [
    np.nan,
    np.inf,
    0.0,
    1,
    0.5,
    1.5,
    2.5,
    3,
    20,
    88.8,
    100,
    65504,
    2.0**-24,
    2.0**-14,
    1e-38,
    1e-45,
    1e38,
    3.4e38,
]
INT32 = [-(2**31), -(2**31) + 1, -7, -3, -2, -1, 0, 1, 2, 3, 7, 30, 46341, 2**31 - 1]
DTYPES = ("float16", "float32", "int32", "int8", "uint8", "int16", "uint16", "bool")
PARAMETERS: dict[str, dict[str, float]] = {
    "leaky_relu": {"alpha": 0.1}, "thresholded_relu": {"alpha": 0.5}, "elu": {"alpha": 1.5}, "threshold": {"alpha": 1},
    "clip": {"alpha": 1, "beta": 2}, "clamped_relu": {"alpha": 0.5, "beta": 2},
    "scaled_tanh": {"alpha": 2, "beta": 0.5},
    "linear_activation": {"alpha": 2, "beta": 1}, "sigmoid_hard": {"alpha": 0.2, "beta": 0.5}, "prelu": {"alpha": 0.5},
    "softplus_parametric": {"alpha": 0.5, "beta": 2},
}  # fmt: skip

# IEEE leaves open which zero is the larger, and numpy answers by dtype and vector: any sign of zero is right.
OPEN_SIGN = {"maximum", "minimum", "relu", "relu6", "prelu", "clamped_relu", "leaky_relu", "clip", "threshold"}
# Inference adds to 1 and subtracts it again, or rounds twice; the engine does not: near enough to zero is right.
CANCELS = {"elu", "softplus", "softplus_parametric", "sigmoid", "sigmoid_hard", "scaled_tanh", "silu"}

with np.errstate(all="ignore"):
    OTHERWISE = {
        # 2^31 and infinity cast to int32, which C and numpy leave undefined: here the nearest int32
        ("exp2", "int32"): lambda x: np.minimum(2.0 ** np.minimum(x, 31), 2**31 - 1).astype("int32"),
        # a quotient by zero, and -2^31 / -1, cast to int32, undefined again: 0 and -2^31 as floor_div gives
        ("real_div", "int32"): lambda x, y: (
            np.where(y == 0, 0, np.trunc(x / np.where(y == 0, 1, y).astype("f8"))).astype("int64").astype("int32")
        ),
        # no inference: numpy's powers, and 1 / x^-y cut to an integer
        ("pow", "int32"): lambda x, y: np.array([power(int(a), int(b)) for a, b in zip(x, y, strict=True)], "int32"),
        # no inference: the formula that coremltools documents
        ("silu", "float16"): lambda x: (x.astype("f8") / (1 + np.exp(-x.astype("f8")))).astype("f2"),
        ("silu", "float32"): lambda x: (x.astype("f8") / (1 + np.exp(-x.astype("f8")))).astype("f4"),
        # inference overflows where alpha * log(1 + exp(beta * x)) does not
        ("softplus_parametric", "float16"): lambda x, **_: softplus_of(x).astype("f2"),
        ("softplus_parametric", "float32"): lambda x, **_: softplus_of(x).astype("f4"),
    }


def power(a: int, b: int) -> int:
    """Modulo 2^32; a negative power of 1 or -1 is one of them, of others 0."""
    if b < 0:
        return 0 if abs(a) != 1 else a if b % 2 else 1
    return (pow(a, b, 2**32) + 2**31) % 2**32 - 2**31


def softplus_of(x: np.ndarray) -> np.ndarray:
    return 0.5 * np.logaddexp(0, (np.float32(2) * x.astype("f4")).astype("f8"))


def special(dtype: str) -> np.ndarray:
    if dtype == "bool":
        return np.array([False, True])
    if dtype == "int32":
        return np.array(INT32, dtype)
    if dtype.startswith("float"):
        with np.errstate(over="ignore"):
            values = np.array([*FLOATS, *(-v for v in FLOATS)]).astype(dtype)
        return np.unique(values.view(f"u{values.itemsize}")).view(dtype)
    info = np.iinfo(dtype)
    return np.array([info.min, info.min + 1, 0, 1, 2, 7, info.max - 1, info.max], dtype)


def arguments(op: str, dtype: str) -> dict[str, Any]:
    """The special values, or all pairs of them."""
    names = {name for cls in SSAOpRegistry.core_ops[op].values() for name in cls.input_spec.input_types}
    x = special(dtype)
    pairs = [np.array(side, dtype) for side in zip(*itertools.product(x, x), strict=True)]
    if "y" in names:
        return {"x": pairs[0], "y": pairs[1]}
    if op == "select":
        return {"cond": np.arange(len(pairs[0])) % 2 == 0, "a": pairs[0], "b": pairs[1]}
    constants = {name: np.dtype(dtype).type(v) for name, v in PARAMETERS.get(op, {}).items()}
    if op in ("prelu", "softplus_parametric"):  # one for each channel
        return {"x": x.reshape(1, 1, -1), **{name: v.reshape(1) for name, v in constants.items()}}
    return {"x": x, **constants}


def takes(op: str, dtype: str) -> bool:
    """Whether coremltools 9 has the op for it, in its newest form."""
    name = dtype.replace("float", "fp")
    newest = [*SSAOpRegistry.core_ops[op].values()][-1]
    kinds = newest.input_spec.input_types
    kind = kinds["x"] if "x" in kinds else kinds["a"]
    domain = newest.type_domains.get(kind.type_domain_id) if kind.type_domain_id else kind._type_domain
    return any(str(t.__name__) == name or str(t.__type_info__()) == name for t in domain)


CASES = [(op, dtype) for op in sorted(ELEMENTWISE - {"cast"}) for dtype in DTYPES if takes(op, dtype)]


@pytest.mark.parametrize(("op", "dtype"), CASES)
@pytest.mark.filterwarnings("ignore::RuntimeWarning")
def test_special_values_are_what_coremltools_computes(op, dtype):
    given = arguments(op, dtype)
    otherwise = OTHERWISE.get((op, dtype))
    wanted = otherwise(**given) if otherwise else harness.inferred(op, "iOS18", given)[0]
    for isa in _native.instruction_sets():
        found = harness.run(op, constants=("alpha", "beta"), isa=isa, **given)[0]
        assert found.dtype == wanted.dtype or found.dtype.kind == "f"
        bad = ~agrees(op, found, np.asarray(wanted).astype(found.dtype))
        where = np.flatnonzero(bad)[:5]
        operands = [v.ravel() for v in given.values() if np.size(v) == found.size]
        assert not len(where), [([o[i] for o in operands], found.ravel()[i], wanted.ravel()[i]) for i in where]


def agrees(op: str, found: np.ndarray, wanted: np.ndarray) -> np.ndarray:
    """Where the values are the same: NaN, infinity and, unless that is open, the sign of zero; finite ones nearly."""
    if found.dtype.kind != "f":
        return found == wanted
    x, y = found.astype("f8"), wanted.astype("f8")
    nearly = {2: 2.0**-9, 4: 2.0**-16}[found.itemsize]
    least = nearly if op in CANCELS else np.finfo(found.dtype).smallest_subnormal
    near = np.isfinite(x) & np.isfinite(y) & (np.abs(x - y) <= nearly * np.abs(y) + least)
    if op not in OPEN_SIGN | CANCELS:
        near &= (y != 0) | ((x == 0) & (np.signbit(x) == np.signbit(y)))
    return (np.isnan(x) & np.isnan(y)) | (x == y) & near | near | (np.isinf(x) & (x == y))


def test_the_table_has_every_elementwise_op_and_knows_the_integers():
    assert {op for op, _ in CASES} == ELEMENTWISE - {"cast"}
    assert len([op for op, dtype in CASES if dtype == "int32"]) >= 20


CAST = [np.nan, np.inf, -np.inf, 0.0, -0.0, 0.5, -0.5, 1.5, -1.5, 127, 128, -128, -129, 255, 256, 3e4, 65504, 3e9, -3e9]


@pytest.mark.parametrize("to", ["int8", "uint8", "int16", "uint16", "int32", "bool"])
@pytest.mark.parametrize("dtype", ["float16", "float32"])
@pytest.mark.filterwarnings("ignore::RuntimeWarning")
def test_casts_cut_toward_zero_inside_the_range_as_coremltools_and_stop_at_its_ends(dtype, to):
    x = np.array(CAST).astype(dtype)
    found = harness.run("cast", x=x, dtype=to)[0]
    inferred = harness.inferred("cast", "iOS18", {"x": x, "dtype": to})[0]
    x = x.astype("float64")  # comparisons with integers that float16 lacks
    if to == "bool":
        np.testing.assert_array_equal(found, inferred)
        return
    info = np.iinfo(to)
    inside = (np.trunc(x) >= info.min) & (np.trunc(x) <= info.max)  # beyond, and of NaN, the cast is undefined in C
    np.testing.assert_array_equal(found[inside], inferred[inside])
    np.testing.assert_array_equal(found[x > info.max], info.max)
    np.testing.assert_array_equal(found[x < info.min], np.where(np.trunc(x[x < info.min]) >= info.min, 0, info.min))
    np.testing.assert_array_equal(found[np.isnan(x)], 0)
