"""Recurrent ops as products and activations, step by step, for their gradients. The weights are constants."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from .gradient import ByParts, Use, constant_like

ACTIVATIONS: dict[str, Callable[[Any, Any], Any]] = {
    "tanh": lambda mb, x: mb.tanh(x=x),
    "scaled_tanh": lambda mb, x: mb.tanh(x=x),
    "sigmoid": lambda mb, x: mb.sigmoid(x=x),
    "hard_sigmoid": lambda mb, x: mb.sigmoid_hard(x=x, alpha=0.2, beta=0.5),
    "sigmoid_hard": lambda mb, x: mb.sigmoid_hard(x=x, alpha=0.2, beta=0.5),
    "relu": lambda mb, x: mb.relu(x=x),
    "linear": lambda mb, x: x,
}
States = list[Any]
Step = Callable[[Any, States], States]  # of the products with the input, and what was; the first is h


def _activation(use: Use, name: str, otherwise: str) -> Callable[[Any, Any], Any]:
    return ACTIVATIONS[str(use.value(name, otherwise))]


def _constant(use: Use, name: str, like: Any) -> Any:
    value = use.value(name)
    return None if value is None else constant_like(like, value)


def _times(mb: Any, x: Any, weight: Any, bias: Any = None) -> Any:
    """x [b, n], weight [m, n]"""
    product = mb.matmul(x=x, y=weight, transpose_x=False, transpose_y=True)
    return product if bias is None else mb.add(x=product, y=bias)


def _run(mb: Any, use: Use, step: Step, states: States, weight: str, bias: Any, backwards: bool) -> Sequence[Any]:
    """The h of every step, [1, b, H] each and in the order of the steps taken, and the last states."""
    x = use["x"]
    steps, batch, inputs = (int(n) for n in x.shape)
    flat = mb.reshape(x=x, shape=[steps * batch, inputs])
    products = _times(mb, flat, _constant(use, weight, x), bias)
    parts = mb.split(x=products, num_splits=steps, axis=0) if steps > 1 else [products]
    outputs = []
    for part in reversed(parts) if backwards else parts:
        states = step(part, states)
        outputs.append(mb.expand_dims(x=states[0], axes=[0]))
    return outputs, states


def _sequence(mb: Any, use: Use, outputs: Sequence[Any]) -> Any:
    if not use.value("output_sequence", False):
        return outputs[-1]
    return outputs[0] if len(outputs) == 1 else mb.concat(values=list(outputs), axis=0)


def _rnn(mb: Any, use: Use) -> Any:
    activation, h = _activation(use, "activation", "tanh"), use["initial_h"]
    recurrent = _constant(use, "weight_hh", h)

    def step(x: Any, states: States) -> States:
        return [activation(mb, mb.add(x=x, y=_times(mb, states[0], recurrent)))]

    backwards = str(use.value("direction", "forward")) == "reverse"
    outputs, states = _run(mb, use, step, [h], "weight_ih", _constant(use, "bias", h), backwards)
    return [_sequence(mb, use, outputs), states[0]]


def _gru(mb: Any, use: Use) -> Any:
    """Gates r, o, z; o takes the state times r, or, with reset_after, r times what the state and bias make."""
    gate, activation = _activation(use, "recurrent_activation", "sigmoid"), _activation(use, "activation", "tanh")
    h = use["initial_h"]
    w_r, w_o, w_z = np.split(_constant(use, "weight_hh", h), 3)
    bias, input_bias, after = (
        _constant(use, "bias", h),
        _constant(use, "input_bias", h),
        use.value("reset_after", False),
    )
    outer, inner = bias, np.zeros_like(w_o[:, 0])
    if after and bias is not None:  # the bias of o is inside the reset
        inner = np.split(bias, 3)[1]
        outer = np.concatenate([np.split(bias, 3)[0], np.zeros_like(inner), np.split(bias, 3)[2]])
    if input_bias is not None:
        outer = input_bias if outer is None else outer + input_bias

    def step(x: Any, states: States) -> States:
        before = states[0]
        x_r, x_o, x_z = mb.split(x=x, num_splits=3, axis=1)
        r = gate(mb, mb.add(x=x_r, y=_times(mb, before, w_r)))
        z = gate(mb, mb.add(x=x_z, y=_times(mb, before, w_z)))
        if after:
            reset = mb.mul(x=r, y=_times(mb, before, w_o, inner))
        else:
            reset = _times(mb, mb.mul(x=before, y=r), w_o)
        o = activation(mb, mb.add(x=x_o, y=reset))
        return [mb.add(x=o, y=mb.mul(x=z, y=mb.sub(x=before, y=o)))]

    backwards = str(use.value("direction", "forward")) == "reverse"
    outputs, states = _run(mb, use, step, [h], "weight_ih", outer, backwards)
    return [_sequence(mb, use, outputs), states[0]]


def _lstm_step(mb: Any, use: Use, suffix: str) -> Step:
    """Gates i, f, o, z; peepholes let i and f see the old cell, and o the new one."""
    gate = _activation(use, "recurrent_activation", "sigmoid")
    cell, activation = _activation(use, "cell_activation", "tanh"), _activation(use, "activation", "tanh")
    like, limit = use["initial_h"], use.value("clip")
    recurrent, peephole = _constant(use, f"weight_hh{suffix}", like), _constant(use, f"peephole{suffix}", like)
    peeps = [None] * 3 if peephole is None else np.split(peephole, 3)

    def peep(x: Any, c: Any, i: int) -> Any:
        return x if peeps[i] is None else mb.add(x=x, y=mb.mul(x=c, y=peeps[i]))

    def step(x: Any, states: States) -> States:
        h, c = states
        i, f, o, z = mb.split(x=mb.add(x=x, y=_times(mb, h, recurrent)), num_splits=4, axis=1)
        i, f = gate(mb, peep(i, c, 0)), gate(mb, peep(f, c, 1))
        c = mb.add(x=mb.mul(x=c, y=f), y=mb.mul(x=i, y=cell(mb, z)))
        if limit is not None:
            c = mb.clip(x=c, alpha=-float(limit), beta=float(limit))
        o = gate(mb, peep(o, c, 2))
        return [mb.mul(x=o, y=activation(mb, c)), c]

    return step


def _lstm(mb: Any, use: Use) -> Any:
    direction, h, c = str(use.value("direction", "forward")), use["initial_h"], use["initial_c"]
    if direction != "bidirectional":
        step = _lstm_step(mb, use, "")
        outputs, states = _run(
            mb, use, step, [h, c], "weight_ih", _constant(use, "bias", h), direction == "reverse"
        )  # fmt: skip
        return [_sequence(mb, use, outputs), *states]
    halves = list(zip(*(mb.split(x=state, num_splits=2, axis=1) for state in (h, c)), strict=True))
    sides, last = [], []
    for half, suffix in zip(halves, ("", "_back"), strict=True):
        step = _lstm_step(mb, use, suffix)
        bias = _constant(use, f"bias{suffix}", h)
        outputs, states = _run(mb, use, step, list(half), f"weight_ih{suffix}", bias, bool(suffix))
        keeps_order = suffix and use.value("output_sequence", False)
        sides.append(_sequence(mb, use, outputs[::-1] if keeps_order else outputs))
        last.append(states)
    return [
        mb.concat(values=sides, axis=2),
        *(mb.concat(values=[last[0][i], last[1][i]], axis=1) for i in range(2)),
    ]


rnn, gru, lstm = ByParts(_rnn), ByParts(_gru), ByParts(_lstm)
