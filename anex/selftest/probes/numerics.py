"""What the arithmetic does: accumulation, overflow, subnormals, rounding, what is no number."""

from __future__ import annotations

from typing import Any

import numpy as np

from ..probe import Answer, probe
from ..raw import Model
from ..text import Text


def ran(text: Text, output: str, **arrays: np.ndarray) -> np.ndarray:
    with Model(text, output) as model:
        return model.start().run(arrays)[output]


def mapped(array: np.ndarray, op: str, **arguments: Any) -> np.ndarray:
    """One elementwise op on as many values as there are, in a tensor of shape [1, 32, 1, 32]."""
    text = Text()
    text.input("x", 1, 32, 1, 32)
    text.op("y", (1, 32, 1, 32), op, x="x", **arguments)
    padded = np.zeros(1024, "float16")
    padded[: array.size] = array
    return ran(text, "y", x=padded.reshape(1, 32, 1, 32)).ravel()[: array.size]


@probe(
    "accumulation",
    group="numerics",
    question="Do matmul and conv accumulate in more than float16?",
    FRG="yes: 16,384 ones sum exactly",
    HOL="no, everything is float16",
)
def accumulation() -> Answer:
    text = Text()
    text.input("x", 1, 1, 32, 16384)
    text.input("y", 1, 1, 16384, 32)
    text.op("z", (1, 1, 32, 32), "matmul", x="x", y="y", transpose_x=False, transpose_y=False)
    found = float(ran(text, "z", x=_ones(1, 1, 32, 16384), y=_ones(1, 1, 16384, 32)).max())
    key = "wide" if found == 16384 else "narrow"
    return Answer(key, f"16,384 ones sum to {found:g} in matmul: accumulation is {key}.", {"sum": found})


def _ones(*shape: int) -> np.ndarray:
    return np.ones(shape, "float16")


@probe(
    "reduce-sum",
    group="numerics",
    question="Up to which total does reduce_sum count exactly?",
    FRG="2,048: it accumulates in float16",
)
def reduce_sum() -> Answer:
    sums = {}
    for count in (1024, 2048, 4096, 8192):
        text = Text()
        text.input("x", 1, 4, 1, count)
        text.op("y", (1, 4, 1, 1), "reduce_sum", x="x", axes=[3], keep_dims=True)
        sums[count] = float(ran(text, "y", x=_ones(1, 4, 1, count)).max())
    exact = [count for count, total in sums.items() if total == count]
    key = "wide" if len(exact) == len(sums) else "narrow"
    listed = ", ".join(f"{count:,} ones: {total:g}" for count, total in sums.items())
    return Answer(key, f"reduce_sum of {listed}.", {"sums": sums})


@probe(
    "matmul-cliff",
    group="numerics",
    question="From which value on is a result of matmul infinite?",
    FRG="32,752 (M2 Pro, M5)",
    H3="silent zeros there",
)
def matmul_cliff() -> Answer:
    levels = [30000, 32000, 32704, 32768, 33024, 40000, 60000]
    text = Text()
    text.input("x", 1, 1, 32, 32)
    text.input("y", 1, 1, 32, 32)
    text.op("z", (1, 1, 32, 32), "matmul", x="x", y="y", transpose_x=False, transpose_y=False)
    right = np.zeros((1, 1, 32, 32), "float16")
    right[..., : len(levels)] = np.array(levels, "float64") / 32
    found = ran(text, "z", x=_ones(1, 1, 32, 32), y=right)[0, 0, 0, : len(levels)].astype("float64")
    results = {level: float(value) for level, value in zip(levels, found, strict=True)}
    lost = [level for level, value in results.items() if not abs(value - level) <= 32]
    if not lost:
        return Answer("none", "matmul gives results up to 60,000 as they are.", {"results": _plain(results)})
    first = results[lost[0]]
    return Answer(str(lost[0]), f"Results of matmul from {lost[0]:,} on are {first:g}.", {"results": _plain(results)})


@probe(
    "slice-cliff",
    group="numerics",
    question="Do slices that begin inside the last axis lose large values?",
    FRG="above 4,094 they become infinite on M1 and M2 (one page says M1 only), not on M5",
)
def slice_cliff() -> Answer:
    levels = [2000, 4000, 4094, 4096, 8192, 60000]
    text = Text()
    text.input("x", 1, 32, 1, 64)
    text.op("y", (1, 32, 1, 32), "slice_by_size", x="x", begin=[0, 0, 0, 32], size=[1, 32, 1, 32])
    array = np.zeros((1, 32, 1, 64), "float16")
    array[..., 32 : 32 + len(levels)] = levels
    found = ran(text, "y", x=array)[0, 0, 0, : len(levels)].astype("float64")
    results = {level: float(value) for level, value in zip(levels, found, strict=True)}
    lost = [level for level, value in results.items() if value != level]
    if not lost:
        return Answer("none", "Slices keep values up to 60,000.", {"results": _plain(results)})
    return Answer(
        str(lost[0]), f"Sliced values from {lost[0]:,} on are {results[lost[0]]:g}.", {"results": _plain(results)}
    )


@probe(
    "subnormals",
    group="numerics",
    question="Are numbers below 6.1e-5 flushed to zero?",
    H3="yes, inside fused graphs",
    FRG_TRN="keep epsilons above 1e-4",
)
def subnormals() -> Answer:
    array = (2.0 ** np.arange(-12, -25, -1)).astype("float16")
    kept = {}
    for op in ("relu", "add"):
        found = mapped(array, op, **({"y": 0.0} if op == "add" else {}))
        kept[op] = [bool(left == right) for left, right in zip(found, array, strict=True)]
    small = [kept_ for each in kept.values() for kept_, value in zip(each, array, strict=True) if value < 6.1e-5]
    key = "kept" if all(small) else "flushed" if not any(small) else "depends"
    return Answer(key, f"Powers of two from 2^-12 to 2^-24: those below 2^-14 are {key}.", {"kept": kept})


@probe(
    "not-a-number",
    group="numerics",
    question="What becomes of NaN, of infinities and of -0?",
    nobody="one probe exists, without published output",
)
def not_a_number() -> Answer:
    array = np.array([np.nan, np.inf, -np.inf, -0.0, 65504, -65504], "float16")
    names = ("nan", "inf", "-inf", "-0", "max", "-max")
    found = {}
    for op, arguments in (("relu", {}), ("abs", {}), ("exp", {}), ("add", {"y": 1.0}), ("mul", {"y": 2.0})):
        result = mapped(array, op, **arguments)
        found[op] = {name: repr(float(value)) for name, value in zip(names, result, strict=True)}
    ieee = found["add"] == {
        "nan": "nan",
        "inf": "inf",
        "-inf": "-inf",
        "-0": "1.0",
        "max": "65504.0",
        "-max": "-65504.0",
    }
    key = "IEEE" if ieee and found["mul"]["max"] == "inf" else "otherwise"
    return Answer(
        key, f"add and mul treat them as IEEE does: {key == 'IEEE'}; relu(NaN) = {found['relu']['nan']}.", found
    )


@probe(
    "rounding",
    group="numerics",
    question="How are results rounded?",
    MDX="0.1 * 4 reads back as 0.3999",
    nobody="the mode is not published",
)
def rounding() -> Answer:
    # halfway between two float16: to even gives 2048 and 2052, cutting off 2048 and 2050, away from zero 2050 and 2052
    ties = mapped(np.array([2048, 2050, 0.0], "float16"), "add", y=1.0)[:2].tolist()
    modes = {(2048.0, 2052.0): "to even", (2048.0, 2050.0): "toward zero", (2050.0, 2052.0): "away from zero"}
    key = modes.get((ties[0], ties[1]), "otherwise")
    tenth = float(mapped(np.array([0.1], "float16"), "mul", y=4.0)[0])
    return Answer(
        key, f"2048+1 and 2050+1 give {ties}: ties go {key}; 0.1*4 = {tenth:.6f}.", {"ties": ties, "tenth": tenth}
    )


@probe(
    "determinism",
    group="numerics",
    question="Does a program give the same bits each time?",
    FRG="yes, on one chip; M1 and M2 agree, M5 differs by 1 unit in the last place",
)
def determinism() -> Answer:
    text = Text()
    text.input("x", 1, 64, 1, 64)
    text.op("e", (1, 64, 1, 64), "exp", x="x")
    text.op("y", (1, 64, 1, 64), "softmax", x="e", axis=1)
    array = np.sin(np.arange(4096, dtype="float64")).reshape(1, 64, 1, 64).astype("float16")
    with Model(text, "y") as model:
        model.start()
        results = {model.run({"x": array})["y"].tobytes() for _ in range(10)}
    import hashlib

    digest = hashlib.sha256(min(results)).hexdigest()[:16]
    key = "yes" if len(results) == 1 else "no"
    return Answer(key, f"Ten runs gave {len(results)} different result(s); digest {digest}.", {"digest": digest})


@probe(
    "approximations",
    group="numerics",
    question="How far off are exp, tanh, sigmoid, sqrt, rsqrt and log?",
    nobody="not published; they are tables or approximations",
)
def approximations() -> Answer:
    from ..compare import compare

    array = np.linspace(0.05, 6, 1024).astype("float16")
    wide = array.astype("float64")
    functions: dict[str, tuple[np.ndarray, dict[str, Any]]] = {
        "exp": (np.exp(wide), {}), "tanh": (np.tanh(wide), {}), "sigmoid": (1 / (1 + np.exp(-wide)), {}),
        "sqrt": (np.sqrt(wide), {}), "rsqrt": (1 / np.sqrt(wide), {"epsilon": 0.0}),
        "log": (np.log(wide), {"epsilon": 0.0}),
    }  # fmt: skip
    found = {}
    for op, (wanted, arguments) in functions.items():
        found[op] = compare(mapped(array, op, **arguments), wanted.astype("float16"))
    worst = max(found, key=lambda op: found[op]["relative"])
    listed = ", ".join(f"{op} {each['ulp']}" for op, each in found.items())
    return Answer(f"{worst} worst", f"Largest error in units of the last place: {listed}.", found)


def _plain(results: dict[int, float]) -> dict[str, str]:
    """JSON has no infinities."""
    return {str(level): repr(value) for level, value in results.items()}
