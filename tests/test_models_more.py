"""Further architectures, one of each kind that the first ten leave out, agree with torch in float64."""

from __future__ import annotations

import copy

import coremltools as ct
import numpy as np
import pytest
import torch
from models import more_sequence, more_vision
from test_models import Case, check, images, settled, tokens

import anex
from anex.comparison.shapes import fixed


def pairs(b: int, s: int, t: int):
    def make(random: torch.Generator) -> dict[str, torch.Tensor]:
        ids, targets = (torch.randint(300, (b, n), generator=random) for n in (s, t))
        return {"ids": ids, "targets": targets}

    return make


def decoding(b: int, frames: int):
    def make(random: torch.Generator) -> dict[str, torch.Tensor]:
        cache = [torch.randn(2, b, 4, 24, 16, generator=random) for _ in range(2)]
        memory = torch.randn(b, frames, 64, generator=random)
        ids, position = torch.randint(300, (b, 1), generator=random), torch.randint(24, (1,), generator=random)
        return {"ids": ids, "position": position, "memory": memory, "keys": cache[0], "values": cache[1]}

    return make


def series(*shape: int):
    return lambda random: {"x": torch.randn(*shape, generator=random)}


def noise(b: int, size: int):
    def make(random: torch.Generator) -> dict[str, torch.Tensor]:
        return {"x": torch.randn(b, 4, size, size, generator=random), "t": torch.rand(b, generator=random) * 4}

    return make


CASES = {
    "convnext-64": Case(more_vision.ConvNext, images(1, 3, 64, 64)),
    "convnext-batch": Case(more_vision.ConvNext, images(2, 3, 40, 72)),
    "densenet-64": Case(more_vision.DenseNet, images(1, 3, 64, 64)),
    "densenet-batch": Case(more_vision.DenseNet, images(2, 3, 53, 70)),
    "shufflenet-64": Case(more_vision.ShuffleNet, images(1, 3, 64, 64)),
    "shufflenet-batch": Case(more_vision.ShuffleNet, images(2, 3, 45, 64)),
    "inception-48": Case(more_vision.Inception, images(1, 3, 48, 48)),
    "inception-batch": Case(more_vision.Inception, images(2, 3, 45, 50)),
    "regnet-48": Case(more_vision.RegNet, images(1, 3, 48, 48)),
    "regnet-batch": Case(more_vision.RegNet, images(2, 3, 37, 48)),
    "mobilevit-32": Case(more_vision.MobileViT, images(1, 3, 32, 32)),
    "mobilevit-batch": Case(more_vision.MobileViT, images(2, 3, 40, 24)),
    "yolo-64": Case(more_vision.Detector, images(1, 3, 64, 64)),
    "yolo-batch": Case(more_vision.Detector, images(2, 3, 32, 48)),
    "diffusion-16": Case(more_vision.DiffusionUNet, noise(1, 16)),
    "diffusion-batch": Case(more_vision.DiffusionUNet, noise(2, 8)),
    "swin-64": Case(more_sequence.Swin, images(1, 3, 64, 64)),
    "swin-batch": Case(more_sequence.Swin, images(2, 3, 32, 64)),
    "t5-11": Case(more_sequence.T5, pairs(1, 11, 7)),
    "t5-batch": Case(more_sequence.T5, pairs(2, 18, 21)),
    "gru-9": Case(more_sequence.GruTagger, tokens(1, 9)),
    "gru-batch": Case(more_sequence.GruTagger, tokens(3, 14)),
    "tcn-50": Case(more_sequence.Tcn, series(1, 12, 50)),
    "tcn-batch": Case(more_sequence.Tcn, series(2, 12, 33)),
    "whisper-decoder-20": Case(more_sequence.WhisperDecoder, decoding(1, 20)),
    "whisper-decoder-batch": Case(more_sequence.WhisperDecoder, decoding(2, 9)),
    "mamba-12": Case(more_sequence.Mamba, series(1, 12, 24)),
    "mamba-steps-batch": Case(lambda: more_sequence.Mamba(chunked=False), series(2, 9, 24)),
}


@pytest.mark.parametrize("name", CASES)
def test_agrees_with_torch(name):
    check(CASES[name], "float32" if name.endswith("batch") else "float16")


def flexible(module, sizes, shapes, names, tmp_path):
    """The program that coremltools makes of ``module`` for inputs of flexible shape, written to a package and read."""
    traced = torch.jit.trace(module, tuple(torch.zeros(*shape) for shape in shapes))
    inputs = [ct.TensorType(name, shape=each) for name, each in zip(names, sizes, strict=True)]
    model = ct.convert(
        traced, inputs=inputs, minimum_deployment_target=ct.target.iOS17, compute_precision=ct.precision.FLOAT32,
        skip_model_load=True,
    )  # fmt: skip
    model.save(str(tmp_path / "m.mlpackage"))
    return anex.from_mlpackage(tmp_path / "m.mlpackage")


FLEXIBLE = {
    "tcn": (more_sequence.Tcn, (ct.RangeDim(1, 4), 12, ct.RangeDim(9, 99)), [(1, 12, 40), (3, 12, 77), (1, 12, 9)]),
    "mamba": (more_sequence.Mamba, (1, ct.RangeDim(2, 32), 24), [(1, 12, 24), (1, 5, 24)]),
    "shufflenet": (
        more_vision.ShuffleNet,
        (ct.RangeDim(1, 3), 3, ct.RangeDim(32, 96), ct.RangeDim(32, 96)),
        [(1, 3, 64, 64), (2, 3, 32, 90)],
    ),
    "convnext": (more_vision.ConvNext, ct.EnumeratedShapes([(1, 3, 64, 64), (1, 3, 32, 96)]), [(1, 3, 32, 96)]),
    "inception": (more_vision.Inception, ct.EnumeratedShapes([(1, 3, 48, 48), (2, 3, 57, 45)]), [(2, 3, 57, 45)]),
}


@pytest.mark.parametrize("name", FLEXIBLE)
def test_a_model_of_flexible_shape_runs_at_each_that_it_allows(name, tmp_path):
    make, sizes, shapes = FLEXIBLE[name]
    module = settled(Case(make, images(*shapes[0])))
    program = flexible(module, [sizes], shapes[:1], ["x"], tmp_path)
    exact = copy.deepcopy(module).double()
    for shape in shapes:
        x = torch.randn(*shape, generator=torch.Generator().manual_seed(3))
        found = np.asarray(anex.compile(fixed(program, {"x": shape}), device="cpu")(x.numpy()))
        with torch.no_grad():
            wanted = exact(x.double()).numpy()
        np.testing.assert_allclose(found, wanted, rtol=0, atol=1e-4 * np.abs(wanted).max())
