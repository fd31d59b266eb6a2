"""What a GPT-2 checkpoint's config.json says, as far as the engine needs it; anything it cannot run is refused."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

ACTIVATIONS = {"gelu_new": "TANH_APPROXIMATION", "gelu_pytorch_tanh": "TANH_APPROXIMATION", "gelu": "EXACT"}


class CheckpointError(ValueError):
    """A folder is no GPT-2 checkpoint, or not a whole one. The message names the file or tensor, and the way out."""


@dataclass(frozen=True)
class Config:
    """Sizes of one model; the names are Hugging Face's."""

    n_embd: int = 768
    n_layer: int = 12
    n_head: int = 12
    n_positions: int = 1024
    n_inner: int = 3072
    vocab_size: int = 50257
    layer_norm_epsilon: float = 1e-5
    activation_function: str = "gelu_new"
    scale_attn_by_inverse_layer_idx: bool = False
    eos_token_id: int | None = 50256

    @property
    def head_size(self) -> int:
        return self.n_embd // self.n_head

    def save(self, folder: Path) -> None:
        text = json.dumps({"model_type": "gpt2", **asdict(self)}, indent=2)
        (folder / "config.json").write_text(text + "\n")


def read_config(folder: Path) -> Config:
    """``folder``/config.json, as ``save_pretrained`` or ``Config.save`` wrote it."""
    path = folder / "config.json"
    try:
        given = json.loads(path.read_text())
    except FileNotFoundError:
        raise CheckpointError(f"{folder} has no config.json; is it a folder of a GPT-2 model?") from None
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise CheckpointError(f"{path} is no JSON: {error}") from None
    if not isinstance(given, dict) or given.get("model_type", "gpt2") != "gpt2":
        kind = given.get("model_type") if isinstance(given, dict) else type(given).__name__
        raise CheckpointError(f"{path}: model_type is {kind!r}, and this engine runs 'gpt2'")
    chosen = {name: given[name] for name in Config.__dataclass_fields__ if given.get(name) is not None}
    chosen.setdefault("n_inner", 4 * _whole(path, given, "n_embd", Config.n_embd))
    if "eos_token_id" in given:
        chosen["eos_token_id"] = given["eos_token_id"]
    config = Config(**chosen)
    _check(path, config, given)
    return config


def _whole(path: Path, given: dict[str, Any], name: str, otherwise: int) -> int:
    value = given.get(name, otherwise)
    if isinstance(value, bool) or not isinstance(value, int) or value < 1:
        raise CheckpointError(f"{path}: {name} is {value!r}, not a whole number above 0")
    return value


def _check(path: Path, config: Config, given: dict[str, Any]) -> None:
    for name in ("n_embd", "n_layer", "n_head", "n_positions", "n_inner", "vocab_size"):
        _whole(path, asdict(config), name, 0)
    if config.n_embd % config.n_head:
        raise CheckpointError(f"{path}: {config.n_embd} channels do not divide into {config.n_head} heads")
    if config.activation_function not in ACTIVATIONS:
        known = ", ".join(ACTIVATIONS)
        raise CheckpointError(f"{path}: activation_function is {config.activation_function!r}; known are {known}")
    if given.get("scale_attn_weights") is False or given.get("add_cross_attention"):
        raise CheckpointError(f"{path}: attention without scaling, or with a second input, is not GPT-2's as published")
