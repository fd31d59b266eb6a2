"""llama2.c's model in torch, from the names of its own export, for the tests of examples/stories110m."""

import pydoc_data.topics
import sys
from pathlib import Path

import numpy as np
import torch

ROOT = Path(__file__).parent.parent
sys.path.insert(0, str(ROOT / "examples" / "stories110m"))

import generate  # noqa: E402, F401 - the path first
import train  # noqa: E402, F401
from stories_config import TINY  # noqa: E402
from stories_data import save_tokens  # noqa: E402
from stories_tokenizer import Tokenizer  # noqa: E402


def logits(config, w, tokens):
    """[S, V] by weights [out, in] as a model file has them: rotary pairs side by side, as complex numbers."""
    size, length = config.head_size, len(tokens)
    frequencies = 1.0 / 10000 ** (torch.arange(0, size, 2, dtype=torch.float64) / size)
    turn = torch.polar(torch.ones(length, size // 2, dtype=torch.float64),
                       torch.outer(torch.arange(length, dtype=torch.float64), frequencies))  # fmt: skip

    def norm(x, weight):
        return torch.nn.functional.rms_norm(x, (config.dim,), weight, 1e-5)

    def turned(x):  # [S, heads, size]
        pairs = torch.view_as_complex(x.double().reshape(length, -1, size // 2, 2))
        return torch.view_as_real(pairs * turn[:, None]).reshape(x.shape).to(x.dtype)

    x = w["embedding"][torch.as_tensor(np.asarray(tokens, np.int64))]
    for i in range(config.n_layers):
        h = norm(x, w[f"attention_norm_{i}"])
        q, k, v = ((h @ w[f"{name}_{i}"].T).reshape(length, -1, size) for name in ("wq", "wk", "wv"))
        q, k, v = (each.transpose(0, 1)[None] for each in (turned(q), turned(k), v))
        mixed = torch.nn.functional.scaled_dot_product_attention(q, k, v, is_causal=True, enable_gqa=True)
        x = x + mixed[0].transpose(0, 1).reshape(length, -1) @ w[f"wo_{i}"].T
        h = norm(x, w[f"ffn_norm_{i}"])
        x = x + (torch.nn.functional.silu(h @ w[f"w1_{i}"].T) * (h @ w[f"w3_{i}"].T)) @ w[f"w2_{i}"].T
    return norm(x, w["norm"]) @ w[config.classifier].T


def loss(config, w, tokens, targets):
    return torch.nn.functional.cross_entropy(logits(config, w, tokens), torch.as_tensor(np.asarray(targets, np.int64)))


def file_order(config, weights):
    """The weights as a model file has them: rows of wq and wk paired. Written apart from the example's own code."""
    found = {}
    for name, value in weights.items():
        value = np.asarray(value)
        if name.startswith(("wq_", "wk_")):
            half = config.head_size // 2
            rows = [h * config.head_size + p + s * half
                    for h in range(len(value) // config.head_size) for p in range(half) for s in range(2)]  # fmt: skip
            value = value[rows]
        found[name] = value
    return found


def parameters(config, weights):
    """In float64, with gradients."""
    given = file_order(config, weights)
    return {name: torch.tensor(value, dtype=torch.float64, requires_grad=True) for name, value in given.items()}


def torch_gradients(config, weights, tokens, targets):
    """(the loss, the gradients by name), in the order of a model file."""
    given = parameters(config, weights)
    made = loss(config, given, tokens, targets)
    return made.item(), dict(zip(given, torch.autograd.grad(made, list(given.values())), strict=True))


def text():
    """Python's documentation of three statements, and this project's licence: less than 3 KB of English."""
    topics = ("while", "pass", "break")
    return "\n\n".join([*(pydoc_data.topics.topics[name] for name in topics), (ROOT / "LICENSE").read_text()])


def make_data(folder):
    """Write d.bin and tokenizer.bin of ``text()`` for models of the size ``TINY``; its tokens."""
    tokenizer = Tokenizer.learn(text(), TINY.vocab_size)
    tokenizer.save(folder / "tokenizer.bin")
    numbers = [number for part in text().split("\n\n") for number in tokenizer.encode(part)]
    save_tokens(folder / "d.bin", numbers)
    return numbers
