"""3x3 convolutions that are made in squares of outputs, and what ends a product in registers; beside torch."""

import numpy as np
import pytest
import torch
from coremltools.converters.mil import Builder as mb
from fusion_case import Case
from torch.nn import functional

from anex import _native

ISAS = _native.instruction_sets()


def convolved(x, weight, bias, pad, groups=1):
    x, weight, bias = (torch.tensor(each, dtype=torch.float64) for each in (x, weight, bias))
    padded = functional.pad(x, (pad[2], pad[3], pad[0], pad[1]))
    return functional.conv2d(padded, weight, bias, groups=groups).numpy()


def case(rng, shape, out, pad, dtype, isa, *, groups=1, end=None, special=()):
    """conv, and `end` of its result; each of `special` is put somewhere into x. Also: torch's value of the conv."""
    x = rng.normal(size=shape).astype(dtype)
    for i, value in enumerate(special):
        x[0, i, shape[2] // (i + 1) - 1, shape[3] // 2] = value
    weight = (rng.normal(size=(out, shape[1] // groups, 3, 3)) / np.sqrt(9 * shape[1] / groups)).astype(dtype)
    bias = rng.normal(size=out).astype(dtype)

    def graph(x):
        y = mb.conv(x=x, weight=weight, bias=bias, pad_type="custom", pad=list(pad), groups=groups)
        return mb.identity(x=y) if end is None else end(y)

    return Case(graph, dtype=dtype, isa=isa, x=x), convolved(x, weight, bias, pad, groups)


@pytest.mark.parametrize("isa", ISAS)
@pytest.mark.parametrize("dtype", ["float16", "float32"])
@pytest.mark.parametrize(
    ("shape", "out", "pad"),
    [((1, 32, 20, 22), 32, (1, 1, 1, 1)), ((2, 17, 9, 15), 19, (0, 0, 0, 0)), ((1, 16, 8, 150), 16, (2, 1, 0, 2)),
     ((1, 300, 14, 14), 16, (1, 1, 1, 1)), ((5, 64, 7, 7), 20, (1, 1, 1, 1))],
)  # fmt: skip
def test_squares_of_outputs_err_no_more_than_rounding_does(rng, shape, out, pad, dtype, isa):
    made, expected = case(rng, shape, out, pad, dtype, isa)
    bound = {"float16": 2**-11 * np.abs(expected).max(), "float32": 1e-5}[dtype]
    np.testing.assert_allclose(made.run(made.fused)[0], expected, rtol=0, atol=bound)


@pytest.mark.parametrize("isa", ISAS)
@pytest.mark.parametrize("dtype", ["float16", "float32"])
def test_numbers_that_are_not_finite_reach_only_the_outputs_that_read_them(rng, dtype, isa):
    special = (np.inf, -np.inf, np.nan)
    made, expected = case(rng, (1, 32, 24, 24), 32, (1, 1, 1, 1), dtype, isa, special=special)
    assert 0 < np.isfinite(expected).sum() < expected.size
    made.check(expected)


@pytest.mark.parametrize("isa", ISAS)
@pytest.mark.parametrize("groups", [1, 24], ids=["dense", "depthwise"])
def test_a_residual_and_bounds_at_the_end_of_a_convolution(rng, groups, isa):
    more = rng.normal(size=(1, 24, 21, 19)).astype("float16")

    def end(y):
        return mb.clip(x=mb.add(x=more, y=y), alpha=-0.5, beta=1.25)

    made, expected = case(rng, (1, 24, 21, 19), 24, (1, 1, 1, 1), "float16", isa, groups=groups, end=end)
    made.check(np.clip(expected + more, -0.5, 1.25), nodes=1)
