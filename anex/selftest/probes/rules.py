"""Contested rules: ops and shapes that one source calls refused or wrong, and another runs."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from ..probe import Answer, probe
from ..raw import judged
from ..text import Text, Word
from .binding import values

Trial = tuple[Text, Mapping[str, np.ndarray], Mapping[str, np.ndarray]]  # text, inputs, expected outputs


def tried(trials: Mapping[str, Trial], tolerance: float = 2e-3) -> Answer:
    """The answer of trials each of which is right, wrong or refused; ``key``: their common status, or "depends"."""
    found = {name: judged(text, given, tolerance, **wanted) for name, (text, given, wanted) in trials.items()}
    statuses = {name: str(result["status"]) for name, result in found.items()}
    kinds = set(statuses.values())
    listed = ", ".join(f"{name}: {status}" for name, status in statuses.items())
    return Answer(kinds.pop() if len(kinds) == 1 else "depends", f"{listed}.", found)


def unary(op: str, shape: tuple[int, ...], wanted: Callable[[np.ndarray], np.ndarray], /, **arguments: Any) -> Trial:
    text = Text()
    text.input("x", *shape)
    array = values(*shape, scale=0.25)
    expected = wanted(array.astype("float64")).astype("float16")
    text.op("y", expected.shape, op, x="x", **arguments)
    return text, {"x": array}, {"y": expected}


def binary(
    op: str, x: tuple[int, ...], y: tuple[int, ...], wanted: Callable[..., np.ndarray], /, **arguments: Any
) -> Trial:
    text = Text()
    text.input("x", *x)
    text.input("y", *y)
    left, right = values(*x, scale=0.25), np.abs(values(*y, scale=0.25)) + np.float16(0.5)
    expected = wanted(left.astype("float64"), right.astype("float64")).astype("float16")
    text.op("z", expected.shape, op, x="x", y="y", **arguments)
    return text, {"x": left, "y": right}, {"z": expected}


@probe(
    "concat-compiles",
    group="question",
    question="Does concat compile?",
    ORI="no, every program with it is refused",
    MDX_LMC_CRN_CGT="yes, in float16",
)
def concat() -> Answer:
    def trial(x: tuple[int, ...], y: tuple[int, ...], axis: int) -> Trial:
        text = Text()
        text.input("x", *x)
        text.input("y", *y)
        left, right = values(*x), values(*y, scale=2)
        expected = np.concatenate([left, right], axis)
        text.op("z", expected.shape, "concat", values=("x", "y"), axis=axis, interleave=False)
        return text, {"x": left, "y": right}, {"z": expected}

    return tried({
        "channels": trial((1, 32, 1, 64), (1, 32, 1, 64), 1),
        "width": trial((1, 32, 1, 64), (1, 32, 1, 32), 3),
        "awkward": trial((1, 3, 5, 7), (1, 4, 5, 7), 1),
    })  # fmt: skip


@probe("gelu-compiles", group="question", question="Does gelu compile?", ORI_TRN="no, use the tanh form", FRG_RST="yes")
def gelu() -> Answer:
    import math

    exact = np.vectorize(lambda v: 0.5 * v * (1 + math.erf(v / math.sqrt(2))))
    shape = (1, 64, 1, 64)
    modes = {mode: unary("gelu", shape, exact, mode=Word(mode)) for mode in ("EXACT", "TANH_APPROXIMATION")}
    return tried(modes, 5e-3)


def _conv(bias: bool, channels: int = 64, kernel: tuple[int, int] = (1, 1), width: int = 64) -> Trial:
    """A conv whose weights are all 1/64 at the first tap, so that each output is a mean."""
    text = Text()
    text.input("x", 1, channels, 1, width)
    weight = np.zeros((channels, channels, *kernel), "float16")
    weight[:, :, 0, 0] = 1 / 64
    options: dict[str, Any] = {"weight": text.const("w", weight)}
    if bias:
        options["bias"] = text.const("b", np.full(channels, 2, "float16"))
    array = values(1, channels, 1, width)
    out = width - kernel[1] + 1
    expected = np.repeat(array.astype("float64").sum(1, keepdims=True) / 64, channels, 1)[..., :out] + (
        2 if bias else 0
    )
    text.op(
        "y",
        expected.shape,
        "conv",
        x="x",
        **options,
        strides=[1, 1],
        pad_type=Word("valid"),
        pad=[0, 0, 0, 0],
        dilations=[1, 1],
        groups=1,
    )
    return text, {"x": array}, {"y": expected.astype("float16")}


@probe(
    "conv-bias",
    group="question",
    question="Does conv take a bias?",
    ORI="no, add it afterwards",
    FRG="yes",
)
def conv_bias() -> Answer:
    return tried({"without": _conv(False), "with bias": _conv(True)})


@probe(
    "conv-kernel-width",
    group="rule",
    question="How wide may the kernel of a conv be?",
    FRG="13 on M1, 15 on M4 and M5; its height is free",
)
def conv_kernel_width() -> Answer:
    return tried({f"{width} wide": _conv(False, 8, (1, width)) for width in (13, 15, 16)})


@probe(
    "multi-input",
    group="question",
    question="Do programs of several inputs evaluate?",
    MDX="no, status 0x1D",
    H3_TRN_CGT="yes, bound in the order of the symbols",
)
def multi_input() -> Answer:
    def trial(count: int) -> Trial:
        text, arrays, total = Text(), {}, np.zeros((1, 32, 1, 64), "float16")
        for i in range(count):
            name = text.input(f"x{i:02}", 1, 32, 1, 64)
            arrays[name] = values(1, 32, 1, 64, scale=i + 1)
            total = total + arrays[name]
        last = "x00"
        for i in range(1, count):
            last = text.op(f"s{i:02}", (1, 32, 1, 64), "add", x=last, y=f"x{i:02}")
        return text, arrays, {last: total}

    return tried({f"{count} inputs": trial(count) for count in (2, 4, 12)})


@probe(
    "sdpa-mask",
    group="rule",
    question="Does scaled_dot_product_attention heed its mask?",
    MDX_ORI="no, it is ignored",
    FRG="the native layer does, though not through MIL",
)
def sdpa_mask() -> Answer:
    heads, length, width = 2, 64, 64
    shape = (1, heads, length, width)
    text = Text()
    for name in ("k", "q", "v"):
        text.input(name, *shape)
    text.input("mask", 1, 1, length, length)
    text.op("y", shape, "scaled_dot_product_attention", query="q", key="k", value="v", attn_mask="mask")
    arrays = {name: values(*shape, scale=scale) for name, scale in (("k", 1 / 8), ("q", 1 / 8), ("v", 1 / 4))}
    arrays["mask"] = np.triu(np.full((length, length), -1e4, "float16"), 1)[None, None]

    def attend(mask: Any) -> np.ndarray:
        scores = arrays["q"].astype("float64") @ arrays["k"].astype("float64").swapaxes(-1, -2) / np.sqrt(width) + mask
        weights = np.exp(scores - scores.max(-1, keepdims=True))
        return np.asarray(weights / weights.sum(-1, keepdims=True) @ arrays["v"].astype("float64")).astype("float16")

    result = judged(text, arrays, 1e-2, y=attend(arrays["mask"].astype("float64")))
    if result["status"] != "wrong":
        key = "heeded" if result["status"] == "right" else result["status"]
        return Answer(key, f"With a causal mask: {result['status']}.", result)
    again = Text()
    for name in ("k", "q", "v"):
        again.input(name, *shape)
    again.input("mask", 1, 1, length, length)
    again.op("y", shape, "scaled_dot_product_attention", query="q", key="k", value="v", attn_mask="mask")
    without = judged(again, arrays, 1e-2, y=attend(0.0))
    ignored = without["status"] == "right"
    verdict = "The mask is IGNORED: results are those without one." if ignored else "Results fit neither mask nor none."
    return Answer("ignored" if ignored else "wrong", verdict, {"with_mask": result, "without_mask": without})


@probe(
    "softmax-long",
    group="rule",
    question="Is softmax right over long axes?",
    H3="2% off at 512, useless at 15,744",
    FRG="native attention is unreliable above 2,048",
)
def softmax_long() -> Answer:
    def softmax(x: np.ndarray) -> np.ndarray:
        weights = np.exp(x - x.max(-1, keepdims=True))
        return np.asarray(weights / weights.sum(-1, keepdims=True))

    sizes = (128, 512, 2048, 8192)
    return tried({f"{size}": unary("softmax", (1, 2, 8, size), softmax, axis=-1) for size in sizes}, 5e-3)


@probe(
    "matmul-contraction",
    group="rule",
    question="Must the contracted dimension of matmul be a multiple of 32?",
    TRN="yes, otherwise zeros (M1)",
    others="not seen",
)
def matmul_contraction() -> Answer:
    def trial(k: int) -> Trial:
        return binary("matmul", (1, 1, 32, k), (1, 1, k, 32), np.matmul, transpose_x=False, transpose_y=False)

    return tried({f"K={k}": trial(k) for k in (32, 33, 64, 100)})


@probe(
    "matmul-constant",
    group="rule",
    question="May an operand of matmul be a constant?",
    TRN="no, InvalidMILProgram (M1)",
    MDX_LMC="not reported",
)
def matmul_constant() -> Answer:
    text = Text()
    text.input("x", 1, 1, 32, 32)
    weight = values(1, 1, 32, 32, scale=0.25)
    array = values(1, 1, 32, 32, scale=0.25)
    text.op("y", (1, 1, 32, 32), "matmul", x="x", y=text.const("w", weight), transpose_x=False, transpose_y=False)
    expected = (array.astype("float64") @ weight.astype("float64")).astype("float16")
    return tried({"constant y": (text, {"x": array}, {"y": expected})})


@probe(
    "flat-elementwise",
    group="rule",
    question="Do elementwise ops work on flat tensors of more than 16,384 elements?",
    TRN="no, they hang or fail; use three dimensions (M1)",
    FRG="16,384 along an axis on M1 to M3, 65,536 on M4 and M5",
)
def flat_elementwise() -> Answer:
    shapes = {"[1,16384]": (1, 16384), "[1,16416]": (1, 16416), "[1,8,16384]": (1, 8, 16384)}
    return tried({name: unary("relu", shape, lambda x: np.maximum(x, 0)) for name, shape in shapes.items()})


@probe(
    "axis-caps",
    group="rule",
    question="How long may an axis be?",
    FRG="width and height 16,384 (M1 to M3) or 65,536 (M4, M5); channels 65,536",
    S04="16K per dimension",
)
def axis_caps() -> Answer:
    shapes = {
        "width 16384": (1, 1, 1, 16384), "width 16385": (1, 1, 1, 16385), "width 65537": (1, 1, 1, 65537),
        "channels 65536": (1, 65536, 1, 1), "channels 65537": (1, 65537, 1, 1),
    }  # fmt: skip
    return tried({name: unary("relu", shape, lambda x: np.maximum(x, 0)) for name, shape in shapes.items()})


@probe(
    "broadcast",
    group="rule",
    question="Which broadcasts are right?",
    TRN="[1,C,S] * [1,C,1] gives zeros, [1,C,S] * [1,1,S] is right, a scalar [1,1,1] is wrong (M1)",
)
def broadcast() -> Answer:
    shapes = {"[1,C,1]": (1, 32, 1), "[1,1,S]": (1, 1, 64), "[1,1,1]": (1, 1, 1)}
    return tried({name: binary("mul", (1, 32, 64), shape, np.multiply) for name, shape in shapes.items()})


@probe(
    "real-div",
    group="rule",
    question="Is real_div right, of a square root too?",
    TRN="the result of sqrt may not feed it (M1)",
    others="operands were bound in the wrong order",
)
def real_div() -> Answer:
    text = Text()
    text.input("one", 1, 32, 1, 64)
    text.input("sqrtv", 1, 32, 1, 64)
    top, bottom = values(1, 32, 1, 64), np.abs(values(1, 32, 1, 64)) + np.float16(1)
    text.op("root", (1, 32, 1, 64), "sqrt", x="sqrtv")
    text.op("y", (1, 32, 1, 64), "real_div", x="one", y="root")
    expected = (top.astype("float64") / np.sqrt(bottom.astype("float64"))).astype("float16")
    return tried({
        "quotient": binary("real_div", (1, 32, 1, 64), (1, 32, 1, 64), np.divide),
        "of a root": (text, {"one": top, "sqrtv": bottom}, {"y": expected}),
    })  # fmt: skip


@probe(
    "moving-ops",
    group="rule",
    question="Do reductions, transpose, slice, pad, pow and rsqrt compile?",
    TRN="no, not on M1",
    FRG_LMC_MDX="yes, on M1 too",
)
def moving_ops() -> Answer:
    shape = (1, 32, 8, 32)
    return tried({
        "reduce_max": unary("reduce_max", shape, lambda x: x.max(1, keepdims=True), axes=[1], keep_dims=True),
        "transpose": unary("transpose", shape, lambda x: x.transpose(0, 2, 1, 3), perm=[0, 2, 1, 3]),
        "reshape": unary("reshape", shape, lambda x: x.reshape(1, 256, 1, 32), shape=[1, 256, 1, 32]),
        "slice": unary("slice_by_size", shape, lambda x: x[:, :, 2:6], begin=[0, 0, 2, 0], size=[1, 32, 4, 32]),
        "pow": unary("pow", shape, lambda x: x**2, y=2.0),
        "square": unary("square", shape, np.square),
    })  # fmt: skip


@probe(
    "narrow-names",
    group="rule",
    question="Do values named x, y, mul, var, mean give right results?",
    TRN="no, zeros in silence",
    MDX_LMC_ORI="they use x and y freely",
)
def narrow_names() -> Answer:
    trials = {}
    for name in ("x", "mul", "var", "mean", "eps"):
        text = Text()
        text.input(name, 1, 32, 1, 32)
        array = values(1, 32, 1, 32)
        text.op(f"{name}_", (1, 32, 1, 32), "abs", x=name)
        trials[name] = (text, {name: array}, {f"{name}_": np.abs(array)})
    return tried(trials)


@probe(
    "mil-header",
    group="rule",
    question="Which versions of MIL text does the compiler take?",
    TRN_LMC="1.0 works on M1 to M5",
    MDX="1.3 fails for some programs on M1",
)
def mil_header() -> Answer:
    trials = {}
    for version in ("1.0", "1.3"):
        text = Text(version)
        text.input("x", 1, 32, 1, 32)
        array = values(1, 32, 1, 32)
        text.op("y", (1, 32, 1, 32), "mul", x="x", y=2.0)
        trials[version] = (text, {"x": array}, {"y": array * np.float16(2)})
    return tried(trials)


@probe(
    "float32-compute",
    group="rule",
    question="Does arithmetic in float32 or int32 compile?",
    FRG_TRN_MDX_ORI_HOL="no, float16 only; float32 at the boundary with a cast",
)
def float32_compute() -> Answer:
    array, shape = values(1, 32, 1, 32).astype("float32"), (1, 32, 1, 32)
    inside, edge = Text(), Text()
    for text in (inside, edge):
        text.input("x", *shape, dtype="fp32")
    inside.op("y", shape, "add", of="fp32", x="x", y="x")
    edge.op("half", shape, "cast", x="x", dtype=Word("fp16"))
    edge.op("sum", shape, "add", x="half", y="half")
    edge.op("y", shape, "cast", of="fp32", x="sum", dtype=Word("fp32"))
    return tried({
        "add in float32": (inside, {"x": array}, {"y": array * 2}),
        "add in float16 between casts": (edge, {"x": array}, {"y": array * 2}),
    })  # fmt: skip
