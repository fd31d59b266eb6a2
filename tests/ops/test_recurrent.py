"""lstm, gru and rnn, against torch in float64, and where torch has no such thing, coremltools' tests' own formulas."""

import itertools

import numpy as np
import pytest
import torch
from harness import check, run

import anex
from anex import _native
from anex.errors import Error

ISAS = _native.instruction_sets()
SIZES = [(1, 1, 1, 1), (5, 1, 3, 4), (3, 2, 17, 33), (4, 5, 8, 16), (2, 9, 1, 3)]  # s, b, I, H
ACTIVATIONS = {
    "tanh": np.tanh,
    "scaled_tanh": np.tanh,
    "sigmoid": lambda x: 1 / (1 + np.exp(-x)),
    "hard_sigmoid": lambda x: np.clip(0.2 * x + 0.5, 0, 1),
    "relu": lambda x: np.maximum(x, 0),
    "linear": lambda x: x,
}
WEIGHTS = [
    "weight_ih",
    "weight_hh",
    "bias",
    "peephole",
    "weight_ih_back",
    "weight_hh_back",
    "bias_back",
    "peephole_back",
    "input_bias",
]


def weights(rng, gates, inputs, hidden, bias=True):
    return {
        "weight_ih": rng.normal(size=(gates * hidden, inputs)) / np.sqrt(inputs),
        "weight_hh": rng.normal(size=(gates * hidden, hidden)) / np.sqrt(hidden),
        **({"bias": rng.normal(size=gates * hidden)} if bias else {}),
    }


def reorder(array, order):
    """Blocks of gates from MIL's order to torch's."""
    parts = np.split(array, len(order))
    return torch.tensor(np.concatenate([parts[i] for i in order]))


def torch_cell(kind, order, x, states, given, back=None):
    """A one-layer torch module in float64 with these weights, run forward (and back)."""
    cell = kind(x.shape[2], given["weight_hh"].shape[1], bias=True, bidirectional=back is not None).double()
    with torch.no_grad():
        for suffix, source in (("", given), *((("_reverse", back),) if back else ())):
            zeros = np.zeros(len(source["weight_hh"]))
            getattr(cell, f"weight_ih_l0{suffix}").copy_(reorder(source["weight_ih"], order))
            getattr(cell, f"weight_hh_l0{suffix}").copy_(reorder(source["weight_hh"], order))
            getattr(cell, f"bias_ih_l0{suffix}").copy_(reorder(source.get("input_bias", zeros), order))
            getattr(cell, f"bias_hh_l0{suffix}").copy_(reorder(source.get("bias", zeros), order))
        directions = 2 if back else 1
        states = [torch.tensor(np.stack(np.split(state, directions, 1))) for state in states]
        output, last = cell(torch.tensor(x.copy()), states[0] if len(states) == 1 else tuple(states))
    last = last if isinstance(last, tuple) else (last,)
    return output.numpy(), *(np.concatenate(list(state.numpy()), 1) for state in last)


def check_cell(op, kind, order, rng, size, *, direction="forward", sequence=True, bias=True, device="cpu", **more):
    s, b, inputs, hidden = size
    x, h, c = rng.normal(size=(s, b, inputs)), rng.normal(size=(b, hidden)), rng.normal(size=(b, hidden))
    states = {"initial_h": h, "initial_c": c} if op == "lstm" else {"initial_h": h}

    def expected(x, initial_h, initial_c=None, **given):
        x = x[::-1] if direction == "reverse" else x
        output, *last = torch_cell(kind, order, x, [initial_h] if initial_c is None else [initial_h, initial_c], given)
        return output if sequence else output[-1:], *last

    arguments = weights(rng, len(order), inputs, hidden, bias)
    check(
        op,
        x=x,
        **states,
        **arguments,
        direction=direction,
        output_sequence=sequence,
        expected=expected,
        constants=WEIGHTS,
        device=device,
        **more,
    )


CELLS = {"lstm": (torch.nn.LSTM, [0, 1, 3, 2]), "rnn": (torch.nn.RNN, [0]), "gru": (torch.nn.GRU, [0, 2, 1])}


@pytest.mark.parametrize("direction", ["forward", "reverse"])
@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("op", ["lstm", "rnn"])
def test_one_direction_is_torch_s(device, rng, op, size, direction):
    for sequence, bias in itertools.product((True, False), repeat=2):
        check_cell(op, *CELLS[op], rng, size, direction=direction, sequence=sequence, bias=bias, device=device)


@pytest.mark.cpu_engine
def test_an_initial_state_may_have_more_rows_than_the_batch(rng):
    """As coremltools converts torch's packed sequences; Core ML takes the first ones."""
    x, h = rng.normal(size=(5, 3, 4)).astype("float32"), rng.normal(size=(5, 6)).astype("float32")
    given = weights(rng, 4, 4, 6, True)
    given = {name: array.astype("float32") for name, array in given.items()}
    wanted = run("lstm", x=x, initial_h=h[:3], initial_c=-h[:3], **given, constants=WEIGHTS)
    for left, right in zip(
        run("lstm", x=x, initial_h=h, initial_c=-h, **given, constants=WEIGHTS), wanted, strict=True
    ):
        np.testing.assert_array_equal(left, right)
    with pytest.raises(anex.Error, match="18 elements"):
        run("lstm", x=x, initial_h=h[:2], initial_c=h[:3], **given, constants=WEIGHTS)


@pytest.mark.parametrize("direction", ["forward", "reverse"])
@pytest.mark.parametrize("size", SIZES)
def test_gru_that_resets_after_is_torch_s(device, rng, size, direction):
    for sequence in (True, False):
        check_cell(
            "gru",
            *CELLS["gru"],
            rng,
            size,
            direction=direction,
            sequence=sequence,
            reset_after=True,
            input_bias=rng.normal(size=3 * size[3]),
            device=device,
        )


@pytest.mark.parametrize("sequence", [True, False])
@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("size", SIZES)
def test_bidirectional_lstm_is_torch_s(device, rng, size, bias, sequence):
    s, b, inputs, hidden = size
    forward, back = weights(rng, 4, inputs, hidden, bias), weights(rng, 4, inputs, hidden, bias)

    def expected(x, initial_h, initial_c, **given):
        back = {name[:-5]: given.pop(name) for name in list(given) if name.endswith("_back")}
        output, *last = torch_cell(*CELLS["lstm"], x, [initial_h, initial_c], given, back)
        if not sequence:
            output = np.concatenate([output[-1:, :, :hidden], output[:1, :, hidden:]], 2)
        return output, *last

    check(
        "lstm",
        x=rng.normal(size=(s, b, inputs)),
        initial_h=rng.normal(size=(b, 2 * hidden)),
        initial_c=rng.normal(size=(b, 2 * hidden)),
        **forward,
        **{f"{name}_back": value for name, value in back.items()},
        direction="bidirectional",
        output_sequence=sequence,
        expected=expected,
        constants=WEIGHTS,
        device=device,
    )


@pytest.mark.parametrize("isa", ISAS)
@pytest.mark.parametrize("op", ["lstm", "rnn", "gru"])
@pytest.mark.parametrize("size", [(40, 1, 128, 128), (6, 7, 65, 130), (1, 2, 300, 40)])
def test_larger_cells_on_every_instruction_set(rng, isa, op, size):
    more = {"reset_after": True} if op == "gru" else {}
    check_cell(op, *CELLS[op], rng, size, isa=isa, **more)


# ---- what torch has not: the formulas of coremltools' tests -----------------------------------------------


def numpy_gru(x, initial_h, weight_ih, weight_hh, bias, recurrent, activation):
    (w_r, w_o, w_z), (r_r, r_o, r_z), (b_r, b_o, b_z) = (np.split(a, 3) for a in (weight_ih, weight_hh, bias))
    h, output = initial_h, []
    for step in x:
        z = recurrent(step @ w_z.T + h @ r_z.T + b_z)
        r = recurrent(step @ w_r.T + h @ r_r.T + b_r)
        o = activation(step @ w_o.T + (h * r) @ r_o.T + b_o)
        h = (1 - z) * o + z * h
        output.append(h)
    return np.stack(output), h


@pytest.mark.parametrize("activation", ACTIVATIONS)
@pytest.mark.parametrize("recurrent", ["sigmoid", "tanh", "hard_sigmoid"])
def test_gru_resets_before_unless_asked_otherwise(device, rng, recurrent, activation):
    def expected(x, initial_h, weight_ih, weight_hh, bias, **_):
        return numpy_gru(x, initial_h, weight_ih, weight_hh, bias, ACTIVATIONS[recurrent], ACTIVATIONS[activation])

    check(
        "gru",
        x=rng.normal(size=(4, 3, 5)),
        initial_h=rng.normal(size=(3, 17)),
        **weights(rng, 3, 5, 17),
        output_sequence=True,
        recurrent_activation=recurrent,
        activation=activation,
        expected=expected,
        constants=WEIGHTS,
        device=device,
    )


@pytest.mark.parametrize("opset", ["iOS15", "iOS16", "iOS17", "iOS18"])
def test_gru_of_every_opset(device, rng, opset):
    def expected(x, initial_h, weight_ih, weight_hh, bias, **_):
        return numpy_gru(x, initial_h, weight_ih, weight_hh, bias, ACTIVATIONS["sigmoid"], np.tanh)

    check(
        "gru",
        x=rng.normal(size=(4, 3, 5)),
        initial_h=rng.normal(size=(3, 7)),
        **weights(rng, 3, 5, 7),
        output_sequence=True,
        expected=expected,
        constants=WEIGHTS,
        opset=opset,
        dtype="float32",
        device=device,
    )


def numpy_lstm(x, h, c, given, recurrent, cell, activation, clip):
    w_i, w_f, w_o, w_z = np.split(given["weight_ih"], 4)
    r_i, r_f, r_o, r_z = np.split(given["weight_hh"], 4)
    b_i, b_f, b_o, b_z = np.split(given["bias"], 4)
    p_i, p_f, p_o = np.split(given["peephole"], 3)
    output = []
    for step in x:
        i = recurrent(step @ w_i.T + h @ r_i.T + b_i + c * p_i)
        f = recurrent(step @ w_f.T + h @ r_f.T + b_f + c * p_f)
        z = cell(step @ w_z.T + h @ r_z.T + b_z)
        c = np.clip(c * f + i * z, -clip, clip)
        o = recurrent(step @ w_o.T + h @ r_o.T + b_o + c * p_o)
        h = o * activation(c)
        output.append(h)
    return np.stack(output), h, c


@pytest.mark.parametrize("clip", [50.0, 0.2])
@pytest.mark.parametrize(
    "names", [("sigmoid", "tanh", "relu"), ("hard_sigmoid", "linear", "scaled_tanh"), ("tanh", "relu", "sigmoid")]
)
def test_lstm_with_peepholes_clip_and_other_activations(device, rng, names, clip):
    def expected(x, initial_h, initial_c, **given):
        return numpy_lstm(x, initial_h, initial_c, given, *(ACTIVATIONS[name] for name in names), clip)

    recurrent, cell, activation = names
    check(
        "lstm",
        x=rng.normal(size=(5, 3, 6)),
        initial_h=rng.normal(size=(3, 17)),
        initial_c=0.1 * rng.normal(size=(3, 17)),
        **weights(rng, 4, 6, 17),
        peephole=rng.normal(size=51),
        clip=np.array(clip),
        output_sequence=True,
        recurrent_activation=recurrent,
        cell_activation=cell,
        activation=activation,
        expected=expected,
        constants=WEIGHTS,
        device=device,
    )


@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_rnn_with_every_activation(device, rng, activation):
    def expected(x, initial_h, weight_ih, weight_hh, bias, **_):
        h, output = initial_h, []
        for step in x:
            h = ACTIVATIONS[activation](step @ weight_ih.T + h @ weight_hh.T + bias)
            output.append(h)
        return np.stack(output), h

    check(
        "rnn",
        x=rng.normal(size=(4, 3, 5)),
        initial_h=rng.normal(size=(3, 9)),
        **weights(rng, 1, 5, 9),
        output_sequence=True,
        activation=activation,
        expected=expected,
        constants=WEIGHTS,
        device=device,
    )


@pytest.mark.cpu_engine
def test_an_unknown_activation_is_named(device, rng):
    with pytest.raises((Error, ValueError), match="softsign"):
        run(
            "rnn",
            x=np.zeros((1, 1, 2), "float32"),
            initial_h=np.zeros((1, 3), "float32"),
            weight_ih=np.zeros((3, 2), "float32"),
            weight_hh=np.zeros((3, 3), "float32"),
            activation="softsign",
            constants=WEIGHTS,
            device=device,
        )


@pytest.mark.cpu_engine
def test_threads_do_not_change_a_bit(rng):
    s, b, inputs, hidden = 20, 9, 40, 64
    arguments = {name: value.astype("float16") for name, value in weights(rng, 4, inputs, hidden).items()}
    x, h = rng.normal(size=(s, b, inputs)).astype("float16"), np.zeros((b, hidden), "float16")
    before = anex.get_num_threads()
    try:
        results = []
        for threads in (1, 2, 5):
            anex.set_num_threads(threads)
            results.append(
                run("lstm", x=x, initial_h=h, initial_c=h, **arguments, output_sequence=True, constants=WEIGHTS)
            )
    finally:
        anex.set_num_threads(before)
    assert all((found == first).all() for result in results for found, first in zip(result, results[0], strict=True))
