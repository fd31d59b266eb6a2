"""Convolutions as panels of weights and outputs, and depthwise ones that read rows where they are; beside torch."""

import numpy as np
import pytest
import torch
from coremltools.converters.mil import Builder as mb
from fusion_case import Case
from torch.nn import functional

from anex import _native

PANELS = [  # x, output channels, taps, stride, padding, groups
    ((1, 24, 7, 7), 40, 1, 1, 0, 1),  # one output is left behind a panel
    ((2, 530, 13, 4), 9, 1, 1, 0, 1),  # four are, and k is cut
    ((3, 12, 5, 5), 24, 1, 1, 0, 3),
    ((1, 3, 33, 40), 12, 7, 2, 3, 1),
    ((1, 40, 14, 9), 22, 3, 2, 1, 2),
    ((1, 6, 14, 14), 6, 3, 1, 1, 6),  # depthwise from here on: rows shorter than a vector,
    ((2, 4, 15, 13), 8, 3, 2, 1, 4),
    ((1, 4, 9, 57), 4, 5, 1, 2, 4),  # and longer ones
    ((1, 4, 20, 90), 4, 5, 2, 0, 4),
    ((1, 5, 3, 3), 5, 3, 1, 1, 5),
]


@pytest.mark.parametrize("isa", _native.instruction_sets())
@pytest.mark.parametrize("dtype", ["float16", "float32"])
@pytest.mark.parametrize(("shape", "out", "taps", "stride", "pad", "groups"), PANELS)
def test_panels_and_what_is_left_of_them(rng, shape, out, taps, stride, pad, groups, dtype, isa):
    x = rng.normal(size=shape).astype(dtype)
    inner = shape[1] // groups
    weight = (rng.normal(size=(out, inner, taps, taps)) / np.sqrt(inner * taps**2)).astype(dtype)
    bias = rng.normal(size=out).astype(dtype)

    def graph(x):
        y = mb.conv(
            x=x, weight=weight, bias=bias, strides=[stride] * 2, pad_type="custom", pad=[pad] * 4, groups=groups
        )
        return mb.silu(x=y) if inner % 2 else mb.relu6(x=y)

    exact = [torch.tensor(each, dtype=torch.float64) for each in (x, weight, bias)]
    y = functional.conv2d(*exact, stride=stride, padding=pad, groups=groups)
    expected = (functional.silu(y) if inner % 2 else functional.relu6(y)).numpy()
    made = Case(graph, dtype=dtype, isa=isa, x=x)
    np.testing.assert_allclose(
        made.run(made.fused)[0], expected, rtol=0, atol={"float16": 4e-3, "float32": 1e-5}[dtype]
    )


@pytest.mark.parametrize("shape", [(1, 48, 200, 210), (1, 16, 14, 56, 60)])
def test_an_image_of_many_outputs_is_cut_into_as_many_tasks_as_it_takes(rng, shape):
    """A task keeps some panels of inputs in the cache, fewer of them the more inputs an output has."""
    x, axes = rng.normal(size=shape).astype(np.float32), len(shape) - 2
    weight = (rng.normal(size=(8, shape[1], *[3] * axes)) / np.sqrt(shape[1] * 3**axes)).astype(np.float32)
    made = Case(lambda x: mb.conv(x=x, weight=weight, pad_type="same"), dtype="float32", x=x)
    convolve = functional.conv2d if axes == 2 else functional.conv3d
    expected = convolve(torch.tensor(x), torch.tensor(weight), padding=1).numpy()
    np.testing.assert_allclose(made.run(made.fused)[0], expected, rtol=0, atol=1e-5)
