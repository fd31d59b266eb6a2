"""What is measured: each function makes a case, with the same weights and inputs for every contender."""

from __future__ import annotations

import ctypes
import itertools
import os
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch

import anex
from anex import devices, mb

from .timing import Case

sys.path.insert(0, str(Path(__file__).parent.parent / "examples" / "minilm"))


def tiny_add() -> Case:
    """add of [1, 64, 1, 32] into an existing output: the cost of a call."""
    shape = (1, 64, 1, 32)
    rng = np.random.default_rng(0)

    def contender(dtype: str) -> tuple[Callable[[], object], Callable[[], object], Callable[[], object]]:
        @anex.graph(x=anex.spec(shape, dtype), y=anex.spec(shape, dtype))
        def add(x, y):
            return mb.add(x=x, y=y, name="z")

        program = anex.compile(add)
        x, y = (rng.normal(size=shape).astype(dtype) for _ in range(2))
        tx, ty, tz = anex.tensor(x), anex.tensor(y), anex.empty(shape, dtype)
        px, py, pz = torch.from_numpy(x), torch.from_numpy(y), torch.empty(shape, dtype=getattr(torch, dtype))
        z = np.empty_like(x)
        return (
            lambda: program(tx, ty, out=tz),
            lambda: np.add(x, y, out=z),
            lambda: torch.add(px, py, out=pz),
        )

    half, single = contender("float16"), contender("float32")
    names = ("anex", "numpy", "torch")
    return Case(
        "tiny add [1,64,1,32]",
        {
            f"{name} {dtype}": made
            for dtype, all_ in (("fp16", half), ("fp32", single))
            for name, made in zip(names, all_, strict=True)
        },
    )


def fused_ffn(length: int) -> Case:
    """A 768-3072-768 feed-forward block with tanh GELU and a residual."""
    rng = np.random.default_rng(0)
    w1 = rng.normal(0, 0.03, (3072, 768)).astype(np.float32)
    w2 = rng.normal(0, 0.03, (768, 3072)).astype(np.float32)
    values = rng.normal(size=(length, 768)).astype(np.float32)

    def program(dtype: str) -> tuple[anex.Program, anex.Tensor, anex.Tensor]:
        @anex.graph(x=anex.spec((1, 768, 1, length), dtype))
        def ffn(x):
            hidden = mb.conv(x=x, weight=w1.astype(dtype)[:, :, None, None])
            hidden = mb.gelu(x=hidden, mode="TANH_APPROXIMATION")
            return mb.add(x=x, y=mb.conv(x=hidden, weight=w2.astype(dtype)[:, :, None, None]), name="y")

        x = anex.tensor(np.ascontiguousarray(values.T)[None, :, None, :], dtype=dtype)
        return anex.compile(ffn), x, anex.empty_like(x)

    half, x16, y16 = program("float16")
    single, x32, y32 = program("float32")
    t1, t2, tx = torch.from_numpy(w1), torch.from_numpy(w2), torch.from_numpy(values)

    def in_torch() -> torch.Tensor:
        hidden = torch.nn.functional.gelu(torch.nn.functional.linear(tx, t1), approximate="tanh")
        return tx + torch.nn.functional.linear(hidden, t2)

    def in_numpy() -> np.ndarray:
        hidden = values @ w1.T
        hidden = 0.5 * hidden * (1 + np.tanh(0.7978845608 * (hidden + 0.044715 * hidden * hidden * hidden)))
        return values + hidden @ w2.T

    return Case(
        f"fused FFN 768-3072-768, S={length}",
        {
            "anex fp16": lambda: half(x16, out=y16),
            "anex fp32": lambda: single(x32, out=y32),
            "torch fp32": in_torch,
            "numpy fp32": in_numpy,
        },
    )


def minilm(length: int) -> Case:
    """The whole all-MiniLM-L6-v2 encoder on one sentence of exactly ``length`` tokens."""
    from encoder import Encoder
    from minilm_torch import MiniLM

    encoder = Encoder()
    ids = [101, *([2003] * (length - 2)), 102]
    x = encoder._embed(ids, length)
    mask, mean = np.zeros((1, 1, 1, length), np.float16), np.full((1, 1, 1, length), 1 / length, np.float16)
    program = anex.compile(encoder.build(length))
    out = anex.empty_like(program.outputs["embedding"])
    module = MiniLM(encoder.weights, encoder.config)
    embedded = torch.from_numpy(np.ascontiguousarray(x[0, :, 0, :].T, np.float32))[None]

    def in_torch() -> torch.Tensor:
        with torch.inference_mode():
            return module.encode(embedded, None)

    return Case(
        f"MiniLM-L6, S={length}",
        {
            "anex fp16": lambda: program(x, mask, mean, out=out),
            "torch fp32": in_torch,
            "numpy fp32": lambda: minilm_in_numpy(encoder.weights, encoder.config, embedded[0].numpy()),
        },
    )


def minilm_in_numpy(weights: Mapping[str, np.ndarray], config: Mapping[str, Any], x: np.ndarray) -> np.ndarray:
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
        hidden = linear(x, at + "intermediate.dense")
        hidden = hidden * 0.5 * (1 + np.tanh(0.7978845608 * (hidden + 0.044715 * hidden * hidden * hidden)))
        x = norm(x + linear(hidden, at + "output.dense"), at + "output.LayerNorm")
    pooled = x.mean(0)
    return pooled / np.linalg.norm(pooled)


def call_to_framework() -> Case | None:
    """A whole call of a program for the Neural Engine, there and back, and the bare message that it ends in.

    The stand-in's evaluate says yes at once, so the difference is more than all that stands between Python's call and
    the framework. None where there is no stand-in, or no binding to open it.
    """
    sys.path.insert(0, str(Path(__file__).parent.parent / "tests"))
    from fake_ane import build, control

    if not build.LIBRARY.exists():
        return None
    os.environ[control.VARIABLE] = str(build.LIBRARY)
    if "ane" not in devices.available():
        return None
    control.put("empty_evaluate", True)
    send = ctypes.CDLL(str(build.LIBRARY)).fake_ane_send
    send.restype, send.argtypes = None, [ctypes.c_int64]
    shape, repeats = (1, 64, 1, 32), 1000

    @anex.graph(x=shape)
    def one(x):
        return mb.add(x=x, y=x, name="y")

    @anex.graph(x=shape, y=shape, z=shape)
    def several(x, y, z):
        return mb.add(x=x, y=y, name="p"), mb.sub(x=x, y=z, name="q")

    single, multiple = (anex.compile(graph, device="ane") for graph in (one, several))
    x, y, z, p, q = (anex.zeros(shape) for _ in range(5))
    run, given, out = single._executable.run, (x,), (p, q)

    def call() -> None:
        for _ in itertools.repeat(None, repeats):
            single(x, out=y)

    def call_of_several() -> None:
        for _ in itertools.repeat(None, repeats):
            multiple(x, y, z, out=out)

    def call_without_keywords() -> None:
        for _ in itertools.repeat(None, repeats):
            run(given, y)

    return Case(
        "from Python's call to the framework's evaluate, and back",
        {
            "bare message": lambda: send(repeats),
            "program(x, out=y)": call,
            "program(x, y, z, out=(p, q))": call_of_several,
            "Executable.run((x,), y)": call_without_keywords,
        },
        device="double",
        repeats=repeats,
    )


def gpt2(name: str, *arguments: int) -> Callable[[], Case]:
    """A case of benchmarks/gpt2.py, which is loaded when it is asked for."""

    def case() -> Case:
        from . import gpt2

        if absent := gpt2.missing():
            print(f"\nGPT-2 without {', '.join(absent)}: not installed here")
        return getattr(gpt2, name)(*arguments)

    return case


# The stand-in's case is the last: from then on tensors are surfaces.
CASES: dict[str, Callable[[], Case | None]] = {
    "tiny": tiny_add,
    "ffn64": lambda: fused_ffn(64),
    "ffn256": lambda: fused_ffn(256),
    "minilm32": lambda: minilm(32),
    "minilm128": lambda: minilm(128),
    **{f"gpt2prefill{length}": gpt2("prefill", length) for length in (32, 128, 512, 1024)},
    "gpt2decode": gpt2("decode"),
    "call": call_to_framework,
}
