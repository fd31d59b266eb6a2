"""Ops of arithmetic: elementwise, products, reductions, norms, pools, cells."""

from __future__ import annotations

from typing import Any

import numpy as np

from .maker import Maker, Ref, Refused, family

# ---- one operand ----------------------------------------------------------------------------


@family("atan", "ceil", "cos", "cosh", "erf", "exp", "floor", "relu", "relu6", "round", "sigmoid", "silu", "sin",
        "sinh", "softplus", "softsign", "tan", "tanh")  # fmt: skip
def float_unary(g: Maker, op: str) -> None:
    g.emit(op, x=g.pick("f", 0))


@family("abs", "sign", "square", "exp2")
def number_unary(g: Maker, op: str) -> None:
    g.emit(op, x=g.pick("f" if op == "exp2" else "fi", 0))


@family("acos", "asin", "atanh")
def of_a_fraction(g: Maker, op: str) -> None:
    g.emit(op, x=g.between(-0.9, 0.9))


@family("sqrt", "inverse", "log", "rsqrt")
def of_a_positive(g: Maker, op: str) -> None:
    x = g.positive()
    g.emit(op, x=x, epsilon=None if op == "sqrt" or g.chance(0.5) else g.scalar(g.dtype(x), 1e-3, 0.1))


@family("clip", "threshold", "leaky_relu", "thresholded_relu", "elu", "clamped_relu", "linear_activation",
        "scaled_tanh", "sigmoid_hard")  # fmt: skip
def with_constants(g: Maker, op: str) -> None:
    x = g.pick("f", 0)
    alpha, beta = g.scalar(g.dtype(x), 0.1, 0.9), g.scalar(g.dtype(x), 1, 3)
    g.emit(op, x=x, alpha=alpha, beta=beta if op in TWO else None)


TWO = ("clip", "clamped_relu", "linear_activation", "scaled_tanh", "sigmoid_hard")


@family("gelu")
def gelu(g: Maker, op: str) -> None:
    g.emit(op, x=g.pick("f", 0), mode=g.one("EXACT", "TANH_APPROXIMATION", "SIGMOID_APPROXIMATION"))


@family("prelu", "softplus_parametric")
def per_channel(g: Maker, op: str) -> None:
    x = g.pick("f", 3)
    n, dtype = g.dims(x)[1], g.dtype(x)
    alpha = g.array((n,), dtype, 0.1, 1)
    if g.rank(x) != 4:
        alpha[:] = alpha[0]  # Core ML knows channels in rank 4
    g.emit(op, x=x, alpha=alpha, beta=g.array((n,), dtype, 0.5, 2) if op == "softplus_parametric" else None)


@family("cast")
def cast(g: Maker, op: str) -> None:
    x = g.pick("fibs", 0)
    wanted = g.one("fp16", "fp32", "int32", "bool", "int8", "uint8", "int16", "uint16")
    value = g.value(x)
    if wanted.startswith("u") and (value < 0).any():
        x = g.emit("abs", x=x)[0] if g.dtype(x) in ("fp16", "fp32", "int32") else x
        value = g.value(x)
    if "int" in wanted and (value.min(initial=0) < 0 - 127 * (wanted[0] != "u") or np.abs(value).max() > 120):
        raise Refused
    g.emit(op, x=x, dtype=wanted)


@family("logical_not")
def logical_not(g: Maker, op: str) -> None:
    g.emit(op, x=g.pick("b", 0))


# ---- two and three --------------------------------------------------------------------------


def emit_pair(g: Maker, op: str, x: Ref, y: Any) -> None:
    x, y = (y, x) if g.chance(0.3) else (x, y)
    g.emit(op, x=x, y=y)


@family("add", "sub", "mul", "maximum", "minimum")
def arithmetic(g: Maker, op: str) -> None:
    x = g.pick("fffi", 0)
    emit_pair(g, op, x, g.mate(x))


@family("greater", "greater_equal", "less", "less_equal", "equal", "not_equal")
def comparison(g: Maker, op: str) -> None:
    x = g.pick("fi", 0)
    emit_pair(g, op, x, g.mate(x))


@family("real_div", "floor_div", "mod")
def division(g: Maker, op: str) -> None:
    x = g.pick("fffi", 0)
    g.emit(op, x=x, y=g.mate(x, 1, 4))


@family("pow")
def power(g: Maker, op: str) -> None:
    x = g.positive()
    g.emit(op, x=x, y=g.mate(x, 0.2, 2) if g.chance(0.5) else g.scalar(g.dtype(x), -2, 3))


@family("logical_and", "logical_or", "logical_xor")
def logic(g: Maker, op: str) -> None:
    x = g.pick("b", 0)
    emit_pair(g, op, x, g.mate(x))


@family("select")
def select(g: Maker, op: str) -> None:
    a = g.pick("fib", 0)
    shape = g.dims(a)
    conditions = [n for n, v in g.values.items() if g.dtypes[n] == "bool" and v.shape == shape]
    cond = Ref(g.one(*conditions)) if conditions else g.fresh(shape, "bool") if shape else g.one(True, False)
    g.emit(op, cond=cond, a=a, b=g.one(a, g.array(shape, g.dtype(a)), g.scalar(g.dtype(a), 0, 2)))


# ---- products -------------------------------------------------------------------------------


@family("linear")
def linear(g: Maker, op: str) -> None:
    x = g.pick("f", 1, 5, lambda v: v.shape[-1] > 1)
    k, n = g.dims(x)[-1], g.one(1, 2, 5, 16, 33, 70)
    dtype = g.dtype(x)
    weight = (g.array((n, k), dtype) / np.sqrt(k)).astype(g.array((), dtype).dtype)
    g.emit(op, x=x, weight=weight, bias=g.array((n,), dtype) if g.chance(0.6) else None)


@family("matmul")
def matmul(g: Maker, op: str) -> None:
    x = g.pick("f", 2, 5)
    shape, n = g.dims(x), g.one(1, 2, 3, 4, 8, 17, 40)
    turned_x, turned_y = g.chance(0.3), g.chance(0.4)
    k = shape[-2] if turned_x else shape[-1]
    batch = g.broadcastable(shape[:-2]) if g.chance(0.7) else shape[:-2]
    y_shape = (*batch, n, k) if turned_y else (*batch, k, n)
    same = [i for i, v in g.values.items() if v.shape == y_shape and g.dtypes[i] == g.dtype(x)]
    low, high = -1 / np.sqrt(k), 1 / np.sqrt(k)
    y = Ref(g.one(*same)) if same else g.one(g.fresh, g.array)(y_shape, g.dtype(x), low, high)
    g.emit(op, x=x, y=y, transpose_x=turned_x, transpose_y=turned_y)


@family("einsum")
def einsum(g: Maker, op: str) -> None:
    x = g.pick("f", 3, 4)
    shape, n = g.dims(x), g.one(1, 3, 9)
    if len(shape) == 4:
        equation = g.one("nchw,nwhu->nchu", "abcd,adce->abce")
        y_shape: tuple[int, ...] = (shape[0], shape[3], shape[2], n)
    else:
        equation, y_shape = "chw,whr->chr", (shape[2], shape[1], n)
    g.emit(op, values=[x, g.fresh(y_shape, g.dtype(x), -0.5, 0.5)], equation=equation)


@family("conv", "conv_transpose")
def conv(g: Maker, op: str) -> None:
    x = g.pick("f", 3, 5)
    shape, dtype, space = g.dims(x), g.dtype(x), g.rank(x) - 2
    channels = shape[1]
    groups = g.one(1, 1, 1, channels, *[d for d in range(2, channels) if channels % d == 0])
    out = groups * g.one(1, 1, 2, 3, 8 if groups < 4 else 1)
    kernel = [g.int(1, min(4, n + 1)) for n in shape[2:]]
    weight = (out, channels // groups) if op == "conv" else (channels, out // groups)
    scale = 1 / np.sqrt(weight[1] * np.prod(kernel))
    pad_type = g.one("valid", "same", "custom", *(["same_lower"] if op == "conv" else []))
    arguments = {
        "x": x, "weight": g.one(g.array, g.array, g.fresh)((*weight, *kernel), dtype, -scale, scale),
        "bias": g.array((out,), dtype) if g.chance(0.5) else None, "groups": groups,
        "strides": [g.int(1, 3) if g.chance(0.4) else 1 for _ in kernel],
        "dilations": [g.int(1, 2) if g.chance(0.3) else 1 for _ in kernel], "pad_type": pad_type,
        "pad": [g.int(0, 2 if op == "conv" else (kernel[i // 2] - 1) // 2) for i in range(2 * space)],
    }  # fmt: skip
    if isinstance(arguments["weight"], Ref):
        arguments["dilations"] = [1] * space  # coremltools takes no others then
    reach = [(k - 1) * d + 1 for k, d in zip(kernel, arguments["dilations"], strict=True)]
    if op == "conv" and any(r > n for r, n in zip(reach, shape[2:], strict=True)):
        arguments["pad_type"] = "same"
    g.emit(op, **arguments)


@family("scaled_dot_product_attention")
def attention(g: Maker, op: str) -> None:
    q = g.pick("f", 2, 5, lambda v: v.ndim > 2)
    *batch, length, e = g.dims(q)
    keys, ev, dtype = g.one(1, 4, 33, length), g.one(1, e, 9), g.dtype(q)
    same = [n for n, v in g.values.items() if v.shape == (*batch, keys, e) and g.dtypes[n] == dtype]
    key = Ref(g.one(*same)) if same else g.fresh((*batch, keys, e), dtype)
    mask = None
    if g.chance(0.5):
        mask = g.array((length, keys), g.one("bool", dtype))
        if mask.dtype == bool:
            mask[:, 0] = True
    g.emit(op, query=q, key=key, value=g.fresh((*batch, keys, ev), dtype), attn_mask=mask)


@family("anex_attention")
def attention_across(g: Maker, op: str) -> None:
    """Of operands that are transposed before, and a result that is transposed after it, or of some of them."""
    x = g.pick("f", 3, 5, lambda v: v.shape[-1] > 7 and np.abs(v).max() < 20)
    *batch, e, length = g.dims(x)
    keys, ev, dtype = g.one(3, 33, length), g.one(1, e, 9), g.dtype(x)
    turn = [*range(len(batch)), len(batch) + 1, len(batch)]

    def turned(ref: Ref) -> Ref:
        return g.emit("transpose", x=ref, perm=turn)[0]

    across = g.chance(0.5)
    (y,) = g.emit(
        "scaled_dot_product_attention",
        query=turned(x),
        key=turned(g.fresh((*batch, e, keys), dtype)) if across else g.fresh((*batch, keys, e), dtype),
        value=g.fresh((*batch, keys, ev), dtype) if across else turned(g.fresh((*batch, ev, keys), dtype)),
    )
    if g.chance(0.7):
        turned(y)


# ---- reductions and norms -------------------------------------------------------------------


@family("reduce_sum", "reduce_mean", "reduce_max", "reduce_min", "reduce_l1_norm", "reduce_l2_norm", "reduce_prod",
        "reduce_sum_square", "reduce_log_sum", "reduce_log_sum_exp")  # fmt: skip
def reduction(g: Maker, op: str) -> None:
    whole = op in ("reduce_sum", "reduce_max", "reduce_min", "reduce_sum_square", "reduce_l1_norm")
    x = g.positive() if op == "reduce_log_sum" else g.pick("fi" if whole else "f", 1)
    if not g.rank(x):
        raise Refused
    g.emit(op, x=x, axes=None if g.chance(0.1) else g.axes(g.rank(x)), keep_dims=g.chance(0.5))


@family("reduce_argmax", "reduce_argmin")
def reduce_arg(g: Maker, op: str) -> None:
    x = g.pick("fi")
    g.emit(op, x=x, axis=g.axis(g.rank(x)), keep_dims=g.chance(0.5))


@family("cumsum")
def cumsum(g: Maker, op: str) -> None:
    x = g.pick("fi")
    axis = g.one(-1, *range(g.rank(x)))  # the only negative axis that coremltools takes
    g.emit(op, x=x, axis=axis, exclusive=g.chance(0.5), reverse=g.chance(0.5))


@family("softmax")
def softmax(g: Maker, op: str) -> None:
    x = g.pick("f")
    g.emit(op, x=x, axis=g.axis(g.rank(x)))


@family("layer_norm")
def layer_norm(g: Maker, op: str) -> None:
    x = g.pick("f")
    axes = sorted(a % g.rank(x) for a in g.axes(g.rank(x)))
    shape, dtype = [g.dims(x)[a] for a in axes], g.dtype(x)
    gamma = g.array(shape, dtype) if g.chance(0.6) else None
    beta = g.array(shape, dtype) if gamma is not None and g.chance(0.6) else None
    g.emit(op, x=x, axes=axes, gamma=gamma, beta=beta, epsilon=g.scalar(dtype, 1e-3, 1e-2))


@family("instance_norm", "batch_norm")
def channel_norm(g: Maker, op: str) -> None:
    x = g.pick("f", 3, 5 if op == "batch_norm" else 4)
    n, dtype = (g.dims(x)[1],), g.dtype(x)
    both = g.chance(0.6)
    more: dict[str, Any] = {"gamma": g.array(n, dtype) if both else None, "beta": g.array(n, dtype) if both else None}
    if op == "batch_norm":
        more |= {"mean": g.array(n, dtype), "variance": g.array(n, dtype, 0.5, 2)}
    g.emit(op, x=x, epsilon=g.scalar(dtype, 1e-3, 1e-2), **more)


@family("l2_norm", "local_response_norm")
def other_norm(g: Maker, op: str) -> None:
    x = g.pick("f", 3, 5 if op == "l2_norm" else 4)
    dtype = g.dtype(x)
    if op == "l2_norm":
        g.emit(op, x=x, epsilon=g.scalar(dtype, 1e-3, 1e-2))
    else:
        alpha, beta = g.scalar(dtype, 1e-2, 1), g.scalar(dtype, 0.5, 1)
        g.emit(op, x=x, size=g.one(1, 2, 3, 4, 5), alpha=alpha, beta=beta, k=g.scalar(dtype, 1, 2))


@family("avg_pool", "max_pool", "l2_pool")
def pool(g: Maker, op: str) -> None:
    x = g.pick("f", 3, 4 if op == "l2_pool" else 5)
    space = g.dims(x)[2:]
    kernel = [g.int(1, min(4, n)) for n in space]
    pad_type = g.one("valid", "same", "same_lower", "custom")
    pad = [g.int(0, kernel[i // 2] // 2) for i in range(2 * len(space))] if pad_type == "custom" else None
    more = {"exclude_padding_from_average": g.chance(0.5)} if op == "avg_pool" else {}
    g.emit(op, x=x, kernel_sizes=kernel, strides=[g.int(1, 3) for _ in kernel], pad_type=pad_type, pad=pad, **more)


# ---- cells ----------------------------------------------------------------------------------


@family("lstm", "rnn", "gru")
def cell(g: Maker, op: str) -> None:
    x = g.pick("f", 3, 3)
    (s, b, inputs), dtype, hidden = g.dims(x), g.dtype(x), g.one(1, 3, 8, 17)
    if s > 40:
        raise Refused
    gates = {"lstm": 4, "rnn": 1, "gru": 3}[op]
    direction = g.one("forward", "reverse", *(["bidirectional"] if op == "lstm" else []))
    sides = 2 if direction == "bidirectional" else 1
    low, high = -1 / np.sqrt(hidden), 1 / np.sqrt(hidden)
    more: dict[str, Any] = {}
    for side in ("", "_back")[:sides]:
        more[f"weight_ih{side}"] = g.array((gates * hidden, inputs), dtype, low, high)
        more[f"weight_hh{side}"] = g.array((gates * hidden, hidden), dtype, low, high)
        more[f"bias{side}"] = g.array((gates * hidden,), dtype)
    if op == "lstm":
        more["initial_c"] = g.fresh((b, sides * hidden), dtype)
    if op == "gru" and g.graph.opset == "iOS18":
        more["reset_after"] = g.chance(0.5)
    g.emit(op, x=x, initial_h=g.fresh((b, sides * hidden), dtype), direction=direction,
           output_sequence=g.chance(0.7), **more)  # fmt: skip
