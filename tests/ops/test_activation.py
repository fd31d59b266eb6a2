"""Activations: values against coremltools or torch, special values, channels, opsets, errors."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F  # noqa: N812
from harness import check, run
from test_elementwise import alone

import anex

# numpy, the reference, warns about what is tested here on purpose
pytestmark = pytest.mark.filterwarnings("ignore:.*encountered in:RuntimeWarning")

ALPHA, BETA = np.float32(0.3), np.float32(1.7)
PLAIN = ["relu", "relu6", "sigmoid", "softplus", "softsign"]
WITH_ALPHA = ["elu", "leaky_relu", "thresholded_relu"]
WITH_BOTH = ["clamped_relu", "linear_activation", "scaled_tanh", "sigmoid_hard"]
MODES = ["EXACT", "TANH_APPROXIMATION", "SIGMOID_APPROXIMATION"]
SPECIAL = np.array([0.0, -0.0, 1.0, -1.0, 30, -30, 200, -200, np.inf, -np.inf, np.nan], np.float32)


def torchs(function, **given):
    """``function`` of torch on float64, as an expectation."""
    return lambda x, **_: function(torch.from_numpy(np.array(x, np.float64)), **given).numpy()


@pytest.mark.parametrize("shape", [(1,), (17,), (3, 33), (2, 3, 4), (1, 64, 1, 32), (2, 1, 3, 1, 5)])
@pytest.mark.parametrize("op", PLAIN)
def test_activations_without_constants(device, rng, op, shape):
    check(op, x=rng.normal(size=shape) * 4, device=device)


@pytest.mark.parametrize("opset", ["iOS15", "iOS17"])
@pytest.mark.parametrize("op", WITH_ALPHA)
def test_activations_with_alpha(device, rng, op, opset):
    check(op, x=rng.normal(size=(3, 33)) * 4, alpha=ALPHA, device=device, opset=opset, dtype="float32")


@pytest.mark.parametrize("opset", ["iOS15", "iOS17"])
@pytest.mark.parametrize("op", WITH_BOTH)
def test_activations_with_alpha_and_beta(device, rng, op, opset):
    check(op, x=rng.normal(size=(3, 33)) * 4, alpha=ALPHA, beta=BETA, device=device, opset=opset, dtype="float32")


@pytest.mark.parametrize("op", WITH_ALPHA + WITH_BOTH)
def test_constants_may_have_another_dtype(device, rng, op):
    beta = {"beta": BETA} if op in WITH_BOTH else {}
    check(op, x=rng.normal(size=(3, 33)) * 4, alpha=ALPHA, **beta, device=device, dtype="float16")


def test_clamped_relu_below_zero_follows_the_documentation(device, rng):
    def expected(x, alpha, beta):
        return np.minimum(np.where(x >= 0, x, alpha * x), beta)

    x = rng.normal(size=(3, 33))
    check("clamped_relu", x=x, alpha=-ALPHA, beta=np.float32(-0.1), device=device, dtype="float32", expected=expected)


def test_silu(device, rng):
    check("silu", x=rng.normal(size=(2, 3, 33)) * 4, device=device, expected=torchs(F.silu))


@pytest.mark.parametrize("mode", MODES)
def test_gelu_in_every_mode(device, rng, mode):
    check("gelu", x=rng.normal(size=(2, 3, 33)) * 3, mode=mode, device=device)


@pytest.mark.parametrize(("mode", "torchs_name"), [("EXACT", "none"), ("TANH_APPROXIMATION", "tanh")])
def test_gelu_is_torchs(device, rng, mode, torchs_name):
    x, expected = rng.normal(size=(5, 100)) * 3, torchs(F.gelu, approximate=torchs_name)
    check("gelu", x=x, mode=mode, device=device, dtype="float32", rtol=1e-6, expected=expected)


def test_gelu_is_exact_when_nothing_is_said(rng):
    x = rng.normal(size=50).astype(np.float32)
    wanted = torchs(F.gelu)(x)
    np.testing.assert_allclose(alone("gelu", x, dtype="float32"), wanted, atol=1e-6)


@pytest.mark.parametrize(
    ("op", "function"),
    [("relu", F.relu), ("relu6", F.relu6), ("sigmoid", torch.sigmoid), ("softplus", F.softplus), ("silu", F.silu),
     ("softsign", F.softsign)],
)  # fmt: skip
def test_special_values_are_torchs(device, op, function):
    check(op, x=SPECIAL, device=device, dtype="float32", expected=torchs(function))


def test_elu_near_zero_keeps_its_digits(device):
    x = -(2.0 ** np.arange(-30.0, 5))
    check("elu", x=x, alpha=ALPHA, device=device, dtype="float32", rtol=1e-6, atol=0,
          expected=lambda x, alpha: np.float64(ALPHA) * np.expm1(x))  # fmt: skip


def test_sigmoid_far_below_zero_keeps_its_digits(device):
    def expected(x):
        return 1 / (1 + np.exp(-x))

    x = np.linspace(-100, 0, 400)
    check("sigmoid", x=x, device=device, dtype="float32", rtol=1e-6, atol=1e-44, expected=expected)


@pytest.mark.parametrize("op", ["gelu", "silu", "softplus"])
def test_activations_of_tensors_that_are_split_among_threads(device, rng, op):
    function = {"gelu": F.gelu, "silu": F.silu, "softplus": F.softplus}[op]
    check(op, x=rng.normal(size=(2, 300, 1031)), device=device, dtype="float16", expected=torchs(function))


# ---- per channel ----------------------------------------------------------------------------------


@pytest.mark.parametrize("opset", ["iOS15", "iOS17"])
def test_prelu_has_an_alpha_per_channel(device, rng, opset):
    x, alpha = rng.normal(size=(2, 5, 4, 9)), rng.normal(size=5)
    check("prelu", x=x, alpha=alpha, constants=("alpha",), device=device, opset=opset)


@pytest.mark.parametrize("shape", [(2, 5, 7), (1, 3, 1), (2, 3, 2, 3, 4)])
def test_prelu_of_other_ranks_has_one_alpha(device, rng, shape):
    alpha = np.full(shape[1], 0.25)
    check("prelu", x=rng.normal(size=shape), alpha=alpha, constants=("alpha",), device=device)


@pytest.mark.parametrize("shape", [(2, 5, 4, 9), (1, 5, 1), (3, 5, 2, 1, 300)])
def test_softplus_parametric_has_constants_per_channel(device, rng, shape):
    x, alpha, beta = rng.normal(size=shape), rng.normal(size=5), rng.normal(size=5)
    check("softplus_parametric", x=x, alpha=alpha, beta=beta, constants=("alpha", "beta"), device=device)


def test_prelu_may_learn_its_alpha(rng):
    x, alpha = rng.normal(size=(2, 5, 4)).astype(np.float16), rng.normal(size=5).astype(np.float32)
    wanted = np.where(x < 0, x * alpha[:, None], x).astype(np.float16)
    np.testing.assert_allclose(alone("prelu", x, alpha, dtype="float16", shape=x.shape), wanted, rtol=1e-3)


# ---- errors ---------------------------------------------------------------------------------------


def test_prelu_refuses_an_alpha_of_another_length():
    with pytest.raises(anex.Error, match=r"x has 5 channels"):
        alone("prelu", np.zeros((2, 5, 4), np.float32), np.zeros(4, np.float32), dtype="float32", shape=(2, 5, 4))


def test_gelu_refuses_an_unknown_mode():
    with pytest.raises(anex.Error, match=r"mode is \"FAST\"; it can be EXACT"):
        alone("gelu", np.zeros(3, np.float32), dtype="float32", extra=("FAST",))


def test_integers_have_no_activations():
    with pytest.raises(anex.UnsupportedError, match="no kernel for int32"):
        alone("relu", np.zeros(3, np.int32), dtype="int32")


def test_alpha_must_be_constant():
    with pytest.raises(anex.UnsupportedError, match="needs it as a constant"):
        alone("elu", np.zeros(3, np.float32), np.zeros(1, np.float32), dtype="float32", shape=(3,))


def test_outputs_may_be_smaller_than_a_vector(device):
    for n in range(1, 20):
        (y,) = run("relu", x=np.linspace(-1, 1, n).astype(np.float16), device=device)
        assert (y >= 0).all()
        assert y.shape == (n,)
