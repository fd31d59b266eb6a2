"""Whole architectures, as torch modules with random weights, agree with torch in float64."""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
import torch
from models import sequence, vision
from strict_case import everywhere

import anex
from anex import _native

# Of the largest magnitude of an output. In float16 every activation is rounded to 11 bits once per op.
TOLERANCE = {"float32": 1e-4, "float16": 2e-2}


def images(*shape: int) -> Callable[[torch.Generator], dict[str, torch.Tensor]]:
    return lambda random: {"x": torch.randn(*shape, generator=random)}


def tokens(*shape: int) -> Callable[[torch.Generator], dict[str, torch.Tensor]]:
    return lambda random: {"ids": torch.randint(300, shape, generator=random)}


def sentences(b: int, s: int) -> Callable[[torch.Generator], dict[str, torch.Tensor]]:
    """Two segments, and padding of another length in each row."""

    def make(random: torch.Generator) -> dict[str, torch.Tensor]:
        lengths = torch.randint(s // 2, s + 1, (b, 1), generator=random)
        at = torch.arange(s)
        types, mask = (at > lengths // 2).long(), (at < lengths).long()
        return {"ids": torch.randint(300, (b, s), generator=random), "types": types, "mask": mask}

    return make


def cached(b: int, s: int, past: int) -> Callable[[torch.Generator], dict[str, torch.Tensor]]:
    def make(random: torch.Generator) -> dict[str, torch.Tensor]:
        cache = [torch.randn(6, b, 2, past, 16, generator=random) for _ in range(2)]
        return {"x": torch.randn(b, s, 96, generator=random), "keys": cache[0], "values": cache[1]}

    return make


def mel(b: int, frames: int) -> Callable[[torch.Generator], dict[str, torch.Tensor]]:
    return lambda random: {"mel": torch.randn(b, 80, frames, generator=random)}


@dataclass
class Case:
    make: Callable[[], torch.nn.Module]
    inputs: Callable[[torch.Generator], dict[str, torch.Tensor]]
    times: float = 1  # more than TOLERANCE


CASES = {
    "resnet18-64": Case(vision.ResNet18, images(1, 3, 64, 64)),
    "resnet18-batch": Case(lambda: vision.ResNet18(width=16), images(3, 3, 50, 75)),
    "mobilenetv2-64": Case(vision.MobileNetV2, images(1, 3, 64, 64), 2.5),  # torch's own float16: 0.056
    "mobilenetv2-batch": Case(vision.MobileNetV2, images(2, 3, 33, 49)),
    "efficientnet-64": Case(vision.EfficientNet, images(1, 3, 64, 64)),
    "efficientnet-batch": Case(vision.EfficientNet, images(2, 3, 40, 33)),
    "unet-64": Case(vision.UNet, images(1, 3, 64, 64)),
    "unet-batch": Case(lambda: vision.UNet(width=8), images(2, 3, 32, 80)),
    "vit-32": Case(lambda: sequence.ViT((32, 32)), images(1, 3, 32, 32)),
    "vit-batch": Case(lambda: sequence.ViT((24, 40)), images(2, 3, 24, 40)),
    "bert-16": Case(sequence.Bert, sentences(1, 16)),
    "bert-batch": Case(sequence.Bert, sentences(3, 45)),
    "gpt2-16": Case(sequence.Gpt2, tokens(1, 16)),
    "gpt2-batch": Case(sequence.Gpt2, tokens(2, 33)),
    "llama-prompt": Case(sequence.Llama, cached(1, 12, 1)),
    "llama-token": Case(sequence.Llama, cached(2, 1, 31)),
    "whisper-60": Case(sequence.WhisperEncoder, mel(1, 60)),
    "whisper-batch": Case(sequence.WhisperEncoder, mel(2, 33)),
    "tagger-9": Case(sequence.LstmTagger, tokens(1, 9)),
    "tagger-batch": Case(sequence.LstmTagger, tokens(4, 21)),
}


def settled(case: Case) -> torch.nn.Module:
    """The module with random weights, and norms that have seen some data, so that activations stay near 1."""
    torch.manual_seed(0)
    module = case.make().train()
    norms = [m for m in module.modules() if isinstance(m, torch.nn.BatchNorm2d)]
    for norm in norms:
        norm.momentum = None
        torch.nn.init.uniform_(norm.weight, 0.5, 1.5)
        torch.nn.init.normal_(norm.bias, 0, 0.2)
    if norms:
        with torch.no_grad():
            shape = case.inputs(torch.Generator())["x"].shape
            module(torch.randn(16, *shape[1:]))
    return module.eval()


def arrays(result: Any) -> list[np.ndarray]:
    values = result.values() if isinstance(result, dict) else result if isinstance(result, tuple) else [result]
    return [np.asarray(value) for value in values]


def check(case: Case, precision: str) -> None:
    module = settled(case)
    exact = copy.deepcopy(module).double()
    random = torch.Generator().manual_seed(1)
    program = anex.compile(anex.from_torch(module, precision=precision, **case.inputs(random)), device="cpu")
    stats = program.stats()
    assert stats["arena_bytes"] <= 1.1 * stats["live_bytes_peak"]
    dtypes = [spec.dtype for spec in program.inputs.values()]
    for _ in range(2):  # a call leaves nothing behind for the next
        given = {name: x.half().float() if x.is_floating_point() else x for name, x in case.inputs(random).items()}
        found = arrays(program(*(x.numpy().astype(dtype) for x, dtype in zip(given.values(), dtypes, strict=True))))
        with torch.no_grad():
            wanted = arrays(exact(*(x.double() if x.is_floating_point() else x for x in given.values())))
        assert len(found) == len(wanted)
        for left, right in zip(found, wanted, strict=True):
            assert left.shape == right.shape
            assert left.dtype == precision
            np.testing.assert_allclose(
                left, right, rtol=0, atol=case.times * TOLERANCE[precision] * np.abs(right).max()
            )


@pytest.mark.parametrize("name", CASES)
def test_agrees_with_torch_in_float32(name):
    check(CASES[name], "float32")


@pytest.mark.parametrize("name", [name for name in CASES if not name.endswith("batch")])
def test_agrees_with_torch_in_float16(name):
    check(CASES[name], "float16")


@pytest.mark.parametrize("name", [name for name in CASES if not name.endswith("batch")])
def test_strict_programs_give_the_same_bytes_on_any_threads_and_instruction_set(name):
    case, random = CASES[name], torch.Generator().manual_seed(2)
    program = anex.from_torch(settled(case), precision="float16", **case.inputs(random))
    dtypes = [spec.dtype for spec in anex.compile(program).inputs.values()]
    given = [x.numpy().astype(dtype) for x, dtype in zip(case.inputs(random).values(), dtypes, strict=True)]
    found = everywhere(program, given)
    assert len({tuple(y.tobytes() for y in outputs) for outputs in found.values()}) == 1
    assert len(found) == 2 * len(_native.instruction_sets())
