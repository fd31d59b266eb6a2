"""Whole networks: torch modules with random weights, ours by way of ``anex.from_torch``; and MiniLM, written for it."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from ..case import Case, Goal, Limit, Setting, Work, normal
from ..peers import export, of_anex, of_numpy, of_onnxruntime, of_openvino, of_torch
from ..runtimes import ROOT
from .blocks import CHANNELS, HEADS, gelu


def _case(title: str, make: Callable[[], Any], shape: tuple[int, ...], flops: float) -> Case:
    def inputs() -> dict[str, np.ndarray]:
        return {"x": normal(shape)}

    def program(dtype: str) -> Any:
        import anex

        return anex.from_torch(make(), precision=dtype, x=shape)

    return Case(
        title,
        {
            "anex fp16": of_anex(program, inputs),
            "anex fp32": of_anex(program, inputs, dtype="float32"),
            "torch fp32": of_torch(make, inputs),
            "torch fp32 channels_last": of_torch(make, inputs, channels_last=True),
            "onnxruntime fp32": of_onnxruntime(inputs),
            "openvino fp32": of_openvino(inputs),
        }
        if len(shape) == 4
        else {
            "anex fp16": of_anex(program, inputs),
            "anex fp32": of_anex(program, inputs, dtype="float32"),
            "torch fp32": of_torch(make, inputs),
            "onnxruntime fp32": of_onnxruntime(inputs),
            "openvino fp32": of_openvino(inputs),
        },
        goals=[Goal("anex fp16", "openvino fp32", 1.1)],
        limits=[Limit("fma", flops)],
        tolerance=0.05,  # every layer rounds to float16
        files={"model.onnx": export(make, inputs)},
    )


def _models() -> Any:
    """The architectures that the tests have."""
    sys.path.insert(0, str(ROOT / "tests"))
    from models import blocks, vision

    return blocks, vision


def _settled(name: str, side: int) -> Any:
    """A network whose norms have seen data, so that activations stay near 1, as after training."""
    import torch

    _, vision = _models()
    torch.manual_seed(0)
    module = getattr(vision, name)().train()
    for norm in module.modules():
        if isinstance(norm, torch.nn.BatchNorm2d):
            norm.momentum = None
    with torch.no_grad():
        module(torch.from_numpy(normal((4, 3, side, side), seed=1)))
    return module.eval()


def resnet(side: int = 224) -> Case:
    shape = (1, 3, side, side)
    return _case(f"ResNet-18, {side}x{side}", lambda: _settled("ResNet18", side), shape, 3.63e9 * (side / 224) ** 2)


def mobilenet(side: int = 224) -> Case:
    shape = (1, 3, side, side)
    return _case(f"MobileNetV2, {side}x{side}", lambda: _settled("MobileNetV2", side), shape, 0.6e9 * (side / 224) ** 2)


def encoder(layers: int = 12, length: int = 128) -> Case:
    def make() -> Any:
        import torch

        blocks, _ = _models()
        torch.manual_seed(0)
        made = [blocks.PreNormBlock(CHANNELS, HEADS, blocks.FusedAttention) for _ in range(layers)]
        return torch.nn.Sequential(*made, torch.nn.LayerNorm(CHANNELS)).eval()

    flops = layers * length * (24 * CHANNELS**2 + 4 * length * CHANNELS)
    return _case(f"transformer encoder, {layers} layers of 768, S={length}", make, (1, length, CHANNELS), flops)


def minilm(length: int) -> Case:
    """all-MiniLM-L6-v2 on one sentence of exactly ``length`` tokens: from summed embeddings to a unit vector."""
    sys.path.insert(0, str(ROOT / "examples" / "minilm"))

    def encoder() -> Any:
        from encoder import Encoder

        return Encoder()

    def inputs() -> dict[str, np.ndarray]:
        return {"x": normal((1, length, 384), scale=0.1)}

    def in_anex(setting: Setting) -> Work:
        import anex

        program = anex.compile(encoder().build(length))
        x = anex.tensor(np.ascontiguousarray(inputs()["x"].transpose(0, 2, 1))[:, :, None], dtype="float16")
        mask, mean = anex.zeros((1, 1, 1, length)), anex.full((1, 1, 1, length), 1 / length, "float16")
        out = anex.empty_like(program.outputs["embedding"])
        return Work(lambda: program(x, mask, mean, out=out), lambda: np.asarray(out))

    def module() -> Any:
        import torch
        from minilm_torch import MiniLM

        class Unpadded(torch.nn.Module):
            def __init__(self) -> None:
                super().__init__()
                found = encoder()
                self.model = MiniLM(found.weights, found.config)

            def forward(self, x: Any) -> Any:
                return self.model.encode(x, None)

        return Unpadded()

    def in_numpy(setting: Setting) -> Work:
        found = encoder()

        def call(x: np.ndarray) -> np.ndarray:
            return _minilm_in_numpy(found.weights, found.config, x[0])[None]

        return of_numpy(call, inputs)(setting)

    return Case(
        f"MiniLM-L6, S={length}",
        {
            "anex fp16": in_anex,
            "numpy fp32": in_numpy,
            "torch fp32": of_torch(module, inputs),
            "onnxruntime fp32": of_onnxruntime(inputs),
            "openvino fp32": of_openvino(inputs),
        },
        limits=[Limit("fma", 6 * length * (24 * 384**2 + 4 * length * 384))],
        files={"model.onnx": export(module, inputs)},
    )


def _minilm_in_numpy(weights: Mapping[str, np.ndarray], config: Mapping[str, Any], x: np.ndarray) -> np.ndarray:
    """The encoder in plain numpy: x [S, 384] to a unit vector [384]."""
    heads = config["num_attention_heads"]

    def linear(x: np.ndarray, name: str) -> np.ndarray:
        return x @ weights[name + ".weight"].T + weights[name + ".bias"]

    def norm(x: np.ndarray, name: str) -> np.ndarray:
        x = x - x.mean(-1, keepdims=True)
        x = x / np.sqrt((x * x).mean(-1, keepdims=True) + 1e-12)
        return x * weights[name + ".weight"] + weights[name + ".bias"]

    x = norm(x, "embeddings.LayerNorm")
    for i in range(config["num_hidden_layers"]):
        at = f"encoder.layer.{i}."
        q, k, v = (
            linear(x, f"{at}attention.self.{name}").reshape(len(x), heads, -1).swapaxes(0, 1)
            for name in ("query", "key", "value")
        )
        scores = q @ k.swapaxes(1, 2) / np.sqrt(q.shape[-1])
        scores = np.exp(scores - scores.max(-1, keepdims=True))
        mixed = (scores / scores.sum(-1, keepdims=True)) @ v
        mixed = mixed.swapaxes(0, 1).reshape(x.shape)
        x = norm(x + linear(mixed, at + "attention.output.dense"), at + "attention.output.LayerNorm")
        hidden = gelu(linear(x, at + "intermediate.dense"))
        x = norm(x + linear(hidden, at + "output.dense"), at + "output.LayerNorm")
    pooled = x.mean(0)
    return pooled / np.linalg.norm(pooled)
