"""Rules of single ops: what they take, and where their results are not to be trusted."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from .acceptance import always, never
from .record import dtype_name, shape, size, value
from .rule import BEFORE_H16, FAMILIES, PATHS, Cliff, Rule
from .rules import SPATIAL_LIMIT, is_static, is_weight

if TYPE_CHECKING:
    from coremltools.converters.mil.mil import Operation

M1, M2, M3, M4, M5 = FAMILIES
KERNEL_WIDTH = {M1: 13, M2: 15, M3: 15, M4: 15, M5: 15}
POOL_WINDOW = {M1: 29, M2: 31, M3: 31, M4: 31, M5: 31}
EXACT_SUM = 2048  # the first integer whose successor fp16 lacks
INFINITE_PRODUCT = 32752  # the first result of a product that becomes infinite: the last fp16 below half the range
EXACT_SLICE = 4094  # the last magnitude that a slice inside the last axis keeps

# ---- convolution --------------------------------------------------------------------------------


def kernel_width(op: Operation, chip: str) -> str | None:
    """weight: [out, in, height, width]."""
    dims, limit = shape(op.inputs["weight"]), KERNEL_WIDTH[chip]
    return f"kernel width {dims[-1]}; the limit is {limit}" if len(dims) >= 4 and dims[-1] > limit else None


def kernel_width_unsure(op: Operation, chip: str) -> str | None:
    dims = shape(op.inputs["weight"])
    least = 13 if len(dims) == 3 or chip in (M2, M3) else 15
    return f"kernel {dims[2:]}, wider than {least}" if dims[-1] > least else None


def weights_that_are_inputs(op: Operation, chip: str) -> str | None:
    batch = shape(op.inputs["x"])[0]
    dynamic = not is_weight(op.inputs["weight"])
    return f"weights that are no constant, with a batch of {batch}" if dynamic and batch > 1 else None


def conv_in_3d(op: Operation, chip: str) -> str | None:
    rank = len(op.inputs["x"].shape)
    return f"x has rank {rank}" if rank > 4 else None


def has_bias(op: Operation, chip: str) -> str | None:
    return "bias is given" if op.inputs.get("bias") is not None else None


def channels_32k(op: Operation, chip: str) -> str | None:
    most = max(shape(op.inputs["x"])[1], shape(op.outputs[0])[1])
    return f"{most} channels" if most >= 32768 else None


def channels_of_4096(op: Operation, chip: str) -> str | None:
    both = shape(op.inputs["x"])[1], shape(op.outputs[0])[1]
    return f"{both[0]} to {both[1]} channels" if not any(each % 4096 for each in both) else None


CONV = (
    Rule("kernel-width", "a kernel is at most 13 wide on M1 and 15 on later chips; its height is free", "E", "high",
         kernel_width, ("FRG: measured on M1, M4 and M5",), "transpose height and width, or split the kernel"),
    Rule("kernel-width", "between M1's 13 and M4's 15 nobody measured M2 and M3, nor kernels of one axis", "E",
         "medium", kernel_width_unsure, ("FRG: 13 on M1, 15 on M4 and M5",),
         "transpose height and width, or split the kernel"),
    Rule("dynamic-weights", "weights that are inputs allow a batch of 1", "E", "high", weights_that_are_inputs,
         ("FRG",), "make the weights constants, or run the batch one by one"),
    Rule("conv-rank", "convolutions have two spatial axes at most", "E", "medium", conv_in_3d,
         ("CAT: rank 4",), "sum two-dimensional convolutions over the third axis"),
    Rule("conv-bias", "conv's bias is refused by one project and taken by others", "E", "low", has_bias,
         ("ORI: refused", "FRG, Core ML: taken"), "add it with an op of its own", path=("private",), cure="conv_bias"),
    Rule("conv-channels", "convolutions of 32768 channels and more are refused by one project and taken by another",
         "E", "low", channels_32k, ("ORI: refused", "MDX: a classifier of 32000 rows compiles", "FRG: up to 65536"),
         "split the channels"),
    Rule("conv-4096", "channels that are multiples of 4096 on both sides stream weights at a third of the rate", "S",
         "high", channels_of_4096, ("MDX, FRG: timed in six runs on M4 and M4 Max",),
         "pad 4096 to 4608 or split it into 2 x 2048", (M4,)),
    Rule("conv-4096", "channels that are multiples of 4096 on both sides may stream weights at a third of the rate",
         "S", "medium", channels_of_4096, ("FRG: timed on a base M5, not on M5 Pro",),
         "pad 4096 to 4608 or split it into 2 x 2048", (M5,)),
)  # fmt: skip

# ---- products -----------------------------------------------------------------------------------


def contraction(op: Operation) -> int:
    x = shape(op.inputs["x"])
    return x[-2] if op.op_type == "matmul" and value(op, "transpose_x", False) and len(x) > 1 else x[-1]


def contraction_too_long(op: Operation, chip: str) -> str | None:
    inner, limit = contraction(op), SPATIAL_LIMIT[chip]
    return f"{inner} products per element; the limit is {limit}" if inner > limit else None


def after_a_transpose_of_rank_5(op: Operation, chip: str) -> str | None:
    for name in ("x", "y"):
        var = op.inputs[name]
        if len(var.shape) == 5 and var.op is not None and var.op.op_type == "transpose":
            return f"{name} is a transpose of rank 5"
    return None


def contraction_not_of_32(op: Operation, chip: str) -> str | None:
    return f"{contraction(op)} products per element" if contraction(op) % 32 else None


def constant_operand(op: Operation, chip: str) -> str | None:
    constants = [name for name in ("x", "y") if is_weight(op.inputs[name])]
    return f"{constants[0]} is a constant" if constants else None


PRODUCT_EXTENT = Rule(
    "contraction-extent", "a product sums at most 16384 elements up to M3 and 65536 from M4 on", "E", "high",
    contraction_too_long, ("FRG: measured on M1, M2 and M5",), "split the sum into several products and add them",
)  # fmt: skip
PRODUCT_RANGE = Rule(
    "matmul-range", f"a matmul's result from {INFINITE_PRODUCT} on becomes infinite, at half of fp16's range", "I",
    "high", never, ("FRG: M2 Pro and M5", "H3: zeros instead"),
    "scale an operand down before, and the result up after", cliff=Cliff("anex_overflow", INFINITE_PRODUCT),
)  # fmt: skip
PRODUCT = (
    PRODUCT_EXTENT,
    PRODUCT_RANGE,
    Rule("matmul-k32", "sums whose length is no multiple of 32 give zeros", "W", "low", contraction_not_of_32,
         ("TRN: M1", "FRG, LMC: other lengths are right"), "pad with zeros, or switch the pass on", (M1,),
         ("private",), cure="matmul_pad_k32"),
)  # fmt: skip
MATMUL: tuple[Rule, ...] = (
    *PRODUCT,
    Rule("rank-5-matmul", "a product of a transpose of rank 5 does not compile", "E", "high",
         after_a_transpose_of_rank_5, ("FRG",), "merge axes before the transpose"),
    Rule("matmul-constant", "a constant operand of matmul is refused by one project and taken by others", "E", "low",
         constant_operand, ("TRN: refused on M1", "FRG: taken"), "use linear or conv, or make it an input", (M1,),
         ("private",)),
)  # fmt: skip

# ---- attention and softmax ----------------------------------------------------------------------

TILED = 512


def has_mask(op: Operation, chip: str) -> str | None:
    return "attn_mask is given" if op.inputs.get("attn_mask") is not None else None


def long_attention(op: Operation, chip: str) -> str | None:
    queries, keys = shape(op.inputs["query"])[-2], shape(op.inputs["key"])[-2]
    long = max(queries, keys) > 2048 or min(queries, keys) >= TILED
    return f"{queries} queries of {keys} keys" if long else None


def long_context(op: Operation, chip: str) -> str | None:
    along = shape(op.inputs["x"])[int(value(op, "axis", -1))]
    return f"{along} keys" if along > 4096 else None


def long_scores(op: Operation, chip: str) -> str | None:
    """Scores, or their product with the values: both operands are computed, and one axis is the keys."""
    if any(is_weight(op.inputs[name]) for name in ("x", "y")) or len(op.outputs[0].shape) < 3:
        return None
    keys = max(shape(op.outputs[0])[-1], contraction(op))
    return f"{keys} keys" if keys > 4096 else None


def long_softmax(op: Operation, chip: str) -> str | None:
    along = shape(op.inputs["x"])[int(value(op, "axis", -1))]
    return f"{along} elements on the axis" if along >= TILED else None


CONTEXT = Rule(
    "attention-context", "Core ML may move attention over more than 4096 keys to the GPU", "F", "low", long_context,
    ("S04: LLMs over 4K of context fall back", "FRG: long rows run within the extent of an axis",
     "ANM: verified at 4096"),
    "attend in chunks of 256 or 512: anex.attention.chunked", path=PATHS, os="macOS 14 (S04), 26 (FRG)",
)  # fmt: skip
MATMUL += (replace(CONTEXT, check=long_scores),)
ATTENTION = (
    Rule("sdpa-mask", "the op ignores its mask", "W", "high", has_mask,
         ("MDX: M4 and M5", "ORI: M4 Max", "S03", "FRG: per-head masks misapplied"),
         "write matmul, add, softmax and matmul", path=("private",), cure="sdpa_decompose"),
    Rule("sdpa-extent", "the fused layer is right up to 2048 tokens and below 512 on one of its axes", "W", "high",
         long_attention, ("FRG",), "write matmul, add, softmax and matmul", cure="sdpa_decompose"),
)  # fmt: skip
SOFTMAX = (
    CONTEXT,
    Rule("softmax-extent", "softmax is off by 2 % at 512 elements and useless once its plane is tiled", "W", "medium",
         long_softmax, ("H3: relative error 0.02 at 512, 0.97 at 15744; explicit max, exp and sum exact",),
         "write max, sub, exp, sum and real_div", path=("private",), cure="softmax_decompose"),
)  # fmt: skip

# ---- the others ---------------------------------------------------------------------------------


def pool_window(op: Operation, chip: str) -> str | None:
    widest, limit = max(map(int, value(op, "kernel_sizes"))), POOL_WINDOW[chip]
    return f"a window of {widest}; the limit is {limit}" if widest > limit else None


def k_of_3_or_4(op: Operation, chip: str) -> str | None:
    k = value(op, "k", 1)
    return f"k = {k}" if k in (3, 4) else None


def inside_the_last_axis(op: Operation, chip: str) -> str | None:
    begin, dims = value(op, "begin"), shape(op.inputs["x"])
    if begin is None:
        return "begin is no constant"
    mask = value(op, "begin_mask")
    first = 0 if mask is not None and mask[-1] else int(begin[-1]) % max(dims[-1], 1)
    return f"begin {first} on the last axis" if first else None


def surely_inside(op: Operation) -> bool:
    return value(op, "begin") is not None and inside_the_last_axis(op, M1) is not None


def long_sum(op: Operation, chip: str) -> str | None:
    terms = size(op.inputs["x"]) // max(size(op.outputs[0]), 1)
    return f"{terms} terms" if terms > EXACT_SUM else None


def many_choices(op: Operation, chip: str) -> str | None:
    choices = shape(op.inputs["x"])[int(value(op, "axis", -1))]
    return f"{choices} elements to choose from" if choices > EXACT_SUM else None


def norm_over_the_batch(op: Operation, chip: str) -> str | None:
    """MIL norms over the last three axes."""
    dims = shape(op.inputs["x"])
    if len(dims) == 3:
        return f"x {dims}, whose first axis MIL norms over" if dims[0] > 1 else None
    return f"x {dims}, whose axes before the last three are several" if math.prod(dims[1:-3]) > 1 else None


def more_than_15_channels(op: Operation, chip: str) -> str | None:
    channels = shape(op.inputs["x"])[1]
    return f"{channels} channels" if channels > 15 else None


def not_constant_mode(op: Operation, chip: str) -> str | None:
    mode = str(value(op, "mode", "constant"))
    return f"mode {mode}" if mode != "constant" else None


def integer_cast(op: Operation, chip: str) -> str | None:
    kinds = dtype_name(op.inputs["x"]), dtype_name(op.outputs[0])
    return f"{kinds[0]} to {kinds[1]}" if any("int" in kind for kind in kinds) else None


def thin_last_axis(op: Operation, chip: str) -> str | None:
    """[1, C, S] with [1, C, 1]."""
    x, y = (op.inputs[name] for name in ("x", "y"))
    if not (is_static(x) and is_static(y)) or not len(x.shape) == len(y.shape) == 3:
        return None
    ends = shape(x)[-1], shape(y)[-1]
    return f"{shape(x)} with {shape(y)}" if 1 in ends and max(ends) > 1 else None


POOL = Rule(
    "pool-window", "a window is at most 29 wide on M1 and 31 on later chips", "E", "medium", pool_window,
    ("FRG", "HOL: 13 and strides of 2 under old Core ML"), "pool in two steps",
)  # fmt: skip
TOPK = Rule(
    "topk-k", "k of 3 and 4 are refused", "E", "medium", k_of_3_or_4, ("FRG",), "ask for k = 5 and slice",
)  # fmt: skip
_SLICE = Rule(
    "slice-range", f"a slice that begins inside the last axis turns |x| > {EXACT_SLICE} into infinity", "W", "high",
    inside_the_last_axis, ("FRG: measured on M1; exact on M5",),
    f"slice another axis, or keep x within ±{EXACT_SLICE}", (M1,),
    cliff=Cliff("anex_overflow", float(np.nextafter(np.float16(EXACT_SLICE), np.float16(np.inf))), where=surely_inside),
)  # fmt: skip
SLICE = (_SLICE, _SLICE.on(M2, M3, confidence="medium"))
SUM = Rule(
    "sum-range", f"reduce_sum adds in fp16, exact up to {EXACT_SUM}", "W", "high", long_sum,
    ("FRG: M2 Pro and M5",), "multiply by a matrix of ones: matmul sums wide", cure="sum_by_matmul",
    cliff=Cliff("anex_narrow_sum", EXACT_SUM),
)  # fmt: skip
MEAN = replace(
    SUM, id="mean-range", statement="reduce_mean may add in fp16, as reduce_sum does", severity="I", confidence="low",
    source=("FRG: of reduce_sum; nobody measured means", "SWP: right to 0.0008"), cure="",
)  # fmt: skip
ARGMAX = Rule(
    "index-range", f"an index comes back in fp16, exact up to {EXACT_SUM}", "W", "medium", many_choices,
    ("FRG: indices exact below 2048",), "choose in parts, or on the host",
    cliff=Cliff("anex_narrow_index", EXACT_SUM, where=lambda op: many_choices(op, M1) is not None),
)  # fmt: skip
L2_NORM = Rule(
    "l2-norm-axes", "the engine norms over all axes but the first, MIL over the last three", "W", "medium",
    norm_over_the_batch, ("FRG",), "divide by reduce_l2_norm over the axes you mean",
)  # fmt: skip
RESPONSE_NORM = Rule(
    "lrn-channels", "the native layer has at most 15 channels", "E", "medium", more_than_15_channels,
    ("FRG",), "square, sum neighbours with a convolution, pow and real_div",
)  # fmt: skip
PAD = Rule(
    "pad-mode", "reflecting and replicating need the texture engine, from M2 on", "E", "medium", not_constant_mode,
    ("CAT",), "concatenate slices", (M1,),
)  # fmt: skip
CAST = Rule(
    "integer-cast", "whether the engine casts from and to integers is not settled", "E", "medium", integer_cast,
    ("SWP: a cast alone refused", "APM: int32 tensors are an unsupported type", "MDX: fp32 and fp16 are fine"),
    "keep integers at the edges of the program",
)  # fmt: skip
BROADCAST = Rule(
    "thin-broadcast", "[1, C, S] with [1, C, 1] gave zeros to one project", "W", "low", thin_last_axis,
    ("TRN: M1", "LMC, MDX: right in rank 4"), "use rank 4, or tile the thin operand", (M1,), ("private",),
)  # fmt: skip
CONCAT = Rule(
    "concat", "concat is refused by one project and used by four others", "E", "low", always("this op"),
    ("ORI: every program with it refused on M4 Max", "MDX, LMC, CRN, CGT: fp16 concat compiles", "SWP: right"),
    "return several outputs instead", path=("private",),
)  # fmt: skip
GELU = Rule(
    "gelu", "the op is refused by two projects, and a table off by 0.002 to 0.08 in others", "E", "low",
    always("this op"), ("ORI, TRN: refused", "SWP: 0.0024 on M5", "FRG: up to 0.08 on M1"),
    "write the tanh form", cure="gelu_tanh",
)  # fmt: skip
REDUCE_ROUTE = Rule(
    "reduce-route", "long sums take a way round by a transpose: above 192 elements up to M2, 384 later", "I", "high",
    never, ("FRG",), "reduce in two steps",
)  # fmt: skip
LAYER_NORM_COST = Rule(
    "layer-norm-cost", "it costs as much as eight elementwise ops", "I", "medium", never,
    ("FIT", "S04: Core ML sometimes falls back"), "norm over the channels, without a transpose",
)  # fmt: skip
ON_M1 = Rule(
    "m1-ops", "one project could not use it on M1, others can", "I", "low", always("this op"),
    ("TRN: M1 with program(1.0)", "FRG, LMC, MDX: work on M1"), "nothing, unless M1 refuses it", (M1,), ("private",),
)  # fmt: skip
STREAMS_FROM_M2 = Rule(
    "weights-unpacked", "M1 unpacks these weights to fp16 when it compiles", "I", "high", always("this op"),
    ("FRG",), "palettes stream on every chip", (M1,),
)  # fmt: skip
STREAMS_FROM_M3 = Rule(
    "weights-unpacked", "chips before M3 unpack these weights to fp16 when they compile", "I", "high",
    always("this op"), ("FRG",), "palettes stream on every chip", BEFORE_H16[:2],
)  # fmt: skip
