"""Torch modules whose parameters are inputs: gradients are torch autograd's, and training changes the module."""

import re
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F  # noqa: N812
from models import blocks, sequence, vision
from torch import nn

import anex
from anex import torch_plain


class Losing(nn.Module):
    """A module and its loss, (1,)."""

    def __init__(self, module, loss):
        super().__init__()
        self.module, self.loss = module, loss

    def forward(self, *given):
        return self.loss(self.module(*given)).reshape(1)


def squares(y):
    return y.square().mean()


def cubes(y):
    return (y * y * y).mean()


def classes(y):
    """Cross entropy of rows [.., classes] that are to be class 0, 1, 2, .."""
    rows = y.reshape(-1, y.shape[-1])
    return F.cross_entropy(rows, torch.arange(rows.shape[0]) % rows.shape[1])


class Mlp(nn.Sequential):
    def __init__(self):
        super().__init__(nn.Linear(8, 16), nn.GELU(), nn.Linear(16, 3), nn.LogSoftmax(-1))


class Cnn(nn.Module):
    """Convolutions with and without groups and dilation, batch norm, pooling."""

    def __init__(self):
        super().__init__()
        self.first = blocks.ConvNorm(3, 8, act=nn.ReLU6)
        self.second = nn.Conv2d(8, 16, 3, stride=2, groups=4, padding=1)
        self.third = nn.Conv2d(16, 8, 3, dilation=2, padding=2)
        self.head = nn.Linear(8, 5)
        for norm in (self.first[1],):
            norm.running_mean.normal_()
            norm.running_var.uniform_(0.5, 2)

    def forward(self, x):
        x = F.max_pool2d(self.first(x), 2)
        return self.head(F.relu(self.third(F.silu(self.second(x)))).mean((2, 3)))


class Tied(nn.Module):
    """A transformer that speaks: embeddings, layer norms, and the embedding once more for its logits."""

    def __init__(self):
        super().__init__()
        self.embedding = nn.Embedding(20, 16)
        self.block = blocks.PreNormBlock(16, 2)
        self.norm = nn.LayerNorm(16)
        self.head = nn.Linear(16, 20, bias=False)
        self.head.weight = self.embedding.weight

    def forward(self, ids):
        return self.head(self.norm(self.block(self.embedding(ids), blocks.causal(ids.shape[1]))))


class Attending(nn.Module):
    def __init__(self):
        super().__init__()
        self.layer = nn.TransformerEncoderLayer(16, 2, 32, batch_first=True, norm_first=True)

    def forward(self, x):
        return self.layer(x)


class Recurrent(nn.Module):
    def __init__(self, kind, **options):
        super().__init__()
        self.layer = kind(6, 5, **options)

    def forward(self, x):
        output, state = self.layer(x)
        return output * (state[-1] if isinstance(state, tuple) else state).mean()


class Cells(nn.Module):
    def __init__(self):
        super().__init__()
        self.gru, self.lstm, self.rnn = nn.GRUCell(6, 5), nn.LSTMCell(5, 5), nn.RNNCell(5, 5)

    def forward(self, x):
        h = torch.zeros(x.shape[1], 5, dtype=x.dtype)
        c = h
        for row in x:
            h = self.gru(row, h)
            h, c = self.lstm(h, (h, c))
        return self.rnn(h)


class Auto(nn.Sequential):
    def __init__(self):
        super().__init__(
            nn.Conv2d(2, 4, 3, 2, 1), nn.PReLU(4),
            nn.ConvTranspose2d(4, 6, 4, 2, 1, groups=2), nn.GroupNorm(3, 6), nn.PReLU(),
            nn.ConvTranspose2d(6, 2, (3, 2), (1, 2), dilation=(2, 1), bias=False), nn.InstanceNorm2d(2, affine=True),
        )  # fmt: skip


class Mixture(nn.Module):
    """The two best of four experts for each row, by topk and gather."""

    def __init__(self):
        super().__init__()
        self.gate, self.experts = nn.Linear(8, 4), nn.Parameter(torch.randn(4, 8, 8))

    def forward(self, x):
        chances, chosen = torch.topk(F.softmax(self.gate(x), -1), 2, -1)
        each = torch.einsum("nd,edf->nef", x, self.experts).gather(1, chosen[:, :, None].expand(-1, -1, 8))
        return torch.einsum("nk,nkd->nd", chances, each)


class Pair(nn.Bilinear):
    def __init__(self):
        super().__init__(4, 4, 3)

    def forward(self, x):
        return super().forward(x, x.cumsum(1))


def rows(*shape):
    return torch.randn(*shape)


MODELS = {
    "mlp": (Mlp, [rows, 5, 8], lambda y: F.nll_loss(y, torch.tensor([0, 2, -100, 1, 1]))),
    "cnn": (Cnn, [rows, 2, 3, 12, 12], classes),
    "tied embeddings": (Tied, [lambda *s: torch.randint(20, s), 2, 7], classes),
    "transformer layer": (Attending, [rows, 2, 5, 16], cubes),
    "lstm": (lambda: Recurrent(nn.LSTM, num_layers=2, bidirectional=True, batch_first=True), [rows, 2, 4, 6], squares),
    "gru": (lambda: Recurrent(nn.GRU, bias=False), [rows, 4, 2, 6], squares),
    "rnn": (lambda: Recurrent(nn.RNN, nonlinearity="relu"), [rows, 4, 2, 6], squares),
    "cells": (Cells, [rows, 3, 2, 6], squares),
    "autoencoder": (Auto, [rows, 2, 2, 6, 6], cubes),
    "mixture of experts": (Mixture, [rows, 5, 8], squares),
    "bilinear": (lambda: Pair(), [rows, 3, 4], squares),
    "residual": (lambda: vision.ResidualBlock(3, 6, 2), [rows, 2, 3, 9, 9], squares),
    "vit": (lambda: sequence.ViT((16, 16), width=16, heads=2, depth=1, classes=4), [rows, 2, 3, 16, 16], classes),
    "tagger": (lambda: sequence.LstmTagger(30, 6, 4), [lambda *s: torch.randint(30, s), 2, 3], classes),
}


@pytest.mark.parametrize("name", MODELS)
def test_gradients_of_a_module_s_parameters_are_autograd_s(name):
    torch.manual_seed(0)
    make, (draw, *shape), loss = MODELS[name]
    module, x = Losing(make(), loss).eval(), draw(*shape)
    program = anex.from_torch(module, x=x, precision="float32", trainable=True)
    weights = {each: np.array(value) for each, value in anex.torch_weights(module).items()}
    step = anex.compile(anex.value_and_grad(program, weights))
    found = step(x=x.numpy().astype(np.float32 if x.is_floating_point() else np.int32), **weights)
    wide = module.double()
    wanted = wide(x.double() if x.is_floating_point() else x)
    assert float(found[0][0]) == pytest.approx(wanted.item(), rel=1e-4)
    parameters = dict(wide.named_parameters())
    gradients = torch.autograd.grad(wanted, list(parameters.values()))
    largest = max(each.abs().max().item() for each in gradients)
    for each, gradient, (torchs, _) in zip(found[1:], gradients, parameters.items(), strict=True):
        own = max(gradient.abs().max().item(), 1e-3 * largest)
        np.testing.assert_allclose(np.asarray(each), gradient.numpy(), rtol=0, atol=3e-4 * own, err_msg=torchs)


@pytest.mark.filterwarnings("ignore::anex.AneWarning")
@pytest.mark.parametrize("name", ["mlp", "transformer layer", "autoencoder"])
def test_gradients_in_float16_are_autograd_s_on_every_device(device, name):
    torch.manual_seed(0)
    make, (draw, *shape), _ = MODELS[name]
    module, x = Losing(make(), squares).eval(), draw(*shape)
    program = anex.from_torch(module, x=x, trainable=True)
    weights = {each: np.array(value, np.float16) for each, value in anex.torch_weights(module).items()}
    step = anex.compile(anex.value_and_grad(program, weights, loss_scale=256.0), device=device)
    found = step(x=x.numpy().astype(np.float16), **weights)
    wanted = module.double()(x.double())
    gradients = torch.autograd.grad(wanted, list(module.parameters()))
    largest = max(each.abs().max().item() for each in gradients)
    for each, gradient, which in zip(found[1:], gradients, weights, strict=True):
        difference = np.abs(np.asarray(each, np.float64) / 256 - gradient.numpy()).max()
        assert difference < 1e-2 * largest, which


def test_a_module_learns_where_it_is(rng):
    """The arrays of ``torch_weights`` are the parameters' memory: copied back, the module is the trained one."""
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(2, 16), nn.Tanh(), nn.Linear(16, 2))

    class Step(nn.Module):
        def __init__(self):
            super().__init__()
            self.net = net

        def forward(self, x, labels):
            return F.cross_entropy(self.net(x), labels).reshape(1)

    module = Step()
    program = anex.from_torch(module, x=(64, 2), labels=anex.spec((64,), "int32"), precision="float32", trainable=True)
    weights = {name: anex.tensor(value, dtype="float32") for name, value in anex.torch_weights(module).items()}
    step, optimizer = anex.compile(anex.value_and_grad(program, weights)), anex.optim.Adam(weights, lr=0.02)
    for _ in range(150):
        x = rng.normal(size=(64, 2)).astype(np.float32)
        labels = (x[:, 0] * x[:, 1] > 0).astype(np.int32)
        _, *gradients = step(x=x, labels=labels, **weights)
        optimizer.step(gradients)
    for name, array in anex.torch_weights(module).items():
        array[...] = weights[name]
    with torch.no_grad():
        right = net(torch.from_numpy(x)).argmax(1).numpy() == labels
    assert right.mean() > 0.85


def test_a_module_is_left_as_it_was_also_where_its_forward_fails():
    class Falling(nn.Module):
        def __init__(self):
            super().__init__()
            self.lstm, self.off = nn.LSTM(3, 4, bias=False), nn.Parameter(torch.zeros(2))

        def forward(self, x):
            y, _ = self.lstm(x)
            if fails:
                raise RuntimeError("it fell")
            return y.sum() + self.off

    module, lstm = Falling(), torch._VF.lstm
    before = [(name, id(each)) for name, each in module.named_parameters()]
    for fails in (False, True):
        if fails:
            with pytest.raises(anex.CompileError, match="it fell"):
                anex.from_torch(module, x=(5, 1, 3), trainable=True)
        else:
            anex.from_torch(module, x=(5, 1, 3), trainable=True)
        assert [(name, id(each)) for name, each in module.named_parameters()] == before
        assert [id(each) for each in module.lstm._flat_weights] == [each for _, each in before if _ != "off"]
        assert torch._VF.lstm == lstm
        assert F.cross_entropy.__module__ == "torch.nn.functional"


def test_constants_that_are_subtracted_stay_what_they_are():
    """coremltools' fuse_conv_bias negates them in place, each time that it meets them."""

    class Centred(nn.Module):
        def __init__(self):
            super().__init__()
            self.one, self.two = nn.Conv2d(3, 4, 1), nn.Conv2d(3, 4, 1)
            self.register_buffer("mean", torch.arange(4.0)[:, None, None])

        def forward(self, x):
            return (self.one(x) - self.mean) * (self.two(x) - self.mean)

    module, x = Centred(), torch.randn(1, 3, 2, 2)
    wanted = module(x).detach().numpy()
    program = anex.compile(anex.from_torch(module, x=x, precision="float32"))
    np.testing.assert_allclose(np.asarray(program(x.numpy())), wanted, rtol=1e-4, atol=1e-5)
    assert module.mean.ravel().tolist() == [0, 1, 2, 3]


def test_mistakes_are_named():
    class Scaled(nn.Module):
        def __init__(self):
            super().__init__()
            self.x, self.scale = nn.Parameter(torch.ones(2)), nn.Parameter(torch.tensor(2.0))

        def forward(self, x):
            return x * self.x * self.scale

    with pytest.raises(anex.ArgumentError, match="x is a parameter too; give the examples in order"):
        anex.from_torch(Scaled(), x=(2,), trainable=True)
    with pytest.raises(anex.ShapeError, match=r"'scale' has rank 0.*make it \(1,\)"):
        anex.from_torch(Scaled(), given=(2,), trainable=True)
    with pytest.raises(anex.ArgumentError, match="no floating parameters"):
        anex.from_torch(nn.Tanh(), x=(2,), trainable=True)
    traced = torch.jit.trace(nn.Linear(2, 2), torch.zeros(1, 2))
    with pytest.raises(anex.ArgumentError, match="built in; give the nn"):
        anex.from_torch(traced, x=(1, 2), trainable=True)


# ---- the functions that stand in for torch's, in torch -----------------------------------------------------------

torch.manual_seed(0)
LOGITS, LABELS = (
    torch.randn(4, 5, 3, dtype=torch.float64),
    torch.tensor([[0, 4, 1], [2, 2, -100], [3, 0, 0], [1, 4, 4]]),
)
SHARES, COUNTS = LOGITS.flip(0).softmax(1), torch.tensor([1.0, 2.0, 0.5, 1.5, 3.0], dtype=torch.float64)
A, B = torch.randn(4, 6, dtype=torch.float64), torch.rand(4, 6, dtype=torch.float64)
LOSSES = [
    ("cross_entropy", (LOGITS, LABELS), {}),
    ("cross_entropy", (LOGITS, LABELS), {"weight": COUNTS, "label_smoothing": 0.2}),
    ("cross_entropy", (LOGITS, LABELS.relu()), {"label_smoothing": 0.1, "ignore_index": 4}),
    ("cross_entropy", (LOGITS, SHARES), {"label_smoothing": 0.1, "weight": COUNTS}),
    ("cross_entropy", (LOGITS[0, :, 0], torch.tensor(3)), {}),
    ("nll_loss", (LOGITS, LABELS), {"weight": COUNTS}),
    ("binary_cross_entropy", (B, B.flip(0)), {"weight": A.abs()}),
    ("binary_cross_entropy_with_logits", (A * 30, B), {"pos_weight": B[0] * 3, "weight": A.abs()}),
    ("mse_loss", (A, B), {}),
    ("l1_loss", (A, B), {}),
    ("smooth_l1_loss", (A, B), {"beta": 0.4}),
    ("huber_loss", (A, B), {"delta": 0.4}),
    ("kl_div", (A, B), {}),
    ("kl_div", (A, B.log()), {"log_target": True}),
]  # fmt: skip


@pytest.mark.parametrize("reduction", ["mean", "sum", "none"])
@pytest.mark.parametrize(("name", "given", "options"), LOSSES, ids=[each[0] for each in LOSSES])
def test_losses_are_torch_s(name, given, options, reduction):
    found = getattr(torch_plain, name)(*given, **options, reduction=reduction)
    wanted = getattr(F, name)(*given, **options, reduction=reduction)
    torch.testing.assert_close(found, wanted)


def test_other_functions_are_torch_s():
    weight, bias = torch.randn(3, 4, 5, dtype=torch.float64), torch.randn(3, dtype=torch.float64)
    x, y = torch.randn(2, 6, 4, dtype=torch.float64), torch.randn(2, 6, 5, dtype=torch.float64)
    torch.testing.assert_close(torch_plain.bilinear(x, y, weight, bias), F.bilinear(x, y, weight, bias))
    torch.testing.assert_close(torch_plain.logsigmoid(x * 50), F.logsigmoid(x * 50))
    for slopes in (bias[:1], torch.randn(6, dtype=torch.float64)):
        torch.testing.assert_close(torch_plain.prelu(x, slopes), F.prelu(x, slopes))


def test_each_stands_in_for_a_function_of_torch_with_its_parameters():
    from inspect import signature

    replaced = re.findall(r'"(\w+)": (\w+)[,}]', Path(torch_plain.__file__).read_text())
    checked = 0
    for name, ours in replaced:
        theirs, made = getattr(F, name, None), getattr(torch_plain, ours, None)
        if made and callable(theirs) and not isinstance(theirs, type(len)):
            assert list(signature(made).parameters) == list(signature(theirs).parameters), name
            checked += 1
    assert checked >= 9
