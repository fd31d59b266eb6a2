"""Training steps as one program, weights fed back without copies, packed weights, and the examples."""

import importlib.util
import warnings
from pathlib import Path

import numpy as np
import pytest
import torch

import anex
from anex import mb

ROOT = Path(__file__).parent.parent
SHAPES = {"w": (6, 5), "v": (5, 1)}


@anex.graph(x=anex.spec((4, 6), "float32"), **{name: anex.spec(shape, "float32") for name, shape in SHAPES.items()})
def loss(x, w, v):
    y = mb.matmul(x=mb.tanh(x=mb.matmul(x=x, y=w)), y=v)
    return mb.reduce_mean(x=mb.square(x=y), axes=[0, 1], keep_dims=True, name="loss")


def torch_loss(x, w, v):
    return (torch.tanh(torch.tensor(x, dtype=torch.float64) @ w) @ v).square().mean()


RULES = {
    "sgd": ({"rule": "sgd"}, lambda p: torch.optim.SGD(p, lr=0.1)),
    "momentum": (
        {"rule": "sgd", "momentum": 0.9, "weight_decay": 0.1},
        lambda p: torch.optim.SGD(p, lr=0.1, momentum=0.9, weight_decay=0.1),
    ),
    "adamw": (
        {"rule": "adamw", "betas": (0.8, 0.95), "eps": 1e-6, "weight_decay": 0.1},
        lambda p: torch.optim.AdamW(p, lr=0.1, betas=(0.8, 0.95), eps=1e-6, weight_decay=0.1),
    ),
}


def numbers(options, step):
    one = {"rate": np.full(1, 0.1, np.float32)}
    if options["rule"] == "adamw":
        for i, beta in enumerate(options["betas"], 1):
            one[f"correction{i}"] = np.full(1, 1 - beta**step, np.float32)
    return one


@pytest.mark.parametrize("rule", RULES)
def test_steps_of_one_program_are_torch_s(rng, rule):
    options, make = RULES[rule]
    start = {name: rng.normal(size=shape) for name, shape in SHAPES.items()}
    theirs = {name: torch.nn.Parameter(torch.tensor(value)) for name, value in start.items()}
    other = make(theirs.values())
    loop = anex.PingPong(anex.compile(anex.training_step(loss, SHAPES, **options)), start=start)
    for step in range(1, 6):
        x = rng.normal(size=(4, 6)).astype(np.float32)
        found = loop(x=x, **numbers(options, step))
        other.zero_grad()
        wanted = torch_loss(x, **theirs)
        wanted.backward()
        other.step()
        assert float(found["loss"][0, 0]) == pytest.approx(wanted.item(), rel=1e-4)
    for name, parameter in theirs.items():
        np.testing.assert_allclose(np.asarray(loop.current[name]), parameter.detach().numpy(), rtol=1e-3, atol=1e-4)


def test_clipped_steps_tell_the_norm(rng):
    start = {name: rng.normal(size=shape) for name, shape in SHAPES.items()}
    loop = anex.PingPong(anex.compile(anex.training_step(loss, SHAPES, clip_norm=1e-3)), start=start)
    x = rng.normal(size=(4, 6)).astype(np.float32)
    norm = float(loop(x=x, rate=np.ones(1, np.float32))["gradient_norm"][0])
    tensors = {name: torch.tensor(value, requires_grad=True) for name, value in start.items()}
    grads = torch.autograd.grad(torch_loss(x, **tensors), list(tensors.values()))
    assert norm == pytest.approx(float(torch.sqrt(sum((g**2).sum() for g in grads))), rel=1e-4)
    moved = sum(((np.asarray(loop.current[name]) - start[name]) ** 2).sum() for name in SHAPES)
    assert np.sqrt(moved) == pytest.approx(1e-3, rel=2e-3)


# ---- on every device ----------------------------------------------------------------------------------------------


@anex.graph(x=(1, 16, 1, 8), w=(1, 1, 16, 16), t=(1, 16, 1, 8))
def half_step(x, w, t):
    """A layer in the Neural Engine's layout, and its weight after a step of gradient descent."""
    rows = mb.transpose(x=mb.reshape(x=x, shape=[1, 1, 16, 8]), perm=[0, 1, 3, 2])
    y = mb.matmul(x=rows, y=w)
    target = mb.transpose(x=mb.reshape(x=t, shape=[1, 1, 16, 8]), perm=[0, 1, 3, 2])
    return mb.reduce_mean(x=mb.square(x=mb.sub(x=y, y=target)), axes=[2, 3], keep_dims=True, name="loss")


def compiled(program, device):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", anex.AneWarning)
        return anex.compile(program, device=device)


def test_a_layer_learns_on_every_device_without_a_copy_or_a_compilation(device, rng):
    aim = rng.normal(size=(16, 16)) * 0.3
    step = anex.training_step(half_step, ["w"])
    loop = anex.PingPong(compiled(step, device), start={"w": np.zeros((1, 1, 16, 16))})
    x, t, rate = anex.empty((1, 16, 1, 8)), anex.empty((1, 16, 1, 8)), anex.full((1,), 4.0, "float32")
    pair = {id(loop.current["w"])}
    account = anex._native.ane_account()["compiles"]
    losses = []
    for _ in range(150):
        x[...] = rng.normal(size=(1, 16, 1, 8))
        t[...] = np.einsum("io,nihp->nohp", aim, np.asarray(x, np.float64))
        losses.append(float(loop(x=x, t=t, rate=rate)["loss"].item()))
        pair.add(id(loop.current["w"]))
    assert len(pair) == 2
    assert anex._native.ane_account()["compiles"] == account
    assert losses[-1] < 0.02 * losses[0]
    assert loop.program.stats().get("staged", 0) == 0


@pytest.mark.parametrize("dtype", ["float16", "float32"])
def test_packed_weights_give_their_products_on_every_device(device, rng, dtype):
    packed = anex.Packed(24, 10, widths=[7, 32], dtype=dtype)

    @anex.graph(xw=packed.spec)
    def products(xw):
        first, second = packed.products(xw)
        return mb.identity(x=first, name="first"), mb.mul(x=second, y=1.0, name="second")

    program = compiled(products, device)
    xw = anex.zeros(packed.shape, dtype)
    x, weights = packed.activations(xw), [packed.matrix(xw, i) for i in range(2)]
    for _ in range(2):  # the second time with other weights, and the same program
        x[...] = rng.normal(size=x.shape)
        for weight in weights:
            weight[...] = rng.normal(size=weight.shape)
        for found, weight in zip(program(xw), weights, strict=True):
            wanted = weight.astype(np.float64).T @ x.astype(np.float64)
            np.testing.assert_allclose(np.asarray(found)[0, :, 0], wanted, rtol=2e-2, atol=2e-2)


def test_gradients_go_through_packed_weights(rng):
    packed = anex.Packed(5, 3, widths=[4], dtype="float32")

    @anex.graph(xw=packed.spec)
    def program(xw):
        (y,) = packed.products(xw)
        return mb.reduce_sum(x=mb.square(x=y), axes=[0, 1, 2, 3], keep_dims=True, name="loss")

    xw = anex.zeros(packed.shape, "float32")
    x, w = packed.activations(xw), packed.matrix(xw, 0)
    x[...], w[...] = rng.normal(size=x.shape), rng.normal(size=w.shape)
    _, gradient = anex.compile(anex.value_and_grad(program))(xw)
    tensors = [torch.tensor(a.astype(np.float64), requires_grad=True) for a in (x, w)]
    dx, dw = torch.autograd.grad((tensors[1].T @ tensors[0]).square().sum(), tensors)
    np.testing.assert_allclose(packed.activations(gradient), dx.numpy(), rtol=1e-4, atol=1e-4)
    np.testing.assert_allclose(packed.matrix(gradient, 0), dw.numpy(), rtol=1e-4, atol=1e-4)


def test_mistakes_are_named():
    step = anex.compile(anex.training_step(loss, ["w"]))
    with pytest.raises(anex.ArgumentError, match="nothing to carry"):
        anex.PingPong(anex.compile(loss))
    with pytest.raises(anex.ArgumentError, match="no such output or input"):
        anex.PingPong(step, carry={"new_u": "w"})
    with pytest.raises(anex.ShapeError, match=r"'loss' is \(1, 1\), and the input 'w' \(6, 5\)"):
        anex.PingPong(step, carry={"loss": "w"})
    with pytest.raises(anex.ArgumentError, match="start names v"):
        anex.PingPong(step, start={"v": np.zeros((5, 1))})
    with pytest.raises(anex.ShapeError, match="start 'w'"):
        anex.PingPong(step, start={"w": anex.zeros((5, 6), "float32")})
    with pytest.raises(anex.ArgumentError, match="rule='lion' is none of sgd, adamw"):
        anex.training_step(loss, rule="lion")
    with pytest.raises(anex.ShapeError, match="packed it is"):
        anex.Packed(2, 3, widths=[4]).activations(anex.zeros((1, 2, 1, 8)))


# ---- examples ---------------------------------------------------------------------------------------------------


def example(name):
    found = importlib.util.spec_from_file_location(name, ROOT / "examples" / f"{name}.py")
    module = importlib.util.module_from_spec(found)
    found.loader.exec_module(module)
    return module


def test_the_mlp_tells_spirals_apart(capsys):
    assert example("train_mlp").main() > 0.97
    assert "of new points are right" in capsys.readouterr().out
    lines = (ROOT / "examples" / "train_mlp.py").read_text().splitlines()
    assert sum(map(bool, lines)) <= 60  # an example to read at a glance


def test_the_network_reads_digits(capsys):
    assert example("train_digits").main(epochs=4) > 0.9
    assert "digits it has not seen" in capsys.readouterr().out
