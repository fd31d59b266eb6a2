"""GPT-2 124M, random weights: prefill and the decoding of one token, against the runtimes that are installed."""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Callable
from functools import cache
from pathlib import Path

import numpy as np
import torch

from .timing import Case, Contender

sys.path.insert(0, str(Path(__file__).parent.parent / "examples" / "gpt2"))

from gpt2_config import Config
from gpt2_convert import MATRICES, shapes
from gpt2_engine import Engine
from gpt2_quantize import quantize
from gpt2_weights import Weights

CONTEXT = 128  # positions in the cache when the timed token comes


@cache
def random_weights(bits: int = 16) -> Weights:
    """The published shapes; fp16 arrays that nobody can write, as those of a mapped file."""
    if bits != 16:
        whole = random_weights()
        names = ["wte", *(name for name in whole.arrays if name.rpartition("/")[2] in MATRICES)]
        return Weights(whole.config, whole.arrays, {name: quantize(whole.arrays[name], bits) for name in names})
    rng, config, arrays = np.random.default_rng(0), Config(), {}
    for name, shape in shapes(config).items():
        values = rng.standard_normal(shape, np.float32) * np.float32(0.04)
        if name.rpartition("/")[2] in ("ln1_g", "ln2_g", "ln_f_g"):
            values += 1
        arrays[name] = values.astype(np.float16)
        arrays[name].flags.writeable = False
    return Weights(config, arrays, {})


def prompt(length: int) -> list[int]:
    return np.random.default_rng(1).integers(0, Config.vocab_size, length).tolist()


def prefill(length: int) -> Case:
    """From ``length`` token numbers to the logits of the last, keys and values kept."""
    from .gpt2_peers import Gpt2, peers

    engine, ids = Engine(random_weights()), prompt(length)
    given = torch.tensor([ids])
    contenders: dict[str, Contender] = {"anex fp16": lambda: engine.prefill(ids)}
    contenders |= peers(Gpt2(random_weights()), (given,), engine.prefill(ids).copy())
    return Case(f"GPT-2 124M prefill, S={length}", contenders)


def decode() -> Case:
    """One more token at a context of 128; the last row only reads as many bytes as fp16 weights have."""
    from .gpt2_peers import Gpt2, peers

    engines = {name: Engine(random_weights(bits)) for name, bits in (("fp16", 16), ("int8", 8), ("int4", 4))}
    for engine in engines.values():
        engine.prefill(prompt(CONTEXT))
    contenders: dict[str, Contender] = {f"anex {name}": one_token(engine) for name, engine in engines.items()}
    kept = [np.asarray(tensor)[:, :, :CONTEXT] for tensor in engines["fp16"].state.values()]
    past = torch.from_numpy(np.stack(kept).astype(np.float32))
    contenders |= peers(Gpt2(random_weights()), (torch.tensor([[7]]), past), contenders["anex fp16"]().copy())
    words = torch.zeros(random_weights().bytes_per_token // 8, dtype=torch.int64)
    contenders["reading 247 MB"] = lambda: words.sum()
    return Case(f"GPT-2 124M, one token at context {CONTEXT}", contenders)


def one_token(engine: Engine) -> Callable[[], np.ndarray]:
    def call() -> np.ndarray:
        engine.length = CONTEXT
        return engine.decode(7)

    return call


def missing() -> list[str]:
    """The peers that the published figures have and this environment has not."""
    modules = {
        "onnxruntime": "onnxruntime",
        "openvino": "openvino",
        "llama.cpp": "llama_cpp",
        "ctranslate2": "ctranslate2",
    }
    return [name for name, module in modules.items() if importlib.util.find_spec(module) is None]
