"""All cases by name. A case's module is imported when the case is asked for."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Sequence
from typing import Any

from .case import Case


def _from(module: str, function: str, *arguments: Any) -> Callable[[], Case]:
    def make() -> Case:
        return getattr(importlib.import_module(f"{__package__}.{module}"), function)(*arguments)

    return make


CASES: dict[str, Callable[[], Case]] = {
    "tiny-add": _from("cases.tiny", "add"),
    "tiny-conv": _from("cases.tiny", "conv"),
    "chain": _from("cases.chain", "floating"),
    "chain-w8a8": _from("cases.chain", "w8a8"),
    "ffn-64": _from("cases.blocks", "ffn", 64),
    "ffn-256": _from("cases.blocks", "ffn", 256),
    "attention-64": _from("cases.blocks", "attention", 64),
    "attention-256": _from("cases.blocks", "attention", 256),
    "product-64": _from("cases.blocks", "product", 64),
    "product-256": _from("cases.blocks", "product", 256),
    "resnet": _from("cases.networks", "resnet"),
    "mobilenet": _from("cases.networks", "mobilenet"),
    "encoder": _from("cases.networks", "encoder"),
    "minilm-32": _from("cases.networks", "minilm", 32),
    "minilm-128": _from("cases.networks", "minilm", 128),
    "add": _from("cases.bandwidth", "add"),
    "gelu": _from("cases.bandwidth", "gelu"),
    "softmax-last": _from("cases.bandwidth", "softmax", 3),
    "softmax-channel": _from("cases.bandwidth", "softmax", 1),
    "norm-last": _from("cases.bandwidth", "layer_norm", 3),
    "norm-channel": _from("cases.bandwidth", "layer_norm", 1),
    "widen-cache": _from("cases.conversion", "conversion", "float32", 786_432),
    "narrow-cache": _from("cases.conversion", "conversion", "float16", 786_432),
    "widen-memory": _from("cases.conversion", "conversion", "float32", 64 << 20),
    "narrow-memory": _from("cases.conversion", "conversion", "float16", 64 << 20),
    "compile": _from("cases.compiling", "gpt2"),
    **{f"gpt2-prefill-{length}": _from("gpt2", "prefill", length) for length in (32, 128, 512, 1024)},
    "gpt2-decode": _from("gpt2", "decode"),
    "gpt2-decode-int8": _from("gpt2", "decode_int8"),
    "train-step": _from("cases.training", "step"),
    "train-adamw": _from("cases.training", "adamw"),
    "call": _from("cases.double", "call_to_framework"),
}


def matching(asked: Sequence[str]) -> list[str]:
    """The names asked for, in the catalogue's order; what is no name ("gpt2") stands for all that begin so ("gpt2-..").

    All of them where none is asked for. Raises ``KeyError`` with a name that stands for none.
    """
    found: set[str] = set()
    for name in asked:
        here = {name} & CASES.keys() or {case for case in CASES if case.startswith(f"{name}-")}
        if not here:
            raise KeyError(name)
        found |= here
    return [case for case in CASES if case in found or not asked]
