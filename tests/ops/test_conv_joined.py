"""Convolutions that run as one, with a depthwise one in their middle: beside torch, on every instruction set."""

import numpy as np
import pytest
import torch
from coremltools.converters.mil import Builder as mb
from fusion_case import Case
from torch.nn import functional

import anex
from anex import _native

pytestmark = pytest.mark.fuses

# x, taps and stride of the first conv (1: pointwise), channels, then of the depthwise one: taps, stride, padding,
# dilation; and the channels that a pointwise one behind them leaves, 0: there is none
JOINED = [
    ((1, 16, 14, 14), 1, 1, 96, (3, 3), (1, 1), (1, 1), (1, 1), 16),
    ((2, 24, 7, 7), 1, 1, 40, (3, 3), (1, 1), (1, 1), (1, 1), 24),  # channels that fill no vector
    ((1, 5, 33, 29), 1, 1, 70, (5, 5), (2, 2), (2, 2), (1, 1), 9),
    ((1, 8, 30, 4), 1, 1, 17, (3, 1), (2, 1), (1, 0), (2, 1), 20),  # rows shorter than a run
    ((3, 12, 9, 20), 1, 1, 144, (3, 3), (2, 2), (0, 0), (1, 1), 70),
    ((1, 160, 7, 7), 1, 1, 320, (3, 3), (1, 1), (1, 1), (1, 1), 160),  # in channels
    ((1, 30, 5, 5), 1, 1, 33, (7, 7), (1, 1), (3, 3), (1, 1), 30),
    ((1, 24, 90, 60), 1, 1, 48, (3, 3), (1, 1), (1, 1), (1, 1), 24),  # several bands of rows
    ((1, 3, 70, 61), 3, 2, 32, (3, 3), (1, 1), (1, 1), (1, 1), 16),  # the first conv gathers
    ((2, 3, 20, 33), 3, 1, 24, (5, 3), (1, 2), (2, 1), (1, 1), 0),
    ((1, 16, 40, 44), 1, 1, 40, (3, 3), (2, 2), (1, 1), (1, 1), 0),
    ((1, 12, 9, 7), 1, 1, 50, (3, 3), (1, 1), (4, 4), (2, 3), 0),  # bands that have only zeros
]
ACTIVATIONS = {"relu6": functional.relu6, "silu": functional.silu, "": lambda x: x}


def network(case, dtype, activation, rng):
    """A builder of the graph, its input, and what torch makes of it in float64."""
    shape, first, first_stride, channels, taps, stride, pad, dilation, out = case

    def weight(*sizes):
        return (rng.normal(size=sizes) / np.sqrt(np.prod(sizes[1:]))).astype(dtype)

    weights = weight(channels, shape[1], first, first), weight(channels, 1, *taps), weight(max(out, 1), channels, 1, 1)
    biases = [rng.normal(size=len(w)).astype(dtype) for w in weights]
    x = rng.normal(size=shape).astype(dtype)
    around, act = first // 2, ACTIVATIONS[activation]

    def graph(x):
        def active(y):
            return getattr(mb, activation)(x=y) if activation else y

        pads = [pad[0], pad[0], pad[1], pad[1]]
        y = mb.conv(
            x=x, weight=weights[0], bias=biases[0], strides=[first_stride] * 2, pad_type="custom", pad=[around] * 4
        )
        y = mb.conv(
            x=active(y), weight=weights[1], bias=biases[1], strides=list(stride), pad_type="custom", pad=pads,
            dilations=list(dilation), groups=channels,
        )  # fmt: skip
        y = active(y)
        if out:
            y = mb.conv(x=y, weight=weights[2], bias=biases[2])
            y = mb.add(x=x, y=y) if y.shape == x.shape else active(y)
        return y

    exact, *w = [torch.tensor(each, dtype=torch.float64) for each in (x, *weights)]
    b = [torch.tensor(each, dtype=torch.float64) for each in biases]
    y = act(functional.conv2d(exact, w[0], b[0], stride=first_stride, padding=around))
    y = act(functional.conv2d(y, w[1], b[1], stride=stride, padding=pad, dilation=dilation, groups=channels))
    if out:
        y = functional.conv2d(y, w[2], b[2])
        y = y + exact if y.shape == exact.shape else act(y)
    return graph, x, y.numpy()


@pytest.mark.parametrize("isa", _native.instruction_sets())
@pytest.mark.parametrize("dtype", ["float16", "float32"])
@pytest.mark.parametrize("case", JOINED, ids=str)
def test_convs_around_a_depthwise_one_are_one_node_and_close_to_torch(rng, case, dtype, isa):
    activation = ["relu6", "silu", ""][JOINED.index(case) % 3]
    graph, x, expected = network(case, dtype, activation, rng)
    made = Case(graph, dtype=dtype, isa=isa, x=x)
    assert made.nodes == 1
    np.testing.assert_allclose(
        made.run(made.fused)[0], expected, rtol=0, atol={"float16": 8e-3, "float32": 1e-5}[dtype]
    )


@pytest.mark.parametrize("case", JOINED, ids=str)
def test_threads_change_nothing_in_joined_convs(rng, case):
    graph, x, _ = network(case, "float16", "relu6", rng)
    made, before = Case(graph, dtype="float16", x=x), anex.get_num_threads()
    try:
        found = []
        for threads in (1, 2, 3, 5):
            anex.set_num_threads(threads)
            found.append(made.run(made.fused)[0].tobytes())
    finally:
        anex.set_num_threads(before)
    assert len({*found}) == 1


def test_a_joined_conv_keeps_operands_of_the_ops_behind_it(rng):
    graph, x, expected = network(JOINED[0], "float32", "relu6", rng)
    scale, shift = rng.normal(size=(1, 16, 1, 1)), rng.normal(size=(1, 1, 14, 14))

    def more(x):
        return mb.mul(x=mb.add(x=graph(x), y=shift.astype(np.float32)), y=scale.astype(np.float32))

    Case(more, x=x).check((expected + shift) * scale, nodes=1)


def test_a_value_that_somebody_else_reads_is_not_left_out(rng):
    w, filters = rng.normal(size=(32, 8, 1, 1)) / 3, rng.normal(size=(32, 1, 3, 3)) / 3

    def graph(x):
        y = mb.relu(x=mb.conv(x=x, weight=w.astype(np.float32)))
        return mb.add(x=mb.conv(x=y, weight=filters.astype(np.float32), pad_type="same", groups=32), y=y)

    x = rng.normal(size=(1, 8, 12, 12))
    y = functional.relu(functional.conv2d(torch.tensor(x), torch.tensor(w)))
    expected = functional.conv2d(y, torch.tensor(filters), padding=1, groups=32) + y
    Case(graph, x=x).check(expected.numpy(), nodes=2)


def test_not_a_number_stays_where_its_taps_reach(rng):
    graph, x, _ = network(JOINED[0], "float32", "silu", rng)
    x[0, 3, 5, 5] = np.nan
    made = Case(graph, x=x)
    found, strict = made.run(made.fused)[0], made.run(made.strict)[0]
    np.testing.assert_array_equal(np.isnan(found), np.isnan(strict))


def test_depthwise_planes_of_short_rows_end_where_they_end(rng):
    """A vector of seven outputs is stored whole: not into the plane behind it, which another thread may have made."""
    x, filters = rng.normal(size=(1, 640, 7, 7)), rng.normal(size=(640, 1, 3, 3)) / 3

    def graph(x):
        y = mb.conv(x=x, weight=filters.astype(np.float16), pad_type="same", groups=640)
        return mb.relu6(x=y)

    made, before = Case(graph, dtype="float16", x=x), anex.get_num_threads()
    exact = torch.tensor(x.astype(np.float16), dtype=torch.float64)
    expected = functional.relu6(functional.conv2d(exact, torch.tensor(filters), padding=1, groups=640)).numpy()
    try:
        for threads in (1, 2, 3):
            anex.set_num_threads(threads)
            np.testing.assert_allclose(made.run(made.fused)[0], expected, rtol=0, atol=1e-2)
    finally:
        anex.set_num_threads(before)
    room = np.full(640 * 49 + 64, 7, np.float16)
    out = room[: 640 * 49].reshape(1, 640, 7, 7)
    anex.compile(made.graph)(made.inputs["x"], out=out)
    assert (room[640 * 49 :] == 7).all()
