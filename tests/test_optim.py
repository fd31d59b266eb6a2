"""``anex.optim`` against torch's optimizers: rules, masters, accumulation, clipping, loss scales, odd layouts."""

import numpy as np
import pytest
import torch

import anex
from anex import optim

SHAPES = {"w": (37, 41), "b": (41,), "deep": (3, 5, 7), "one": (1,), "long": (40_000,)}

RULES = {
    "sgd": (lambda p: optim.SGD(p, lr=0.1), lambda p: torch.optim.SGD(p, lr=0.1)),
    "momentum": (
        lambda p: optim.SGD(p, lr=0.1, momentum=0.9, weight_decay=0.1),
        lambda p: torch.optim.SGD(p, lr=0.1, momentum=0.9, weight_decay=0.1),
    ),
    "nesterov": (
        lambda p: optim.SGD(p, lr=0.1, momentum=0.8, nesterov=True),
        lambda p: torch.optim.SGD(p, lr=0.1, momentum=0.8, nesterov=True),
    ),
    "adam": (
        lambda p: optim.Adam(p, lr=0.01, weight_decay=0.1),
        lambda p: torch.optim.Adam(p, lr=0.01, weight_decay=0.1),
    ),
    "adamw": (
        lambda p: optim.AdamW(p, lr=0.01, betas=(0.8, 0.95), eps=1e-6, weight_decay=0.1),
        lambda p: torch.optim.AdamW(p, lr=0.01, betas=(0.8, 0.95), eps=1e-6, weight_decay=0.1),
    ),
}


def start(rng, dtype="float32", padded=False):
    values = {name: rng.normal(size=shape).astype(np.float32) for name, shape in SHAPES.items()}
    params = {}
    for name, value in values.items():
        params[name] = anex._native.Tensor(value.shape, dtype, padded)
        params[name][...] = value
    theirs = {name: torch.nn.Parameter(torch.tensor(np.asarray(p, np.float64))) for name, p in params.items()}
    return params, theirs


def gradients(rng, dtype=np.float32):
    return {name: rng.normal(size=shape).astype(dtype) for name, shape in SHAPES.items()}


def give(theirs, grads, scale=1.0):
    for name, parameter in theirs.items():
        parameter.grad = torch.tensor(np.asarray(grads[name], np.float64) * scale)


def same(params, theirs, rtol=2e-5):
    for name, parameter in theirs.items():
        np.testing.assert_allclose(np.asarray(params[name]), parameter.detach().numpy(), rtol=rtol, atol=rtol)


@pytest.mark.parametrize("padded", [False, True], ids=["packed", "padded rows"])
@pytest.mark.parametrize("rule", RULES)
def test_five_steps_are_torch_s(rng, rule, padded):
    params, theirs = start(rng, padded=padded)
    ours, other = (make(p) for make, p in zip(RULES[rule], (params, theirs.values()), strict=True))
    for _ in range(5):
        grads = gradients(rng)
        give(theirs, grads)
        assert ours.step(grads) is True
        other.step()
    same(params, theirs)
    assert ours.steps == 5


def test_small_steps_reach_float16_weights_through_their_masters(rng):
    params, theirs = start(rng, "float16")
    ours, other = optim.AdamW(params, lr=1e-5), torch.optim.AdamW(theirs.values(), lr=1e-5)
    for _ in range(20):
        grads = gradients(rng, np.float16)
        give(theirs, grads)
        ours.step(list(grads.values()))
        other.step()
    for name, parameter in theirs.items():
        master = np.asarray(ours.state[f"master.{name}"])
        np.testing.assert_allclose(master, parameter.detach().numpy(), rtol=1e-5, atol=1e-6)
        np.testing.assert_array_equal(np.asarray(params[name]), master.astype(np.float16))


def test_accumulated_gradients_are_the_mean(rng):
    params, theirs = start(rng)
    ours, other = optim.AdamW(params), torch.optim.AdamW(theirs.values())
    for _ in range(2):  # the sums start anew
        parts = [gradients(rng, dtype) for dtype in (np.float32, np.float16, np.float32)]
        for part in parts:
            ours.accumulate(part)
        give(theirs, {name: sum(np.asarray(p[name], np.float64) for p in parts) / 3 for name in SHAPES})
        assert ours.step()
        other.step()
    same(params, theirs)


def test_gradients_are_clipped_to_their_global_norm(rng):
    params, theirs = start(rng)
    ours, other = optim.SGD(params, lr=1.0, clip_norm=2.5), torch.optim.SGD(theirs.values(), lr=1.0)
    grads = gradients(rng)
    give(theirs, grads)
    norm = torch.nn.utils.clip_grad_norm_(theirs.values(), 2.5)
    ours.step({name: g * 8 for name, g in grads.items()}, loss_scale=8.0)
    other.step()
    assert ours.grad_norm == pytest.approx(float(norm), rel=1e-6)
    same(params, theirs)


@pytest.mark.parametrize("bad", [np.inf, -np.inf, np.nan])
def test_gradients_that_are_not_finite_change_nothing(rng, bad):
    params, _ = start(rng, "float16")
    ours = optim.AdamW(params)
    before = {name: np.array(t) for name, t in {**params, **ours.state}.items()}
    grads = gradients(rng, np.float16)
    grads["deep"][1, 2, 3] = bad
    assert ours.step(grads, loss_scale=1024.0) is False
    assert ours.steps == 0
    for name, value in before.items():
        np.testing.assert_array_equal(np.asarray({**params, **ours.state}[name]), value)


def test_a_rate_for_each_step_and_a_decay_for_some_weights(rng):
    params, theirs = start(rng)
    ours = optim.AdamW(params, weight_decay={"w": 0.3})
    other = torch.optim.AdamW([
        {"params": [theirs["w"]], "weight_decay": 0.3},
        {"params": [p for name, p in theirs.items() if name != "w"], "weight_decay": 0.0},
    ])  # fmt: skip
    for step in range(4):
        rate = optim.warmup_cosine(step, peak=0.1, steps=4, warmup=2)
        grads = gradients(rng)
        give(theirs, grads)
        for group in other.param_groups:
            group["lr"] = rate
        ours.step(grads, rate)
        other.step()
    same(params, theirs)


def test_every_number_of_threads_gives_the_same_bits(rng):
    seen = []
    threads = anex.get_num_threads()
    state = rng.bit_generator.state
    try:
        for count in (1, 2, 3):
            rng.bit_generator.state = state
            anex.set_num_threads(count)
            params, _ = start(rng)
            ours = optim.AdamW(params, clip_norm=1.0)
            ours.step(gradients(rng))
            seen.append([np.asarray(p).tobytes() for p in params.values()] + [ours.grad_norm])
    finally:
        anex.set_num_threads(threads)
    assert seen[0] == seen[1] == seen[2]


def test_a_state_that_is_loaded_goes_on_as_it_was(rng):
    params, _ = start(rng, "float16")
    ours = optim.AdamW(params, lr=0.01)
    ours.step(gradients(rng))
    other_params, _ = start(rng, "float16")
    other = optim.AdamW(other_params, lr=0.01)
    other.load({name: np.array(t) for name, t in ours.state.items()}, ours.steps)
    grads = gradients(rng)
    ours.step(grads)
    other.step(grads)
    for name in params:
        np.testing.assert_array_equal(np.asarray(params[name]), np.asarray(other_params[name]))


def test_the_weights_stay_where_they_are(rng):
    params, _ = start(rng)
    views = {name: np.asarray(p) for name, p in params.items()}
    optim.SGD(params, lr=1.0).step({name: np.ones(shape, np.float32) for name, shape in SHAPES.items()})
    for name, view in views.items():
        assert view.ctypes.data == np.asarray(params[name]).ctypes.data


def test_mistakes_are_named(rng):
    params, _ = start(rng)
    ours = optim.AdamW(params)
    grads = gradients(rng)
    with pytest.raises(anex.ArgumentError, match="deep"):
        ours.step({name: g for name, g in grads.items() if name != "deep"})
    with pytest.raises(anex.ArgumentError, match="4 gradients for 5"):
        ours.step(list(grads.values())[:4])
    with pytest.raises(anex.ShapeError, match="gradient"):
        ours.step({**grads, "w": np.zeros((41, 37), np.float32)})
    with pytest.raises(anex.DTypeError, match=r"int32.*float16 or float32"):
        ours.step({**grads, "b": np.zeros(41, np.int32)})
    with pytest.raises(anex.ArgumentError, match="accumulate"):
        ours.step()
    with pytest.raises(anex.DTypeError, match="int32"):
        optim.SGD({"n": anex.zeros((2,), dtype="int32")}, lr=1.0)
    with pytest.raises(anex.ArgumentError, match="no parameter"):
        optim.SGD(params, lr=1.0, weight_decay={"v": 0.1})
    with pytest.raises(anex.ArgumentError, match="momentum"):
        optim.SGD(params, lr=1.0, momentum=1.5)


def test_a_loss_scale_falls_with_overflow_and_rises_after_a_while():
    scale = optim.LossScale(4.0, interval=3)
    seen = []
    for applied in (True, False, True, True, True, True):
        scale.update(applied)
        seen.append(scale.value)
    assert seen == [4.0, 2.0, 2.0, 2.0, 4.0, 4.0]
    assert scale.tensor.shape == (1,)
