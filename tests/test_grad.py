"""``anex.value_and_grad`` and ``anex.vjp``: whole programs, what they keep, and what they refuse."""

import numpy as np
import pytest
import torch
import transformer

import anex
from anex import mb

TOLERANCE = {"float32": 2e-4, "float16": 3e-2}


def torch_gradients(given, weights):
    tensors = {name: torch.tensor(np.asarray(w, np.float64), requires_grad=True) for name, w in weights.items()}
    loss = transformer.torch_loss(given, tensors)
    return loss.item(), dict(zip(weights, torch.autograd.grad(loss, list(tensors.values())), strict=True))


def compare(results, loss, wanted, tolerance):
    assert abs(float(np.asarray(results[0])[0]) - loss) < tolerance * max(1, abs(loss))
    for found, (name, gradient) in zip(results[1:], wanted.items(), strict=False):
        scale = float(gradient.abs().max())
        error = np.abs(np.asarray(found, np.float64) - gradient.numpy()).max()
        assert error <= tolerance * scale, f"{name}: {error} of {scale}"


@pytest.mark.parametrize("attention", [False, True])
@pytest.mark.parametrize("dtype", TOLERANCE)
def test_a_transformer_s_gradients_are_torch_s(dtype, attention):
    weights = {name: w.astype(dtype) for name, w in transformer.weights().items()}
    given = transformer.text()
    step = anex.compile(anex.value_and_grad(transformer.program(dtype, attention), weights))
    compare(step(**given, **weights), *torch_gradients(given, weights), TOLERANCE[dtype])


@pytest.mark.parametrize(
    "checkpoint", ["products", ["layer_0", "attended_1"], lambda op: op.op_type == "softmax", []],
    ids=["products", "layers", "a function", "nothing"],
)  # fmt: skip
def test_what_is_computed_again_changes_no_gradient(checkpoint):
    weights = {name: w.astype(np.float32) for name, w in transformer.weights().items()}
    given = transformer.text()
    program = transformer.program("float32")
    whole, again = (anex.value_and_grad(program, weights, checkpoint=c) for c in (None, checkpoint))
    counts = [len(p.functions["main"].operations) for p in (whole, again)]
    assert counts[0] < counts[1]
    results = [anex.compile(p)(**given, **weights) for p in (whole, again)]
    for a, b in zip(*results, strict=True):
        np.testing.assert_allclose(np.asarray(a), np.asarray(b), rtol=1e-5, atol=1e-6)


def test_less_is_kept_where_it_is_computed_again():
    @anex.graph(x=anex.spec((64, 64), "float32"), w=anex.spec((64, 64), "float32"))
    def chain(x, w):
        for i in range(12):
            x = mb.tanh(x=mb.sin(x=mb.matmul(x=x, y=w)), name=f"layer_{i}")
        return mb.reduce_sum(x=x, axes=[0, 1], keep_dims=True, name="loss")

    whole, again = (
        anex.compile(anex.value_and_grad(chain, checkpoint=c)).stats()["live_bytes_peak"]
        for c in (None, ["layer_3", "layer_7"])
    )
    assert again < whole * 0.8
