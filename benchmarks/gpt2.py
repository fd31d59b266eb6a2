"""GPT-2 124M with random weights: prefill, and the decoding of one token, against the runtimes that are installed.

A row for another engine is a contender in ``peers`` of gpt2_peers.py. Nothing at the top of either module imports
anex or torch, which the processes of the other runtimes do not have: see ``benchmarks``.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from functools import partial
from typing import TYPE_CHECKING

import numpy as np

from .case import Case, Contender, Goal, Limit, Setting, Work
from .gpt2_peers import CONTEXT, peers
from .runtimes import ROOT

if TYPE_CHECKING:
    from gpt2_engine import Engine
    from gpt2_weights import Weights

sys.path.insert(0, str(ROOT / "examples" / "gpt2"))

from gpt2_config import Config

BEST_INT8 = ("onnxruntime int8", "openvino int8", "torch int8", "ctranslate2 int8", "llama.cpp q8_0")


def random_weights(config: Config, bits: int = 16) -> Weights:
    """As they are once they were loaded."""
    from gpt2_convert import shapes
    from gpt2_weights import Weights

    rng = np.random.default_rng(0)

    def tensors() -> Iterator[tuple[str, np.ndarray]]:
        for name, shape in shapes(config).items():
            values = rng.standard_normal(shape, np.float32) * np.float32(0.04)
            if name.rpartition("/")[2] in ("ln1_g", "ln2_g", "ln_f_g"):
                values += 1
            yield name, values.astype(np.float16)

    return Weights.of(config, tensors(), bits)


def prompt(config: Config, length: int) -> list[int]:
    return np.random.default_rng(1).integers(0, config.vocab_size, length).tolist()


def _engine(config: Config, bits: int) -> Engine:
    from gpt2_engine import Engine

    return Engine(random_weights(config, bits))


def _matrices(config: Config) -> int:
    """Numbers in the matrices of one layer."""
    return config.n_embd * (4 * config.n_embd + 2 * config.n_inner)


def _per_token(config: Config) -> int:
    """Weights that one token reads: matrices, biases and norms of the layers, and the embedding as the head."""
    vectors = 9 * config.n_embd + config.n_inner
    return config.n_layer * (_matrices(config) + vectors) + config.vocab_size * config.n_embd


def prefill(length: int, config: Config | None = None) -> Case:
    """From ``length`` token numbers to the logits of the last, keys and values kept. ``config``: the 124M model's."""
    config = config or Config()
    ids = prompt(config, length)

    def ours(setting: Setting) -> Work:
        engine = _engine(config, 16)
        return Work(lambda: engine.prefill(ids), lambda: engine.prefill(ids))

    torch, onnxruntime, openvino = {32: (2.6, 1.45, 1.35), 128: (1.55, 1.2, 1.08)}.get(length, (1.25, 1.15, 1.1))
    contenders, files = peers(ids, None, partial(random_weights, config))
    # twice the products of the matrices, of the half of the scores that is seen, and of the head's one row
    layers = length * config.n_layer * (_matrices(config) + length * config.n_embd)
    products = layers + config.vocab_size * config.n_embd
    return Case(
        f"GPT-2 124M prefill, S={length}",
        {"anex fp16": ours, **contenders},
        goals=[
            Goal("anex fp16", "torch fp32", torch),
            Goal("anex fp16", "onnxruntime fp32", onnxruntime),
            Goal("anex fp16", "openvino fp32", openvino),
        ],
        limits=[Limit("fma", 2 * products)],
        tolerance=0.05,
        files=files,
    )


def one_token(config: Config, bits: int) -> Contender:
    """The token 7 after a prompt of CONTEXT tokens."""

    def contender(setting: Setting) -> Work:
        engine = _engine(config, bits)
        engine.prefill(prompt(config, CONTEXT))

        def call() -> np.ndarray:
            engine.length = CONTEXT
            return engine.decode(7)

        return Work(call, call)

    return contender


def decode(config: Config | None = None) -> Case:
    """One more token at a context of 128."""
    config = config or Config()
    contenders, files = peers(prompt(config, CONTEXT), 7, partial(random_weights, config))
    floating = {name: made for name, made in contenders.items() if name not in BEST_INT8}
    files.pop("q8_0.gguf")
    return Case(
        f"GPT-2 124M, one token at context {CONTEXT}",
        {"anex fp16": one_token(config, 16), **floating},
        goals=[
            Goal("anex fp16", "llama.cpp f16", 1.35),
            Goal("anex fp16", "onnxruntime fp32", 2.2),
            Goal("anex fp16", "openvino fp32", 2.2),
            Goal("anex fp16", "torch fp32", 2.9),
            Goal("anex fp16", "limit gemv", 0.9),
        ],
        limits=[Limit("gemv", 2 * _per_token(config), ("anex fp16", "llama.cpp f16"))],
        tolerance=0.05,
        files=files,
    )


def decode_int8(config: Config | None = None) -> Case:
    """The same with weights in 8 bits, and in 4, each engine with its own rounding of them."""
    config = config or Config()
    contenders, files = peers(prompt(config, CONTEXT), 7, partial(random_weights, config))
    int8 = {name: made for name, made in contenders.items() if name in BEST_INT8}
    files.pop("f16.gguf")
    return Case(
        f"GPT-2 124M, one token at context {CONTEXT}, weights in 8 bits",
        {
            "anex int8": one_token(config, 8),
            "anex int4": one_token(config, 4),
            "anex fp16": one_token(config, 16),
            **int8,
        },
        goals=[Goal("anex int8", BEST_INT8, 1.6)],
        limits=[Limit("read", _per_token(config), ("anex int8",))],
        tolerance=0.5,  # of random weights in 4 bits, little is left
        files=files,
    )
