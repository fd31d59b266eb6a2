"""From a graph to something that runs: a GPT-2 of 12 layers in the Neural Engine's layout, without its head."""

from __future__ import annotations

from typing import Any

import numpy as np

from ..case import Case, Contender, Goal, Setting, Work, normal
from ..peers import export, lambda_module, onnxruntime_session, openvino_model

CHANNELS, HIDDEN, HEADS = 768, 3072, 12
PARTS = {
    "q": (CHANNELS, CHANNELS), "k": (CHANNELS, CHANNELS), "v": (CHANNELS, CHANNELS), "o": (CHANNELS, CHANNELS),
    "up": (HIDDEN, CHANNELS), "down": (CHANNELS, HIDDEN),
}  # fmt: skip


def _weights(layers: int) -> dict[str, np.ndarray]:
    """Matrices and biases by name, float16. The matrices share the numbers of one draw, at other places."""
    pool = normal((HIDDEN * CHANNELS + layers * 64,), scale=0.03).astype(np.float16)
    found = {}
    for layer in range(layers):
        for i, (part, (n, k)) in enumerate(PARTS.items()):
            at = layer * 64 + i * 7
            found[f"{part}{layer}"] = pool[at : at + n * k].reshape(n, k).copy()
            found[f"{part}{layer}_bias"] = pool[at : at + n].copy()
    return found


def gpt2(layers: int = 12, length: int = 128) -> Case:
    """985 ops with constants (241 without), 170 MB of float16 weights. Building the graph is coremltools' own time, for
    us and for it; the others read a finished one, from an ONNX file with float32 weights."""
    weights = _weights(layers)
    size, shape = CHANNELS // HEADS, (1, CHANNELS, 1, length)
    x = normal(shape)

    def build() -> Any:
        import anex
        from anex import mb

        gamma, beta = np.ones(CHANNELS, np.float16), np.zeros(CHANNELS, np.float16)
        mask = np.triu(np.full((1, 1, length, length), -3e4, np.float16), 1)

        def conv(x: Any, part: str) -> Any:
            return mb.conv(x=x, weight=weights[part][:, :, None, None], bias=weights[f"{part}_bias"])

        def norm(x: Any) -> Any:
            return mb.layer_norm(x=x, axes=[1], gamma=gamma, beta=beta, epsilon=np.float16(1e-5))

        @anex.graph(x=shape)
        def model(x: Any) -> Any:
            for i in range(layers):
                normal = norm(x)
                q, k, v = (mb.reshape(x=conv(normal, f"{part}{i}"), shape=(1, HEADS, size, length)) for part in "qkv")
                scores = mb.matmul(x=mb.mul(x=q, y=np.float16(size**-0.5)), y=k, transpose_x=True)
                seen = mb.softmax(x=mb.add(x=scores, y=mask), axis=-1)
                mixed = mb.reshape(x=mb.matmul(x=v, y=seen, transpose_y=True), shape=shape)
                x = mb.add(x=x, y=conv(mixed, f"o{i}"))
                hidden = mb.gelu(x=conv(norm(x), f"up{i}"), mode="TANH_APPROXIMATION")
                x = mb.add(x=x, y=conv(hidden, f"down{i}"))
            return mb.identity(x=x, name="y")

        return model

    def in_anex(*, builds: bool) -> Contender:
        def contender(setting: Setting) -> Work:
            import anex

            graph = build()

            def call() -> anex.Program:
                return anex.compile(build() if builds else graph)

            return Work(call, lambda: np.asarray(call()(anex.tensor(x, dtype="float16"))))

        return contender

    def builder(setting: Setting) -> Work:
        return Work(build, None)

    def converter(setting: Setting) -> Work:
        import coremltools as ct

        def call() -> object:
            return ct.convert(build(), convert_to="mlprogram", compute_precision=ct.precision.FLOAT16,
                              minimum_deployment_target=ct.target.iOS18, skip_model_load=True)  # fmt: skip

        return Work(call, None)

    def in_onnxruntime(setting: Setting) -> Work:
        def call() -> Any:
            return onnxruntime_session(setting)

        return Work(call, lambda: call().run(None, {"x": x})[0])

    def in_openvino(setting: Setting) -> Work:
        def call() -> Any:
            return openvino_model(setting)

        return Work(call, lambda: call().create_infer_request().infer({"x": x})[0])

    matrices = sum(value.nbytes for value in weights.values())
    ours = ("anex compile", "anex build and compile")
    return Case(
        f"from a graph to a program: GPT-2 of {layers} layers, S={length}, {matrices / 1e6:.0f} MB of float16 weights",
        {
            "anex compile": in_anex(builds=False),
            "anex build and compile": in_anex(builds=True),
            "coremltools build": builder,
            "coremltools build and convert": converter,
            "onnxruntime session": in_onnxruntime,
            "openvino read and compile": in_openvino,
        },
        goals=[
            goal
            for each in ours
            for goal in (
                Goal(each, "coremltools build and convert", 12),
                Goal(each, "onnxruntime session", 3.5),
            )
        ],
        tolerance=0.05,
        files={"model.onnx": export(lambda: _module(weights, layers, length), lambda: {"x": x})},
    )


def _module(weights: dict[str, np.ndarray], layers: int, length: int) -> Any:
    """The same in torch, float32."""
    import torch
    from torch.nn.functional import conv2d, gelu, layer_norm

    size = CHANNELS // HEADS
    mask = torch.triu(torch.full((length, length), -3e4), 1)

    def forward(x: Any, **given: Any) -> Any:
        def conv(x: Any, part: str) -> Any:
            return conv2d(x, given[part], given[f"{part}_bias"])

        def norm(x: Any) -> Any:
            return layer_norm(x.transpose(1, 3), (CHANNELS,), eps=1e-5).transpose(1, 3)

        for i in range(layers):
            normal = norm(x)
            q, k, v = (conv(normal, f"{part}{i}").reshape(1, HEADS, size, length) for part in "qkv")
            seen = ((q * size**-0.5).transpose(2, 3) @ k + mask).softmax(-1)
            x = x + conv((v @ seen.transpose(2, 3)).reshape(x.shape), f"o{i}")
            x = x + conv(gelu(conv(norm(x), f"up{i}"), approximate="tanh"), f"down{i}")
        return x

    wide = {name: value.astype(np.float32) for name, value in weights.items()}
    return lambda_module(forward, **{n: v[:, :, None, None] if v.ndim == 2 else v for n, v in wide.items()})
