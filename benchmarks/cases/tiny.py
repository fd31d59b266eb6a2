"""What a call costs: work of less than a microsecond or two."""

from __future__ import annotations

from typing import Any

import numpy as np

from ..case import Case, Goal, Limit, Setting, Work, normal
from ..peers import export, lambda_module, of_anex, of_onnxruntime, of_openvino, of_torch


def add() -> Case:
    shape = (1, 64, 1, 32)

    def inputs() -> dict[str, np.ndarray]:
        return {"x": normal(shape), "y": normal(shape, seed=1)}

    def program(dtype: str) -> Any:
        import anex
        from anex import mb

        return anex.graph(x=anex.spec(shape, dtype), y=anex.spec(shape, dtype))(lambda x, y: mb.add(x=x, y=y, name="z"))

    def in_numpy(setting: Setting) -> Work:
        x, y = inputs().values()
        z = np.empty_like(x)
        return Work(lambda: np.add(x, y, out=z), lambda: z)

    def in_torch(setting: Setting) -> Work:
        import torch

        x, y = (torch.from_numpy(value) for value in inputs().values())
        z = torch.empty_like(x)
        return Work(lambda: torch.add(x, y, out=z), z.numpy)

    def module() -> Any:
        return lambda_module(lambda x, y: x + y)

    return Case(
        "a call: add of [1, 64, 1, 32] into an existing output",
        {
            "anex fp16": of_anex(program, inputs),
            "anex fp32": of_anex(program, inputs, dtype="float32"),
            "numpy fp32": in_numpy,
            "torch fp32": in_torch,
            "onnxruntime fp32": of_onnxruntime(inputs),
            "openvino fp32": of_openvino(inputs),
        },
        goals=[Goal("anex fp16", "numpy fp32", 2), Goal("anex fp16", "onnxruntime fp32", 6)],
        files={"model.onnx": export(module, inputs)},
    )


def conv() -> Case:
    channels, length = 64, 32
    weight = normal((channels, channels), seed=1, scale=channels**-0.5)

    def inputs() -> dict[str, np.ndarray]:
        return {"x": normal((1, channels, 1, length))}

    def program(dtype: str) -> Any:
        import anex
        from anex import mb

        kernel = weight.astype(dtype)[:, :, None, None]
        return anex.graph(x=anex.spec((1, channels, 1, length), dtype))(lambda x: mb.conv(x=x, weight=kernel, name="y"))

    def in_numpy(setting: Setting) -> Work:
        x = inputs()["x"].reshape(channels, length)
        y = np.empty((channels, length), np.float32)
        return Work(lambda: np.matmul(weight, x, out=y), lambda: y.reshape(1, channels, 1, length))

    def module() -> Any:
        from torch.nn import functional

        return lambda_module(lambda x, weight: functional.conv2d(x, weight), weight=weight[:, :, None, None])

    return Case(
        "a call: conv 1x1, 64 to 64 channels, S=32 (numpy: matmul)",
        {
            "anex fp16": of_anex(program, inputs),
            "anex fp32": of_anex(program, inputs, dtype="float32"),
            "numpy fp32": in_numpy,
            "torch fp32": of_torch(module, inputs),
            "onnxruntime fp32": of_onnxruntime(inputs),
            "openvino fp32": of_openvino(inputs),
        },
        goals=[Goal("anex fp16", "numpy fp32", 1.5), Goal("anex fp16", "onnxruntime fp32", 4)],
        limits=[Limit("fma", 2 * channels**2 * length)],
        files={"model.onnx": export(module, inputs)},
    )
