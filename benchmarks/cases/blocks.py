"""The two halves of a transformer's layer, and a product whose weights come with each call."""

from __future__ import annotations

from typing import Any

import numpy as np

from ..case import Case, Goal, Limit, Setting, Work, normal
from ..peers import export, lambda_module, of_anex, of_numpy, of_onnxruntime, of_openvino, of_torch

CHANNELS, HIDDEN, HEADS = 768, 3072, 12
ONNX_RUNTIMES = ("onnxruntime fp32", "openvino fp32")


def rows(answer: np.ndarray) -> np.ndarray:
    """[1, C, 1, S] -> [S, C]; others as they are."""
    return answer[0, :, 0, :].T if answer.ndim == 4 else answer


def _inputs(length: int, *, is_conv: bool) -> dict[str, np.ndarray]:
    x = normal((length, CHANNELS))
    return {"x": np.ascontiguousarray(x.T)[None, :, None, :] if is_conv else x}


def gelu(x: np.ndarray) -> np.ndarray:
    return 0.5 * x * (1 + np.tanh(0.7978845608 * (x + 0.044715 * x * x * x)))


def ffn(length: int) -> Case:
    """Peers get it as linear layers on [S, 768], and as the convolutions on [1, 768, 1, S] that ours are."""
    weights = {
        "up": normal((HIDDEN, CHANNELS), seed=1, scale=0.03), "down": normal((CHANNELS, HIDDEN), seed=2, scale=0.03)
    }  # fmt: skip

    def linear_inputs() -> dict[str, np.ndarray]:
        return _inputs(length, is_conv=False)

    def conv_inputs() -> dict[str, np.ndarray]:
        return _inputs(length, is_conv=True)

    def program(dtype: str) -> Any:
        import anex
        from anex import mb

        up, down = (weight.astype(dtype)[:, :, None, None] for weight in weights.values())

        @anex.graph(x=anex.spec((1, CHANNELS, 1, length), dtype))
        def block(x: Any) -> Any:
            hidden = mb.gelu(x=mb.conv(x=x, weight=up), mode="TANH_APPROXIMATION")
            return mb.add(x=x, y=mb.conv(x=hidden, weight=down), name="y")

        return block

    def linear() -> Any:
        from torch.nn.functional import gelu, linear

        return lambda_module(lambda x, up, down: x + linear(gelu(linear(x, up), approximate="tanh"), down), **weights)

    def conv() -> Any:
        from torch.nn.functional import conv2d, gelu

        kernels = {name: weight[:, :, None, None] for name, weight in weights.items()}
        return lambda_module(lambda x, up, down: x + conv2d(gelu(conv2d(x, up), approximate="tanh"), down), **kernels)

    def in_numpy(x: np.ndarray) -> np.ndarray:
        return x + gelu(x @ weights["up"].T) @ weights["down"].T

    conv_peers = {
        "torch fp32 conv": of_torch(conv, conv_inputs, shaped=rows),
        "onnxruntime fp32 conv": of_onnxruntime(conv_inputs, file="conv", shaped=rows),
        "openvino fp32 conv": of_openvino(conv_inputs, file="conv", shaped=rows),
    }
    return Case(
        f"feed-forward 768-3072-768 with tanh GELU and residual, S={length}",
        {
            "anex fp16": of_anex(program, conv_inputs, shaped=rows),
            "anex fp32": of_anex(program, conv_inputs, dtype="float32", shaped=rows),
            "numpy fp32": of_numpy(in_numpy, linear_inputs),
            "torch fp32": of_torch(linear, linear_inputs),
            "onnxruntime fp32": of_onnxruntime(linear_inputs),
            "openvino fp32": of_openvino(linear_inputs),
            **conv_peers,
        },
        goals=[
            Goal("anex fp16", "torch fp32", 1.7 if length <= 64 else 1.3),
            Goal("anex fp16", ("openvino fp32", "openvino fp32 conv"), 1.0),
        ],
        limits=[Limit("fma", 4 * CHANNELS * HIDDEN * length)],
        files={"model.onnx": export(linear, linear_inputs), "conv.onnx": export(conv, conv_inputs)},
    )


def attention(length: int) -> Case:
    """Causal, from x to x: projections, 12 heads of 64, output projection. Half of the scores need no work."""
    size = CHANNELS // HEADS
    weights = {name: normal((CHANNELS, CHANNELS), seed=1 + i, scale=0.03) for i, name in enumerate("qkvo")}

    def linear_inputs() -> dict[str, np.ndarray]:
        return _inputs(length, is_conv=False)

    def program(dtype: str) -> Any:
        import anex
        from anex import mb

        kernels = {name: weight.astype(dtype)[:, :, None, None] for name, weight in weights.items()}
        mask = np.triu(np.full((1, 1, length, length), -np.inf, dtype), 1)

        @anex.graph(x=anex.spec((1, CHANNELS, 1, length), dtype))
        def block(x: Any) -> Any:
            q, k, v = (
                mb.transpose(
                    x=mb.reshape(x=mb.conv(x=x, weight=kernels[name]), shape=(1, HEADS, size, length)),
                    perm=(0, 1, 3, 2),
                )
                for name in "qkv"
            )
            mixed = mb.scaled_dot_product_attention(query=q, key=k, value=v, attn_mask=mask)
            mixed = mb.reshape(x=mb.transpose(x=mixed, perm=(0, 1, 3, 2)), shape=(1, CHANNELS, 1, length))
            return mb.conv(x=mixed, weight=kernels["o"], name="y")

        return block

    def module() -> Any:
        from torch.nn.functional import linear, scaled_dot_product_attention

        def forward(x: Any, q: Any, k: Any, v: Any, o: Any) -> Any:
            parts = [linear(x, weight).view(1, length, HEADS, size).transpose(1, 2) for weight in (q, k, v)]
            mixed = scaled_dot_product_attention(*parts, is_causal=True)
            return linear(mixed.transpose(1, 2).reshape(length, CHANNELS), o)

        return lambda_module(forward, **weights)

    hidden = np.triu(np.full((length, length), -np.inf, np.float32), 1)

    def in_numpy(x: np.ndarray) -> np.ndarray:
        q, k, v = ((x @ weights[name].T).reshape(length, HEADS, size).swapaxes(0, 1) for name in "qkv")
        scores = q @ k.swapaxes(1, 2) / np.float32(size**0.5) + hidden
        scores = np.exp(scores - scores.max(-1, keepdims=True))
        mixed = scores / scores.sum(-1, keepdims=True) @ v
        return mixed.swapaxes(0, 1).reshape(length, CHANNELS) @ weights["o"].T

    return Case(
        f"causal attention with its projections, 12 heads of 64, S={length}",
        {
            "anex fp16": of_anex(program, lambda: _inputs(length, is_conv=True), shaped=rows),
            "anex fp32": of_anex(program, lambda: _inputs(length, is_conv=True), dtype="float32", shaped=rows),
            "numpy fp32": of_numpy(in_numpy, linear_inputs),
            "torch fp32": of_torch(module, linear_inputs),
            "onnxruntime fp32": of_onnxruntime(linear_inputs),
            "openvino fp32": of_openvino(linear_inputs),
        },
        goals=[
            Goal("anex fp16", "torch fp32", 1.6 if length <= 64 else 1.4),
            Goal("anex fp16", "openvino fp32", 1.2),
        ],
        limits=[Limit("fma", 2 * length * CHANNELS * (4 * CHANNELS + length))],
        files={"model.onnx": export(module, linear_inputs)},
    )


def product(length: int) -> Case:
    """What training and adapters multiply: the weights are an input, and nobody has packed them before."""

    def inputs() -> dict[str, np.ndarray]:
        return {"x": normal((length, CHANNELS)), "w": normal((HIDDEN, CHANNELS), seed=1, scale=0.03)}

    def program(dtype: str) -> Any:
        import anex
        from anex import mb

        @anex.graph(x=anex.spec((length, CHANNELS), dtype), w=anex.spec((HIDDEN, CHANNELS), dtype))
        def run_time(x: Any, w: Any) -> Any:
            return mb.matmul(x=x, y=w, transpose_y=True, name="y")

        return run_time

    def module() -> Any:
        return lambda_module(lambda x, w: x @ w.T)

    def in_torch(setting: Setting) -> Work:
        import torch

        x, w = (torch.from_numpy(value) for value in inputs().values())
        y = torch.empty(length, HIDDEN)
        return Work(lambda: torch.matmul(x, w.T, out=y), y.numpy)

    def in_numpy(setting: Setting) -> Work:
        x, w = inputs().values()
        y = np.empty((length, HIDDEN), np.float32)
        return Work(lambda: np.matmul(x, w.T, out=y), lambda: y)

    return Case(
        f"[{length}, 768] by the transpose of [3072, 768], both inputs of the program",
        {
            "anex fp16": of_anex(program, inputs),
            "anex fp32": of_anex(program, inputs, dtype="float32"),
            "numpy fp32": in_numpy,
            "torch fp32": in_torch,
            "onnxruntime fp32": of_onnxruntime(inputs),
            "openvino fp32": of_openvino(inputs),
        },
        limits=[Limit("fma", 2 * length * CHANNELS * HIDDEN)],
        files={"model.onnx": export(module, inputs)},
    )
