"""GPT-2 as a torch module, and by way of ONNX in onnxruntime and OpenVINO, with the weights of ours."""

from __future__ import annotations

import importlib.util
import io

import numpy as np
import torch
from gpt2_weights import Weights
from torch import nn
from torch.nn import functional

from .timing import Contender


class Gpt2(nn.Module):
    """Token numbers [1, S], and the cache [2 * layers, 1, heads, T, size] if there is one -> logits [1, V] of the last,
    and what the cache is to get."""

    def __init__(self, weights: Weights) -> None:
        super().__init__()
        self.config = weights.config
        self.table = nn.ParameterDict(
            {
                name.replace("/", "_"): nn.Parameter(torch.from_numpy(array.astype(np.float32)), requires_grad=False)
                for name, array in weights.arrays.items()
            }
        )

    def forward(self, ids: torch.Tensor, past: torch.Tensor | None = None) -> tuple[torch.Tensor, torch.Tensor]:
        t, config = self.table, self.config
        length, before = ids.shape[1], 0 if past is None else past.shape[3]
        x = functional.embedding(ids, t["wte"]) + t["wpe"][before : before + length]
        kept = []
        for i in range(config.n_layer):
            at = f"layer_{i:02}_"
            normal = functional.layer_norm(x, (config.n_embd,), t[at + "ln1_g"], t[at + "ln1_b"], 1e-5)
            q, k, v = (
                functional.linear(normal, t[f"{at}w{part}"], t[f"{at}b{part}"])
                .reshape(1, length, config.n_head, config.head_size)
                .transpose(1, 2)
                for part in "qkv"
            )
            kept += [k, v]
            if past is not None:
                k, v = torch.cat([past[2 * i], k], 2), torch.cat([past[2 * i + 1], v], 2)
            mixed = functional.scaled_dot_product_attention(q, k, v, is_causal=past is None)
            mixed = mixed.transpose(1, 2).reshape(1, length, config.n_embd)
            x = x + functional.linear(mixed, t[at + "wo"], t[at + "bo"])
            normal = functional.layer_norm(x, (config.n_embd,), t[at + "ln2_g"], t[at + "ln2_b"], 1e-5)
            hidden = functional.gelu(functional.linear(normal, t[at + "w1"], t[at + "b1"]), approximate="tanh")
            x = x + functional.linear(hidden, t[at + "w2"], t[at + "b2"])
        last = functional.layer_norm(x[:, -1], (config.n_embd,), t["ln_f_g"], t["ln_f_b"], 1e-5)
        return functional.linear(last, t["wte"]), torch.stack(kept)


def peers(module: Gpt2, given: tuple[torch.Tensor, ...], expected: np.ndarray) -> dict[str, Contender]:
    """torch and whoever else is installed, each checked to give the logits that we give."""

    def in_torch() -> np.ndarray:
        with torch.inference_mode():
            return module(*given)[0][0].numpy()

    found: dict[str, Contender] = {"torch fp32": in_torch}
    names = ("ids", "past")[: len(given)]
    feed = {name: tensor.numpy() for name, tensor in zip(names, given, strict=True)}
    onnx = b""
    if importlib.util.find_spec("onnxruntime") or importlib.util.find_spec("openvino"):
        file = io.BytesIO()
        torch.onnx.export(module, given, file, input_names=names, output_names=["logits", "kept"], opset_version=17,
                          dynamo=False)  # fmt: skip
        onnx = file.getvalue()
    if importlib.util.find_spec("onnxruntime"):
        found["onnxruntime fp32"] = _in_onnxruntime(onnx, feed)
    if importlib.util.find_spec("openvino"):
        found["openvino fp32"] = _in_openvino(onnx, feed)
    for name, call in found.items():
        if (worst := np.abs(call() - expected).max()) > 0.05 * np.abs(expected).max():
            raise AssertionError(f"{name} and anex differ by {worst}: they do not compute the same")
    return found


def _in_onnxruntime(onnx: bytes, feed: dict[str, np.ndarray]) -> Contender:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    session = onnxruntime.InferenceSession(onnx, options, providers=["CPUExecutionProvider"])
    binding = session.io_binding()
    for name, value in feed.items():
        binding.bind_cpu_input(name, value)
    for output in session.get_outputs():
        binding.bind_output(output.name)

    def call() -> np.ndarray:
        session.run_with_iobinding(binding)
        return binding.get_outputs()[0].numpy()[0]

    return call


def _in_openvino(onnx: bytes, feed: dict[str, np.ndarray]) -> Contender:
    import openvino

    core = openvino.Core()
    model = core.read_model(model=io.BytesIO(onnx))
    settings = {"INFERENCE_NUM_THREADS": torch.get_num_threads(), "PERFORMANCE_HINT": "LATENCY",
                "INFERENCE_PRECISION_HINT": "f32"}  # fmt: skip
    request = core.compile_model(model, "CPU", settings).create_infer_request()
    for name, value in feed.items():
        request.set_tensor(name, openvino.Tensor(value, shared_memory=True))

    def call() -> np.ndarray:
        request.infer()
        return request.get_output_tensor(0).data[0]

    return call
