"""Products, convolutions, pools, norms, reductions, attention and recurrent ops."""

import numpy as np
import torch
import torch.nn.functional as F  # noqa: N812

from .cases import apart, case, normal, uniform

A, B = normal(2, 3, 4), normal(2, 4, 5, seed=1)
case("matmul", torch.matmul, x=A, y=B)
case(
    "matmul",
    lambda x, y: x.mT @ y.mT,
    "turned",
    x=normal(2, 4, 3),
    y=normal(2, 5, 4),
    given={"transpose_x": True, "transpose_y": True},
)
case("matmul", lambda x, y: x.mT @ y, "turned x", x=normal(4, 3), y=normal(4, 5, seed=1), given={"transpose_x": True})
case("matmul", lambda x, y: x @ y.mT, "one matrix for a batch", x=A, y=normal(5, 4), given={"transpose_y": True})
case("matmul", torch.matmul, "of batches that broadcast", x=normal(2, 1, 3, 4), y=normal(3, 4, 2, seed=1))
case("matmul", torch.matmul, "of a vector", x=normal(4), y=normal(4, 5, seed=1))
W, BIAS = normal(5, 4, seed=2), normal(5, seed=3)
case(
    "linear", lambda x: F.linear(x, torch.tensor(W), torch.tensor(BIAS)), x=A, given={"weight": W, "bias": BIAS},
    constants=("weight", "bias"),
)  # fmt: skip
case(
    "einsum", lambda *v: torch.einsum("nchw,nwhu->nchu", *v), values=[normal(2, 3, 4, 5), normal(2, 5, 4, 6)],
    given={"equation": "nchw,nwhu->nchu"},
)  # fmt: skip
case(
    "einsum", lambda x, y: torch.einsum("chw,whr->chr", x, y.expand(7, 3, 6)), "that broadcasts",
    values=[normal(5, 3, 7), normal(7, 1, 6)], given={"equation": "chw,whr->chr"},
)  # fmt: skip

# ---- convolutions and pools -----------------------------------------------------------------------


def conv(rank, padding, **more):
    """``padding``: MIL's pad."""
    pairs = [padding[i : i + 2] for i in range(0, len(padding), 2)]
    around = [n for pair in reversed(pairs) for n in pair]
    return lambda x, weight: getattr(F, f"conv{rank}d")(F.pad(x, around), weight, **more)


case("conv", conv(2, [0] * 4), "pointwise", x=normal(2, 3, 4, 5), weight=normal(4, 3, 1, 1))
case(
    "conv", lambda x, weight, bias: F.conv2d(x, weight, bias), "with a bias", x=normal(2, 3, 4, 5),
    weight=normal(4, 3, 1, 1), bias=normal(4),
)  # fmt: skip
STRIDED = {"strides": [2, 1], "pad_type": "custom", "pad": [1, 0, 2, 1]}
case(
    "conv", conv(2, [1, 0, 2, 1], stride=(2, 1)), "strided", x=normal(2, 3, 7, 6), weight=normal(4, 3, 3, 2),
    given=STRIDED,
)  # fmt: skip
D = normal(4, 3, 3, 2, seed=6)
case(
    "conv", lambda x: conv(2, [1, 0, 2, 1], stride=(2, 1), dilation=(1, 2))(x, torch.tensor(D)), "dilated",
    x=normal(2, 3, 7, 6), given={**STRIDED, "dilations": [1, 2], "weight": D}, constants=("weight",),
)  # fmt: skip
case(
    "conv", conv(2, [1, 1, 1, 1], groups=2), "in groups", x=normal(1, 4, 5, 5), weight=normal(6, 2, 3, 3),
    given={"pad_type": "same", "groups": 2},
)  # fmt: skip
case(
    "conv",
    conv(1, [0, 0], groups=3, stride=3),
    "of each channel",
    x=normal(2, 3, 11),
    weight=normal(3, 1, 2),
    given={"groups": 3, "strides": [3]},
)
case(
    "conv",
    conv(3, [0, 1] * 3, stride=2),
    "in space",
    x=normal(1, 2, 4, 5, 4),
    weight=normal(2, 2, 2, 3, 2),
    given={"pad_type": "custom", "pad": [0, 1] * 3, "strides": [2] * 3},
)
K = normal(3, 2, 3, 3, seed=4)


def turned(padding, **more):
    def compute(x):
        y = F.conv_transpose2d(x, torch.tensor(K), **more)
        top, bottom, left, right = padding
        return y[:, :, top : y.shape[2] - bottom, left : y.shape[3] - right]

    return compute


case("conv_transpose", turned([0] * 4), x=normal(2, 3, 4, 3), given={"weight": K}, constants=("weight",))
case(
    "conv_transpose", turned([1, 0, 0, 2], stride=2, dilation=(1, 2)), "strided", x=normal(2, 3, 4, 3),
    given={"weight": K, "strides": [2, 2], "dilations": [1, 2], "pad_type": "custom", "pad": [1, 0, 0, 2]},
    constants=("weight",),
)  # fmt: skip
POOL = {"kernel_sizes": [3, 2], "strides": [2, 2], "pad_type": "custom", "pad": [1, 1, 0, 0]}
case("avg_pool", lambda x: F.avg_pool2d(x, (3, 2), 2, (1, 0)), x=normal(2, 3, 6, 6), given=POOL)
case(
    "avg_pool", lambda x: F.avg_pool2d(x, (3, 2), 2, (1, 0), count_include_pad=False), "without padding",
    x=normal(2, 3, 6, 6), given={**POOL, "exclude_padding_from_average": True},
)  # fmt: skip
case(
    "avg_pool", lambda x: F.avg_pool2d(x, (4, 5)), "of all", x=normal(2, 3, 4, 5),
    given={"kernel_sizes": [4, 5], "strides": [1, 1], "pad_type": "valid"},
)  # fmt: skip
case("max_pool", lambda x: F.max_pool2d(x, (3, 2), 2, (1, 0)), x=apart(2, 3, 6, 6), given=POOL)
case(
    "max_pool", lambda x: F.max_pool2d(x, 2, 2, ceil_mode=True), "beyond the edge", x=apart(1, 2, 5, 5),
    given={"kernel_sizes": [2, 2], "strides": [2, 2], "pad_type": "valid", "ceil_mode": True},
)  # fmt: skip
case(
    "l2_pool",
    lambda x: F.lp_pool2d(x, 2, 2, 2),
    x=normal(1, 2, 4, 4),
    given={"kernel_sizes": [2, 2], "strides": [2, 2], "pad_type": "valid"},
)

# ---- norms ----------------------------------------------------------------------------------------

case("softmax", lambda x: torch.softmax(x, 1), x=A, given={"axis": 1})
GAMMA, OFFSET = uniform(0.5, 1.5, 4), normal(4, seed=5)
case(
    "layer_norm", lambda x: F.layer_norm(x, [4], torch.tensor(GAMMA), torch.tensor(OFFSET), 1e-3), x=A,
    given={"axes": [-1], "gamma": GAMMA, "beta": OFFSET, "epsilon": 1e-3}, constants=("gamma", "beta"),
)  # fmt: skip
case("layer_norm", lambda x: F.layer_norm(x, [3, 4]), "of two axes", x=A, given={"axes": [1, 2], "epsilon": 1e-5})
CHANNEL = uniform(0.5, 1.5, 3)
case(
    "instance_norm", lambda x: F.instance_norm(x, weight=torch.tensor(CHANNEL), eps=1e-3), x=normal(2, 3, 4, 2),
    given={"gamma": CHANNEL, "beta": CHANNEL * 0, "epsilon": 1e-3}, constants=("gamma", "beta"),
)  # fmt: skip
STATS = {"mean": normal(3), "variance": uniform(0.5, 2, 3), "gamma": CHANNEL, "beta": normal(3, seed=1)}
case(
    "batch_norm", lambda x: F.batch_norm(x, *(torch.tensor(v) for v in STATS.values()), eps=1e-3),
    x=normal(2, 3, 4, 2), given={**STATS, "epsilon": 1e-3}, constants=tuple(STATS),
)  # fmt: skip
case(
    "l2_norm", lambda x: x / torch.sqrt((x**2).sum((1, 2, 3), keepdim=True) + 1e-3), x=normal(2, 3, 4, 2),
    given={"epsilon": 1e-3},
)  # fmt: skip
case(
    "local_response_norm", lambda x: F.local_response_norm(x, 4, 0.5, 0.75, 1.2), x=normal(2, 5, 3, 2),
    given={"size": 4, "alpha": 0.5, "beta": 0.75, "k": 1.2},
)  # fmt: skip

# ---- reductions -----------------------------------------------------------------------------------

OVER = {"axes": [0, -1], "keep_dims": False}
case("reduce_sum", lambda x: x.sum((0, 2)), x=A, given=OVER)
case("reduce_mean", lambda x: x.mean((0, 2)), x=A, given=OVER)
case("reduce_mean", lambda x: x.mean(1, keepdim=True), "in place", x=A, given={"axes": [1], "keep_dims": True})
case("reduce_sum_square", lambda x: (x**2).sum((0, 2)), x=A, given=OVER)
case("reduce_l1_norm", lambda x: x.abs().sum((0, 2)), x=apart(2, 3, 4), given=OVER)
case("reduce_l2_norm", lambda x: x.norm(dim=(0, 2)), x=A, given=OVER)
case("reduce_log_sum", lambda x: x.sum((0, 2)).log(), x=uniform(0.5, 1.5, 2, 3, 4), given=OVER)
case("reduce_log_sum_exp", lambda x: torch.logsumexp(x, (0, 2)), x=A, given=OVER)
case("reduce_prod", lambda x: x.prod(2).prod(0), x=uniform(0.5, 1.5, 2, 3, 5), given=OVER)
case("reduce_max", lambda x: x.amax((0, 2)), x=apart(2, 3, 4), given=OVER)
case("reduce_min", lambda x: x.amin((0, 2)), x=apart(2, 3, 4), given=OVER)

# ---- attention ------------------------------------------------------------------------------------

Q, KEY, V = normal(2, 3, 4, 8), normal(2, 3, 5, 8, seed=1), normal(2, 3, 5, 6, seed=2)
case("scaled_dot_product_attention", F.scaled_dot_product_attention, query=Q, key=KEY, value=V)
case(
    "scaled_dot_product_attention", F.scaled_dot_product_attention, "with a mask", query=Q, key=KEY, value=V,
    attn_mask=normal(2, 3, 4, 5, seed=3),
)  # fmt: skip
SEEN = np.tril(np.ones((2, 3, 4, 5), bool), 1)
case(
    "scaled_dot_product_attention",
    lambda q, k, v: F.scaled_dot_product_attention(q, k, v, torch.from_numpy(SEEN)), "of what is seen",
    query=Q, key=KEY, value=V, given={"attn_mask": SEEN},
)  # fmt: skip

# ---- recurrent ------------------------------------------------------------------------------------

STEPS, BATCH, INPUTS, HIDDEN = 3, 2, 4, 3


def weights(gates, suffix="", seed=0):
    return {
        f"weight_ih{suffix}": normal(gates * HIDDEN, INPUTS, scale=0.5, seed=seed),
        f"weight_hh{suffix}": normal(gates * HIDDEN, HIDDEN, scale=0.5, seed=seed + 1),
        f"bias{suffix}": normal(gates * HIDDEN, scale=0.5, seed=seed + 2),
    }


def cell(kind, order, given, x, *states):
    """torch's one-layer module with these weights, whose gates stand in another order."""
    back = [("_reverse", "_back")] if "weight_ih_back" in given else []
    module = kind(INPUTS, HIDDEN, bidirectional=bool(back)).double()
    with torch.no_grad():
        for theirs, ours in [("", ""), *back]:
            for name, source in (("weight_ih", "weight_ih"), ("weight_hh", "weight_hh"), ("bias_hh", "bias")):
                parts = np.split(given[source + ours], len(order))
                value = torch.tensor(np.concatenate([parts[i] for i in order]))
                getattr(module, f"{name}_l0{theirs}").copy_(value)
            getattr(module, f"bias_ih_l0{theirs}").zero_()
    directions = 1 + len(back)
    split = [torch.stack(state.chunk(directions, 1)) for state in states]
    output, last = module(x, split[0] if len(split) == 1 else tuple(split))
    last = last if isinstance(last, tuple) else (last,)
    return output, *(torch.cat(list(state), 1) for state in last)


START = {"x": normal(STEPS, BATCH, INPUTS), "initial_h": normal(BATCH, HIDDEN, seed=1)}
RNN, GRU, LSTM = weights(1), weights(3), weights(4)
case(
    "rnn", lambda x, h: cell(torch.nn.RNN, [0], RNN, x, h), **START, given={**RNN, "output_sequence": True},
    constants=tuple(RNN),
)  # fmt: skip
case(
    "gru", lambda x, h: cell(torch.nn.GRU, [0, 2, 1], GRU, x.flip(0), h), **START,
    given={**GRU, "output_sequence": True, "reset_after": True, "direction": "reverse"}, constants=tuple(GRU),
)  # fmt: skip


def gru_before(x, h):
    (w_r, w_o, w_z), (r_r, r_o, r_z), (b_r, b_o, b_z) = (torch.tensor(v).chunk(3) for v in GRU.values())
    for step in x:
        z = torch.sigmoid(step @ w_z.T + h @ r_z.T + b_z)
        r = torch.sigmoid(step @ w_r.T + h @ r_r.T + b_r)
        o = torch.tanh(step @ w_o.T + (h * r) @ r_o.T + b_o)
        h = (1 - z) * o + z * h
    return h[None], h


case("gru", gru_before, "that resets before", **START, given=GRU, constants=tuple(GRU))
CELL = {"initial_c": normal(BATCH, HIDDEN, seed=2)}


def last_of(outputs):
    return outputs[0][-1:], *outputs[1:]


case(
    "lstm", lambda x, h, c: last_of(cell(torch.nn.LSTM, [0, 1, 3, 2], LSTM, x, h, c)), **START, **CELL, given=LSTM,
    constants=tuple(LSTM),
)  # fmt: skip
BOTH = {**LSTM, **weights(4, "_back", 7)}
TWICE = {name: normal(BATCH, 2 * HIDDEN, seed=i + 3) for i, name in enumerate(("initial_h", "initial_c"))}
case(
    "lstm", lambda x, h, c: cell(torch.nn.LSTM, [0, 1, 3, 2], BOTH, x, h, c), "in both directions", x=START["x"],
    **TWICE, given={**BOTH, "direction": "bidirectional", "output_sequence": True}, constants=tuple(BOTH),
)  # fmt: skip
PEEP = normal(3 * HIDDEN, seed=9)


def peephole(x, h, c):
    w, r, b = (torch.tensor(v) for v in LSTM.values())
    p_i, p_f, p_o = torch.tensor(PEEP).chunk(3)
    for step in x:
        i, f, o, z = (step @ w.T + h @ r.T + b).chunk(4, 1)
        i, f = torch.sigmoid(i + c * p_i), torch.sigmoid(f + c * p_f)
        c = torch.clamp(c * f + i * torch.tanh(z), -0.6, 0.6)
        h = torch.sigmoid(o + c * p_o) * torch.tanh(c)
    return h[None], h, c


case(
    "lstm", peephole, "with peepholes", **START, **CELL, given={**LSTM, "peephole": PEEP, "clip": 0.6},
    constants=(*LSTM, "peephole"),
)  # fmt: skip
