"""GPT-2 in ctranslate2, with the weights of ours: its own format, and contenders for prefill and one token.

It has no call for one token: what is timed is TOKENS of them after a prompt whose cache it keeps, so contexts are
CONTEXT to CONTEXT + TOKENS.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from .case import Setting, Work

if TYPE_CHECKING:
    from gpt2_weights import Weights

TOKENS = 16


def word(number: int) -> str:
    """ctranslate2 takes tokens as text."""
    return f"t{number}"


def write_folder(path: Path, weights: Weights) -> None:
    """A model as ``ctranslate2.Generator`` opens it, in float32; ``path`` becomes a folder."""
    from ctranslate2.specs import common_spec, transformer_spec

    config, arrays = weights.config, weights.arrays
    spec = transformer_spec.TransformerDecoderModelSpec.from_config(
        config.n_layer, config.n_head, pre_norm=True, activation=common_spec.Activation.GELUTanh
    )

    def give(to: Any, weight: str | Sequence[str], bias: str | Sequence[str] = ()) -> None:
        def joined(names: str | Sequence[str]) -> np.ndarray:
            parts = [arrays[name] for name in ([names] if isinstance(names, str) else names)]
            return np.concatenate(parts).astype(np.float32)

        to.weight = joined(weight)
        if bias:
            to.bias = joined(bias)

    def norm(to: Any, name: str) -> None:
        to.gamma, to.beta = (arrays[f"{name}_{part}"].astype(np.float32) for part in "gb")

    decoder = spec.decoder
    decoder.scale_embeddings = False
    give(decoder.embeddings, "wte")
    decoder.position_encodings.encodings = arrays["wpe"].astype(np.float32)
    norm(decoder.layer_norm, "ln_f")
    give(decoder.projection, "wte")
    for i, layer in enumerate(decoder.layer):
        at = f"layer_{i:02}/"
        norm(layer.self_attention.layer_norm, f"{at}ln1")
        give(layer.self_attention.linear[0], [f"{at}w{part}" for part in "qkv"], [f"{at}b{part}" for part in "qkv"])
        give(layer.self_attention.linear[1], f"{at}wo", f"{at}bo")
        norm(layer.ffn.layer_norm, f"{at}ln2")
        give(layer.ffn.linear_0, f"{at}w1", f"{at}b1")
        give(layer.ffn.linear_1, f"{at}w2", f"{at}b2")
    spec.register_vocabulary([word(i) for i in range(config.vocab_size)])
    spec.config.bos_token = spec.config.eos_token = spec.config.unk_token = word(config.vocab_size - 1)
    spec.validate()
    path.mkdir(parents=True, exist_ok=True)
    spec.save(str(path))


def in_ctranslate2(setting: Setting, kind: str, ids: Sequence[int], token: int | None) -> Work:
    """``kind`` "float32" or "int8"; the folder "ctranslate2" is in the setting's. Answers: logits [V] of the last."""
    import ctranslate2

    model = ctranslate2.Generator(
        str(setting.folder / "ctranslate2"), device="cpu", compute_type=kind, inter_threads=1,
        intra_threads=setting.threads,
    )  # fmt: skip
    prompt = [word(number) for number in ids]
    last = [] if token is None else [word(token)]

    def answer() -> np.ndarray:
        return np.array(model.forward_batch([prompt + last]))[0, -1]

    def prefill() -> object:
        return model.generate_batch([prompt], max_length=1, min_length=1, include_prompt_in_result=False)

    def decode() -> object:
        return model.generate_batch(
            [last], static_prompt=prompt, cache_static_prompt=True, max_length=TOKENS, min_length=TOKENS,
            include_prompt_in_result=False, beam_size=1, sampling_topk=1,
        )  # fmt: skip

    return Work(prefill, answer) if token is None else Work(decode, answer, TOKENS)
