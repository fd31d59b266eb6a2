"""GPT-2 in the other runtimes, with the weights of ours: torch, onnxruntime, OpenVINO, llama.cpp, ctranslate2."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from .case import Contender, File, Setting, Work
from .peers import export, of_onnxruntime, of_openvino

if TYPE_CHECKING:
    from gpt2_weights import Weights

CONTEXT = 128  # positions in the cache when the timed token comes
LLAMA = ("llama.cpp",)


def peers(
    ids: Sequence[int], token: int | None, weights: Callable[[], Weights]
) -> tuple[dict[str, Contender], dict[str, File]]:
    """Contenders, and the files that they read: prefill of ``ids``, or of ``token`` after them.

    Answers are the logits [V] of the last token. torch, onnxruntime and OpenVINO are given keys and values as inputs
    and join the new ones to them; llama.cpp and ctranslate2 keep them.
    """

    def module() -> Any:
        return gpt2(weights())

    def inputs() -> dict[str, np.ndarray]:
        """In our environment: the cache is what torch computes."""
        import torch

        if token is None:
            return {"ids": np.array([ids])}
        with torch.inference_mode():
            _, *kept = module()(torch.tensor([list(ids)]))
        return {"ids": np.array([[token]]), "past": torch.stack(kept).numpy()}

    def in_torch(setting: Setting) -> Work:
        import torch

        made = module().eval()
        given = [torch.from_numpy(value) for value in inputs().values()]
        return Work(_inference(made, given), lambda: _inference(made, given)()[0][0].numpy())

    def in_torch_int8(setting: Setting) -> Work:
        import torch

        made = torch.ao.quantization.quantize_dynamic(module().eval(), {torch.nn.Linear}, dtype=torch.qint8)
        given = [torch.from_numpy(value) for value in inputs().values()]
        return Work(_inference(made, given), lambda: _inference(made, given)()[0][0].numpy())

    def kept_inputs(setting: Setting) -> dict[str, np.ndarray]:
        with np.load(setting.folder / "inputs.npz") as found:
            return dict(found)

    def from_files(make: Callable[..., Contender], file: str) -> Contender:
        def contender(setting: Setting) -> Work:
            return make(lambda: kept_inputs(setting), file=file, shaped=lambda logits: logits[0])(setting)

        return contender

    def onnxruntime_int8(setting: Setting) -> Work:
        from onnxruntime.quantization import quantize_dynamic

        if not (setting.folder / "int8.onnx").exists():
            quantize_dynamic(setting.folder / "model.onnx", setting.folder / "int8.onnx", per_channel=True)
        return from_files(of_onnxruntime, "int8")(setting)

    def openvino_int8(setting: Setting) -> Work:
        if not (setting.folder / "weights8.onnx").exists():
            write_weights8(setting.folder / "model.onnx", setting.folder / "weights8.onnx")
        return from_files(of_openvino, "weights8")(setting)

    def llama(file: str) -> Contender:
        return lambda setting: in_llama(setting, file, ids, token)

    def ctranslate2(kind: str) -> Contender:
        return lambda setting: in_ctranslate2(setting, kind, ids, token)

    contenders: dict[str, Contender] = {
        "torch fp32": in_torch,
        "onnxruntime fp32": from_files(of_onnxruntime, "model"),
        "openvino fp32": from_files(of_openvino, "model"),
        "llama.cpp f16": llama("f16"),
        "ctranslate2 fp32": ctranslate2("float32"),
    }
    files = {
        "inputs.npz": File(lambda path: np.savez(path, **inputs())),
        "model.onnx": export(module, inputs),
        "weights.npz": File(lambda path: np.savez(path, **weights().arrays), ("ctranslate2",)),
        "f16.gguf": File(lambda path: write_gguf(path, weights()), LLAMA),
    }
    if token is not None:
        contenders |= {
            "torch int8": in_torch_int8,
            "onnxruntime int8": onnxruntime_int8,
            "openvino int8": openvino_int8,
            "llama.cpp q8_0": llama("q8_0"),
            "ctranslate2 int8": ctranslate2("int8"),
        }
        files["q8_0.gguf"] = File(lambda path: write_gguf(path, weights(), "Q8_0"), LLAMA)
    return contenders, files


def _inference(module: Any, given: Sequence[Any]) -> Callable[[], Any]:
    import torch

    def call() -> Any:
        with torch.inference_mode():
            return module(*given)

    return call


def gpt2(weights: Weights) -> Any:
    """A torch module: token numbers [1, S], and the cache [2 * layers, 1, heads, T, size] if there is one -> logits
    [1, V] of the last, then keys and values of each layer."""
    import torch
    from torch import nn
    from torch.nn import functional

    config = weights.config
    size = config.n_embd // config.n_head

    def tensor(name: str) -> Any:
        return torch.from_numpy(weights.arrays[name].astype(np.float32))

    def linear(matrix: str, bias: str | None = None) -> Any:
        outputs, inputs = weights.arrays[matrix].shape
        made = nn.Linear(inputs, outputs, bias=bias is not None, device="meta")
        made.weight = nn.Parameter(tensor(matrix), requires_grad=False)
        if bias:
            made.bias = nn.Parameter(tensor(bias), requires_grad=False)
        return made

    def norm(name: str) -> Any:
        made = nn.LayerNorm(config.n_embd, config.layer_norm_epsilon)
        made.load_state_dict({"weight": tensor(f"{name}_g"), "bias": tensor(f"{name}_b")})
        return made

    class Layer(nn.Module):
        def __init__(self, at: str) -> None:
            super().__init__()
            self.norm1, self.norm2 = norm(f"{at}ln1"), norm(f"{at}ln2")
            self.q, self.k, self.v, self.o, self.up, self.down = (
                linear(f"{at}w{part}", f"{at}b{part}") for part in "qkvo12"
            )

        def forward(self, x: Any, past: Any) -> Any:
            normal = self.norm1(x)
            q, k, v = (
                part(normal).reshape(1, -1, config.n_head, size).transpose(1, 2) for part in (self.q, self.k, self.v)
            )
            keys, values = (k, v) if past is None else (torch.cat([past[0], k], 2), torch.cat([past[1], v], 2))
            mixed = functional.scaled_dot_product_attention(q, keys, values, is_causal=past is None)
            x = x + self.o(mixed.transpose(1, 2).reshape(1, -1, config.n_embd))
            return x + self.down(functional.gelu(self.up(self.norm2(x)), approximate="tanh")), k, v

    class Gpt2(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layers = nn.ModuleList(Layer(f"layer_{i:02}/") for i in range(config.n_layer))
            self.norm, self.head = norm("ln_f"), linear("wte")
            self.register_buffer("places", tensor("wpe"))

        def forward(self, ids: Any, past: Any = None) -> Any:
            before = 0 if past is None else past.shape[3]
            x = functional.embedding(ids, self.words()) + self.places[before : before + ids.shape[1]]
            kept = []
            for i, layer in enumerate(self.layers):
                x, k, v = layer(x, None if past is None else past[2 * i : 2 * i + 2])
                kept += [k, v]
            return self.head(self.norm(x[:, -1])), *kept

        def words(self) -> Any:
            """The head's matrix, which int8 layers keep to themselves."""
            return self.head.weight if isinstance(self.head, nn.Linear) else self.head.weight().dequantize()

    return Gpt2()


# ---- OpenVINO --------------------------------------------------------------------------------------


def write_weights8(source: Path, to: Path) -> None:
    """An ONNX file whose matrices are int8 with a scale a column, which OpenVINO keeps: it has no quantiser itself."""
    import onnx
    from onnx import helper, numpy_helper

    model = onnx.load(source)
    graph = model.graph
    found = {each.name: each for each in graph.initializer}
    nodes = []
    for node in graph.node:
        if node.op_type not in ("MatMul", "Gemm") or node.input[1] not in found:
            continue
        turned = any(each.name == "transB" and each.i for each in node.attribute)
        matrix, name = numpy_helper.to_array(found[node.input[1]]), f"{node.name}_weight"
        scale = np.abs(matrix).max(axis=int(turned)) / np.float32(127)
        codes = np.rint(matrix / (scale[:, None] if turned else scale)).astype(np.int8)
        parts = {f"{name}_codes": codes, f"{name}_scale": scale}
        graph.initializer.extend(numpy_helper.from_array(part, each) for each, part in parts.items())
        nodes.append(helper.make_node("DequantizeLinear", list(parts), [name], name, axis=int(not turned)))
        node.input[1] = name
    everything = [*nodes, *graph.node]
    used = {name for node in everything for name in node.input}
    kept = [each for each in graph.initializer if each.name in used]
    del graph.node[:], graph.initializer[:]
    graph.node.extend(everything)
    graph.initializer.extend(kept)
    onnx.save(model, to)


# ---- llama.cpp ------------------------------------------------------------------------------------


def write_gguf(path: Path, weights: Weights, kind: str = "F16") -> None:
    """llama.cpp's own format, without a vocabulary, which nobody needs here."""
    import gguf

    config, wanted = weights.config, gguf.GGMLQuantizationType[kind]
    writer = gguf.GGUFWriter(str(path), "gpt2")
    writer.add_block_count(config.n_layer)
    writer.add_context_length(config.n_positions)
    writer.add_embedding_length(config.n_embd)
    writer.add_feed_forward_length(config.n_inner)
    writer.add_head_count(config.n_head)
    writer.add_layer_norm_eps(config.layer_norm_epsilon)
    writer.add_vocab_size(config.vocab_size)
    writer.add_tokenizer_model("no_vocab")

    def add(name: str, values: np.ndarray) -> None:
        if values.ndim == 1 or name.startswith("position"):
            writer.add_tensor(name, values.astype(np.float32))
        elif kind == "F16":
            writer.add_tensor(name, values.astype(np.float16))
        else:
            codes = gguf.quants.quantize(values.astype(np.float32), wanted)
            writer.add_tensor(name, codes, raw_dtype=wanted)

    arrays = weights.arrays
    add("token_embd.weight", arrays["wte"])
    add("position_embd.weight", arrays["wpe"])
    add("output_norm.weight", arrays["ln_f_g"])
    add("output_norm.bias", arrays["ln_f_b"])
    for i in range(config.n_layer):
        at = f"layer_{i:02}/"
        for theirs, ours in (("attn_norm", "ln1"), ("ffn_norm", "ln2")):
            add(f"blk.{i}.{theirs}.weight", arrays[f"{at}{ours}_g"])
            add(f"blk.{i}.{theirs}.bias", arrays[f"{at}{ours}_b"])
        for theirs, parts in (("attn_qkv", "qkv"), ("attn_output", "o"), ("ffn_up", "1"), ("ffn_down", "2")):
            add(f"blk.{i}.{theirs}.weight", np.concatenate([arrays[f"{at}w{part}"] for part in parts]))
            add(f"blk.{i}.{theirs}.bias", np.concatenate([arrays[f"{at}b{part}"] for part in parts]))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def in_llama(setting: Setting, file: str, ids: Sequence[int], token: int | None) -> Work:
    """Weights in its own memory (mapped ones are reclaimed while its process waits), all of a prompt in one batch."""
    import llama_cpp

    model = llama_cpp.Llama(
        str(setting.folder / f"{file}.gguf"), n_ctx=1024, n_batch=1024, n_ubatch=1024, n_threads=setting.threads,
        n_threads_batch=setting.threads, use_mmap=False, logits_all=False, verbose=False,
    )  # fmt: skip
    memory = llama_cpp.llama_get_memory(model.ctx)
    if token is not None:
        _decode(model, list(ids), 0)

    def call() -> None:
        if token is None:
            llama_cpp.llama_memory_clear(memory, True)
            _decode(model, list(ids), 0)
        else:
            llama_cpp.llama_memory_seq_rm(memory, 0, CONTEXT, -1)
            _decode(model, [token], CONTEXT)

    def answer() -> np.ndarray:
        call()
        logits = llama_cpp.llama_get_logits_ith(model.ctx, -1)
        return np.ctypeslib.as_array(logits, shape=(model.n_vocab(),)).copy()

    return Work(call, answer)


def _decode(model: Any, tokens: list[int], at: int) -> None:
    """One batch of tokens from position ``at`` on; logits of the last."""
    import llama_cpp

    batch = llama_cpp.llama_batch_init(len(tokens), 0, 1)
    try:
        batch.n_tokens = len(tokens)
        for i, each in enumerate(tokens):
            batch.token[i], batch.pos[i], batch.n_seq_id[i], batch.seq_id[i][0] = each, at + i, 1, 0
            batch.logits[i] = i == len(tokens) - 1
        if llama_cpp.llama_decode(model.ctx, batch):
            raise RuntimeError("llama_decode failed")
    finally:
        llama_cpp.llama_batch_free(batch)


# ---- ctranslate2 ----------------------------------------------------------------------------------


def in_ctranslate2(setting: Setting, kind: str, ids: Sequence[int], token: int | None) -> Work:
    """A prompt goes through it but for its last token, which is a step of its own. What it keeps of a "static prompt"
    from call to call is the context of one token."""
    import ctranslate2

    folder = setting.folder / "ctranslate2"
    if not folder.exists():
        with np.load(setting.folder / "weights.npz") as arrays:
            _write_ctranslate2(folder, arrays)
    generator = ctranslate2.Generator(
        str(folder), device="cpu", compute_type=kind, inter_threads=1, intra_threads=setting.threads
    )
    given = {"max_length": 1, "include_prompt_in_result": False}
    if token is None:
        start = [[str(each) for each in ids]]
    else:
        start, given["static_prompt"] = [[str(token)]], [str(each) for each in ids]

    def call() -> None:
        generator.generate_batch(start, **given)

    def answer() -> np.ndarray:
        found = generator.generate_batch(start, **given, return_logits_vocab=True)
        return np.array(found[0].logits[0][0], np.float32)

    return Work(call, answer)


def _write_ctranslate2(folder: Path, arrays: Any) -> None:
    from ctranslate2.specs import common_spec, transformer_spec

    matrices = {name: arrays[name].astype(np.float32) for name in arrays}
    layers = sum(name.endswith("/wq") for name in matrices)
    heads = matrices["wte"].shape[1] // 64 or 1
    spec = transformer_spec.TransformerDecoderModelSpec.from_config(
        layers, heads, pre_norm=True, activation=common_spec.Activation.GELUTanh
    )

    def norm(to: Any, name: str) -> None:
        to.gamma, to.beta = matrices[f"{name}_g"], matrices[f"{name}_b"]

    def linear(to: Any, at: str, parts: str) -> None:
        to.weight = np.concatenate([matrices[f"{at}w{part}"] for part in parts])
        to.bias = np.concatenate([matrices[f"{at}b{part}"] for part in parts])

    decoder = spec.decoder
    decoder.scale_embeddings = False
    decoder.embeddings.weight = decoder.projection.weight = matrices["wte"]
    decoder.position_encodings.encodings = matrices["wpe"]
    norm(decoder.layer_norm, "ln_f")
    for i, layer in enumerate(decoder.layer):
        at = f"layer_{i:02}/"
        norm(layer.self_attention.layer_norm, f"{at}ln1")
        linear(layer.self_attention.linear[0], at, "qkv")
        linear(layer.self_attention.linear[1], at, "o")
        norm(layer.ffn.layer_norm, f"{at}ln2")
        linear(layer.ffn.linear_0, at, "1")
        linear(layer.ffn.linear_1, at, "2")
    spec.register_vocabulary([str(i) for i in range(len(matrices["wte"]))])
    for part in ("bos", "eos", "unk"):
        setattr(spec.config, f"{part}_token", "0")
    spec.validate()
    spec.optimize()
    folder.mkdir()
    spec.save(str(folder))
