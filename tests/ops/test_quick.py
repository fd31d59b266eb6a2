"""What fast plans compute of float16 by shorter polynomials: every value there is, against float64."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F  # noqa: N812
from harness import run
from test_elementwise import alone

from anex import _native

ISAS = _native.instruction_sets()
HALVES = np.arange(1 << 16, dtype=np.uint16).view(np.float16)
GELU = {"EXACT": "none", "TANH_APPROXIMATION": "tanh"}


def units(found, wanted):
    """How far ``found`` is from ``wanted``, in float16's units in the last place there, at finite values."""
    finite = np.isfinite(wanted.astype(np.float16))
    np.testing.assert_array_equal(np.isnan(found), np.isnan(wanted))
    np.testing.assert_array_equal(found[~finite & ~np.isnan(wanted)], wanted[~finite & ~np.isnan(wanted)])
    spacing = np.spacing(np.abs(wanted[finite]).astype(np.float16)).astype(np.float64)
    return np.abs(found[finite].astype(np.float64) - wanted[finite]) / spacing


@pytest.mark.parametrize("isa", ISAS)
@pytest.mark.parametrize("op", ["sigmoid", "silu"])
def test_activations_of_every_float16_are_within_a_unit_in_the_last_place(op, isa):
    x = HALVES[~np.isinf(HALVES)]
    wanted = getattr(F, op)(torch.from_numpy(x.astype(np.float64))).numpy()
    assert units(alone(op, x, dtype="float16", isa=isa), wanted).max() < 0.75


@pytest.mark.parametrize("isa", ISAS)
@pytest.mark.parametrize("mode", GELU)
def test_gelu_of_every_float16_is_within_a_unit_in_the_last_place(mode, isa):
    x = HALVES[~np.isinf(HALVES)]
    wanted = F.gelu(torch.from_numpy(x.astype(np.float64)), approximate=GELU[mode]).numpy()
    assert units(alone("gelu", x, dtype="float16", isa=isa, extra=[mode]), wanted).max() < 0.75


@pytest.mark.parametrize("isa", ISAS)
def test_gelu_by_a_sigmoid_is_within_a_unit_in_the_last_place(isa):
    x = HALVES[~np.isinf(HALVES)]
    wide = torch.from_numpy(x.astype(np.float64))
    found = alone("gelu", x, dtype="float16", isa=isa, extra=["SIGMOID_APPROXIMATION"])
    assert units(found, (wide * torch.sigmoid(1.702 * wide)).numpy()).max() < 0.75


@pytest.mark.parametrize("isa", ISAS)
@pytest.mark.parametrize(
    ("shape", "axis"),
    [((3, 1000), 1), ((5, 64), 1), ((9, 130), 1), ((2, 33, 48), 1), ((2, 40, 300), 1), ((3, 9, 288), 1)],
)
def test_softmax_of_float16_is_within_a_unit_in_the_last_place(rng, shape, axis, isa):
    x = (rng.normal(size=shape) * 20).astype(np.float16)
    (found,) = run("softmax", x=x, axis=axis, isa=isa)
    assert units(found, torch.softmax(torch.from_numpy(x.astype(np.float64)), axis).numpy()).max() < 0.8


@pytest.mark.parametrize("isa", ISAS)
@pytest.mark.parametrize("axis", [0, 1])
def test_softmax_of_float16_over_one_element_is_one_or_nan(axis, isa):
    x = np.array([[0, 60000, -60000, np.nan, np.inf, -np.inf] + 58 * [1]], np.float16)
    (found,) = run("softmax", x=x if axis == 0 else x.T, axis=axis, isa=isa)
    np.testing.assert_array_equal(found.ravel(), np.where(np.isfinite(x), 1, np.nan).ravel())


@pytest.mark.parametrize("isa", ISAS)
@pytest.mark.parametrize("axis", [0, 1])
def test_softmax_of_float16_with_infinities_and_nan_is_torchs(axis, isa):
    x = np.zeros((64, 64), np.float16)
    x[3, 5], x[20, 9], x[30, 40], x[:, 50], x[60] = np.inf, np.nan, -np.inf, -np.inf, 60000
    (found,) = run("softmax", x=x, axis=axis, isa=isa)
    wanted = torch.softmax(torch.from_numpy(x.astype(np.float64)), axis).numpy()
    np.testing.assert_allclose(found, wanted, rtol=1e-3, atol=1e-7)


@pytest.mark.parametrize("isa", ISAS)
@pytest.mark.parametrize("axis", [0, 1])
@pytest.mark.parametrize("masked", [0, -30000, -np.inf])
@pytest.mark.parametrize("greatest", [50, 700, 60000])
def test_softmax_of_float16_finds_the_maximum_wherever_it_stands(rng, greatest, masked, axis, isa):
    x = rng.normal(size=(208, 208)).astype(np.float16)
    x[rng.random(x.shape) < 0.95] = masked
    np.fill_diagonal(x, greatest)
    x[100:104] = x[:, 100:104] = masked
    (found,) = run("softmax", x=x, axis=axis, isa=isa)
    wanted = torch.softmax(torch.from_numpy(x.astype(np.float64)), axis).numpy()
    np.testing.assert_allclose(found, wanted, rtol=1e-3, atol=1e-7)


@pytest.mark.parametrize("isa", ISAS)
@pytest.mark.parametrize(("shape", "axis"), [((3, 1000), 1), ((5, 64), 1), ((2, 33, 48), 1), ((2, 40, 300), 1)])
def test_layer_norm_of_float16_far_from_zero_keeps_its_digits(rng, shape, axis, isa):
    x = (rng.normal(size=shape) + 30).astype(np.float16)
    gamma, beta = (rng.normal(size=shape[axis]).astype(np.float16) for _ in range(2))
    given = {"gamma": gamma, "beta": beta, "epsilon": np.float16(1e-3)}
    (found,) = run("layer_norm", x=x, axes=[axis], **given, constants=["gamma", "beta"], isa=isa)
    moved = torch.from_numpy(np.moveaxis(x, axis, -1).astype(np.float64))
    scales = (torch.from_numpy(v.astype(np.float64)) for v in (gamma, beta))
    wanted = F.layer_norm(moved, (shape[axis],), *scales, eps=float(np.float16(1e-3))).numpy()
    np.testing.assert_allclose(np.moveaxis(found, axis, -1), wanted, rtol=2e-3, atol=2e-3)
