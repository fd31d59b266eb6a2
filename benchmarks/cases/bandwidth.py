"""Work that is little more than reading and writing [1, 768, 1, 1024]: elementwise ops, softmax, layer norm.

The last axis is where most networks have their channels, axis 1 where the Neural Engine wants them.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from ..case import Case, Goal, Limit, normal
from ..peers import export, lambda_module, of_anex, of_onnxruntime, of_openvino, of_torch

SHAPE = (1, 768, 1, 1024)
PEERS = ("torch fp16", "torch fp32", "onnxruntime fp32", "openvino fp32")


def _case(title: str, build: Callable[..., Any], forward: Callable[..., Any], goal: Goal, operands: int = 1,
          **weights: np.ndarray) -> Case:  # fmt: skip
    """``build(*vars, dtype)`` of the builder's ops; ``forward(*tensors, **weights)`` in torch."""
    names = ("x", "y")[:operands]

    def inputs() -> dict[str, np.ndarray]:
        return {name: normal(SHAPE, seed=i) for i, name in enumerate(names)}

    def program(dtype: str) -> Any:
        import anex

        if operands == 1:
            return anex.graph(x=anex.spec(SHAPE, dtype))(lambda x: build(x, dtype=dtype))
        return anex.graph(x=anex.spec(SHAPE, dtype), y=anex.spec(SHAPE, dtype))(lambda x, y: build(x, y, dtype=dtype))

    def module() -> Any:
        return lambda_module(forward, **weights)

    return Case(
        f"{title} of [1, 768, 1, 1024]",
        {
            "anex fp16": of_anex(program, inputs),
            "anex fp32": of_anex(program, inputs, dtype="float32"),
            "torch fp16": of_torch(module, inputs, dtype="float16"),
            "torch fp32": of_torch(module, inputs),
            "onnxruntime fp32": of_onnxruntime(inputs),
            "openvino fp32": of_openvino(inputs),
        },
        goals=[goal],
        limits=[Limit("cache", (operands + 1) * 2 * np.prod(SHAPE, dtype=float), ("anex fp16", "torch fp16"))],
        files={"model.onnx": export(module, inputs)},
    )


def add() -> Case:
    def build(x: Any, y: Any, dtype: str) -> Any:
        from anex import mb

        return mb.add(x=x, y=y, name="z")

    return _case("add", build, lambda x, y: x + y, Goal("anex fp16", "torch fp16", 1.4), operands=2)


def gelu() -> Case:
    def build(x: Any, dtype: str) -> Any:
        from anex import mb

        return mb.gelu(x=x, mode="TANH_APPROXIMATION", name="z")

    def forward(x: Any) -> Any:
        from torch.nn import functional

        return functional.gelu(x, approximate="tanh")

    return _case("gelu (tanh)", build, forward, Goal("anex fp16", "onnxruntime fp32", 5))


def softmax(axis: int) -> Case:
    def build(x: Any, dtype: str) -> Any:
        from anex import mb

        return mb.softmax(x=x, axis=axis, name="z")

    goal = Goal("anex fp16", "onnxruntime fp32", 2) if axis == 3 else Goal("anex fp16", PEERS, 4.5)
    return _case(f"softmax over axis {axis}", build, lambda x: x.softmax(axis), goal)


def layer_norm(axis: int) -> Case:
    gamma, beta = normal((SHAPE[axis],), seed=1), normal((SHAPE[axis],), seed=2)

    def build(x: Any, dtype: str) -> Any:
        from anex import mb

        scale, shift = (part.astype(dtype) for part in (gamma, beta))
        epsilon = np.dtype(dtype).type(1e-5)
        return mb.layer_norm(x=x, axes=[axis], gamma=scale, beta=shift, epsilon=epsilon, name="z")

    def forward(x: Any, gamma: Any, beta: Any) -> Any:
        from torch.nn.functional import layer_norm

        if axis == 3:
            return layer_norm(x, (SHAPE[3],), gamma, beta, 1e-5)
        return layer_norm(x.transpose(1, 3), (SHAPE[1],), gamma, beta, 1e-5).transpose(1, 3)

    goal = Goal("anex fp16", "onnxruntime fp32", 2.8) if axis == 3 else Goal("anex fp16", PEERS, 7)
    return _case(f"layer norm over axis {axis}", build, forward, goal, gamma=gamma, beta=beta)
