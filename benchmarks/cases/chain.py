"""Four 1x1 convolutions of 512 channels at 64x64, the published benchmark's chain (32 times as long there)."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from ..case import Case, File, Goal, Limit, Setting, Work, normal
from ..peers import export, lambda_module, of_anex, of_numpy, of_onnxruntime, of_openvino, of_torch

STEP, ZERO = np.float32(7 / 127), 128  # of the bytes that activations become: the largest of a million is below 7


def _weights(depth: int, channels: int) -> list[np.ndarray]:
    return [normal((channels, channels), seed=1 + i, scale=channels**-0.5) for i in range(depth)]


def floating(depth: int = 4, channels: int = 512, side: int = 64) -> Case:
    shape = (1, channels, side, side)

    def inputs() -> dict[str, np.ndarray]:
        return {"x": normal(shape)}

    def program(dtype: str) -> Any:
        return _program(dtype, _weights(depth, channels), shape)

    def module() -> Any:
        from torch.nn import functional

        def forward(x: Any, **weights: Any) -> Any:
            for weight in weights.values():
                x = functional.conv2d(x, weight)
            return x

        named = {f"w{i}": weight[:, :, None, None] for i, weight in enumerate(_weights(depth, channels))}
        return lambda_module(forward, **named)

    weights = _weights(depth, channels)

    def in_numpy(x: np.ndarray) -> np.ndarray:
        x = x.reshape(channels, -1)
        for weight in weights:
            x = weight @ x
        return x.reshape(shape)

    onnx = ("onnxruntime fp32", "openvino fp32")
    return Case(
        f"{depth} x conv 1x1, {channels} channels, {side}x{side}",
        {
            "anex fp16": of_anex(program, inputs),
            "anex fp32": of_anex(program, inputs, dtype="float32"),
            "numpy fp32": of_numpy(in_numpy, inputs),
            "torch fp32": of_torch(module, inputs),
            "torch fp32 channels_last": of_torch(module, inputs, channels_last=True),
            "onnxruntime fp32": of_onnxruntime(inputs),
            "openvino fp32": of_openvino(inputs),
        },
        goals=[
            goal
            for ours in ("anex fp16", "anex fp32")
            for goal in (Goal(ours, onnx, 1.05), Goal(ours, "torch fp32", 2))
        ],
        limits=[Limit("fma", 2 * depth * channels**2 * side**2)],
        files={"model.onnx": export(module, inputs)},
    )


def _program(dtype: str, weights: list[np.ndarray], shape: tuple[int, ...]) -> Any:
    import anex
    from anex import mb

    @anex.graph(x=anex.spec(shape, dtype))
    def chain(x: Any) -> Any:
        for weight in weights:
            x = mb.conv(x=x, weight=weight.astype(dtype)[:, :, None, None])
        return mb.identity(x=x, name="y")

    return chain


def _bytes(weight: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """int8 codes [n, k] and one scale for each row [n]."""
    scale = np.abs(weight).max(1) / 127
    return np.rint(weight / scale[:, None]).astype(np.int8), scale.astype(np.float32)


def w8a8(depth: int = 4, channels: int = 512, side: int = 64) -> Case:
    """Activations are bytes between all layers, and weights with one scale for each channel they give."""
    shape = (1, channels, side, side)

    def inputs() -> dict[str, np.ndarray]:
        return {"x": normal(shape)}

    def program(dtype: str) -> Any:
        import anex
        from anex import mb

        step, zero = STEP.astype(dtype), np.uint8(ZERO)

        @anex.graph(x=anex.spec(shape, dtype))
        def chain(x: Any) -> Any:
            x = mb.quantize(input=x, scale=step, zero_point=zero, output_dtype="uint8")
            for weight in _weights(depth, channels):
                codes, scale = _bytes(weight)
                kernel = mb.constexpr_blockwise_shift_scale(
                    data=codes[:, :, None, None], scale=scale.astype(dtype)[:, None, None, None]
                )
                x = mb.conv(x=mb.dequantize(input=x, scale=step, zero_point=zero), weight=kernel)
                x = mb.quantize(input=x, scale=step, zero_point=zero, output_dtype="uint8")
            return mb.dequantize(input=x, scale=step, zero_point=zero, name="y")

        return chain

    def in_torch(setting: Setting) -> Work:
        import torch

        torch.backends.quantized.engine = "onednn"
        layers = []
        for weight in _weights(depth, channels):
            codes, scale = _bytes(weight)
            layer = torch.ao.nn.quantized.Conv2d(channels, channels, 1, bias=False)
            values = torch.from_numpy((codes * scale[:, None])[:, :, None, None])
            scales, zeros = torch.from_numpy(scale.astype(np.float64)), torch.zeros(channels, dtype=torch.int64)
            layer.set_weight_bias(torch.quantize_per_channel(values, scales, zeros, 0, torch.qint8), None)
            layer.scale, layer.zero_point = float(STEP), ZERO
            layers.append(layer)
        given = torch.from_numpy(inputs()["x"])

        def call() -> Any:
            with torch.inference_mode():
                x = torch.quantize_per_tensor(given, float(STEP), ZERO, torch.quint8)
                for layer in layers:
                    x = layer(x)
                return x.dequantize()

        return Work(call, lambda: call().numpy())

    return Case(
        f"{depth} x conv 1x1, {channels} channels, {side}x{side}, weights and activations in 8 bits",
        {
            "anex w8a8": of_anex(program, inputs),
            "anex fp16": of_anex(lambda dtype: _program(dtype, _weights(depth, channels), shape), inputs),
            "torch int8": in_torch,
            "onnxruntime int8": of_onnxruntime(inputs),
            "openvino int8": of_openvino(inputs),
        },
        goals=[Goal("anex w8a8", "anex fp16", 2.6), Goal("anex w8a8", "torch int8", 1.0)],
        limits=[Limit("int8", 2 * depth * channels**2 * side**2, ("anex w8a8", "torch", "onnxruntime", "openvino"))],
        tolerance=0.06,  # 8 bits, rounded between the layers; the fp16 chain is not
        files={"model.onnx": File(lambda path: _write_quantized(path, _weights(depth, channels), shape))},
    )


def _write_quantized(path: Path, weights: list[np.ndarray], shape: tuple[int, ...]) -> None:
    """QuantizeLinear and DequantizeLinear around each Conv, which both runtimes fuse."""
    import onnx
    from onnx import helper, numpy_helper

    nodes, constants, at = [], {"step": STEP, "zero": np.uint8(ZERO)}, "x"
    for i, weight in enumerate(weights):
        codes, scale = _bytes(weight)
        constants |= {f"codes{i}": codes[:, :, None, None], f"scale{i}": scale,
                      f"none{i}": np.zeros(len(scale), np.int8)}  # fmt: skip
        nodes += [
            helper.make_node("QuantizeLinear", [at, "step", "zero"], [f"q{i}"]),
            helper.make_node("DequantizeLinear", [f"q{i}", "step", "zero"], [f"d{i}"]),
            helper.make_node("DequantizeLinear", [f"codes{i}", f"scale{i}", f"none{i}"], [f"w{i}"], axis=0),
            helper.make_node("Conv", [f"d{i}", f"w{i}"], [f"y{i}"]),
        ]
        at = f"y{i}"
    nodes += [
        helper.make_node("QuantizeLinear", [at, "step", "zero"], ["q"]),
        helper.make_node("DequantizeLinear", ["q", "step", "zero"], ["y"]),
    ]
    x, y = (helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, shape) for name in "xy")
    tensors = [numpy_helper.from_array(np.asarray(value), name) for name, value in constants.items()]
    graph = helper.make_graph(nodes, "chain", [x], [y], tensors)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.checker.check_model(model)
    onnx.save(model, path)
