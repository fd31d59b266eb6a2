"""The tensors of a Hugging Face GPT-2 folder, read by safetensors without torch, as checked fp16 arrays."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
from gpt2_config import CheckpointError
from safetensors import SafetensorError, deserialize, safe_open

import anex

FLOATS = ("F16", "F32", "F64", "BF16")
PREFIX = "transformer."  # of a GPT2LMHeadModel; the published files are of a GPT2Model and have none


class Checkpoint:
    """One or several safetensors files, as one table of tensors."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.files = {}
        for path in _files(folder):
            try:
                file = safe_open(path, framework="numpy")
            except (SafetensorError, OSError) as error:
                raise CheckpointError(f"{path} cannot be read: {error}") from None
            for name in file.keys():  # noqa: SIM118 - no mapping
                self.files[name.removeprefix(PREFIX)] = (path, file, name)

    def has(self, name: str) -> bool:
        return name in self.files

    def get(self, name: str, shape: tuple[int, ...]) -> np.ndarray:
        """The tensor in fp16."""
        if name not in self.files:
            raise CheckpointError(
                f"{self.folder} has no tensor {name!r}, with or without {PREFIX!r} before it; "
                "is config.json of the same model?"
            )
        path, file, full = self.files[name]
        part = file.get_slice(full)
        found, dtype = tuple(part.get_shape()), part.get_dtype()
        if found != shape:
            raise CheckpointError(f"{path}: {full!r} is {list(found)}; by config.json it must be {list(shape)}")
        if dtype not in FLOATS:
            raise CheckpointError(f"{path}: {full!r} is {dtype}; weights are {', '.join(FLOATS)}")
        array = _bfloat16(path, full, shape) if dtype == "BF16" else file.get_tensor(full)
        return _half(path, full, array)


def _files(folder: Path) -> list[Path]:
    single, index = folder / "model.safetensors", folder / "model.safetensors.index.json"
    if single.exists():
        return [single]
    if index.exists():
        try:
            parts = sorted(set(json.loads(index.read_text())["weight_map"].values()))
        except (json.JSONDecodeError, KeyError, AttributeError, UnicodeDecodeError) as error:
            raise CheckpointError(f"{index} is no index of weights: {error!r}") from None
        return [folder / part for part in parts]
    if not folder.is_dir():
        raise CheckpointError(f"there is no folder {folder}")
    others = ", ".join(path.name for path in sorted(folder.glob("*.bin")))
    hint = f" ({others} needs torch: save_pretrained() writes safetensors)" if others else ""
    raise CheckpointError(f"{folder} has no model.safetensors{hint}")


def _half(path: Path, name: str, array: np.ndarray) -> np.ndarray:
    if array.dtype == np.float64:
        array = array.astype(np.float32)
    half = np.asarray(anex.tensor(np.ascontiguousarray(array), dtype="float16"))
    if not np.isfinite(half).all():
        worst = np.abs(array).max()
        raise CheckpointError(f"{path}: {name!r} has values up to {worst:g}; fp16, and so the engine, ends at 65504")
    return half


def _bfloat16(path: Path, name: str, shape: tuple[int, ...]) -> np.ndarray:
    """numpy has no such type: the upper halves of float32."""
    data = next(item["data"] for each, item in deserialize(path.read_bytes()) if each == name)
    return (np.frombuffer(data, "<u2").astype(np.uint32) << 16).view(np.float32).reshape(shape)
