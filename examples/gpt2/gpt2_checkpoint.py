"""The tensors of a Hugging Face GPT-2 folder, read by safetensors without torch, as checked fp16 arrays."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import NamedTuple

import numpy as np
from gpt2_config import CheckpointError
from safetensors import SafetensorError, safe_open

import anex

FLOATS = {"F16": "<f2", "F32": "<f4", "F64": "<f8", "BF16": "<u2"}  # and what numpy reads them as: it has no bfloat16
PIECE = 1 << 22  # elements that are converted at once
PREFIX = "transformer."  # of a GPT2LMHeadModel; the published files are of a GPT2Model and have none


class Stored(NamedTuple):
    """A tensor in a file"""

    path: Path
    name: str
    dtype: str
    shape: tuple[int, ...]
    offset: int  # in the file


class Checkpoint:
    """One or several safetensors files, as one table of tensors."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.tensors = {each.name.removeprefix(PREFIX): each for path in _files(folder) for each in _contents(path)}

    def has(self, name: str) -> bool:
        return name in self.tensors

    def get(self, name: str, shape: tuple[int, ...]) -> np.ndarray:
        """The tensor in fp16."""
        if name not in self.tensors:
            raise CheckpointError(
                f"{self.folder} has no tensor {name!r}, with or without {PREFIX!r} before it; "
                "is config.json of the same model?"
            )
        found = self.tensors[name]
        if found.shape != shape:
            raise CheckpointError(
                f"{found.path}: {found.name!r} is {list(found.shape)}; by config.json it must be {list(shape)}"
            )
        if found.dtype not in FLOATS:
            raise CheckpointError(f"{found.path}: {found.name!r} is {found.dtype}; weights are {', '.join(FLOATS)}")
        return _half(found)


def _contents(path: Path) -> list[Stored]:
    """By the file's header, which safetensors has checked: it would keep all of a file's pages in memory."""
    try:
        with safe_open(path, framework="numpy"), open(path, "rb") as file:
            size = int.from_bytes(file.read(8), "little")
            header = json.loads(file.read(size))
    except (SafetensorError, OSError) as error:
        raise CheckpointError(f"{path} cannot be read: {error}") from None
    header.pop("__metadata__", None)
    return [
        Stored(path, name, each["dtype"], tuple(each["shape"]), 8 + size + each["data_offsets"][0])
        for name, each in header.items()
    ]


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


def _half(stored: Stored) -> np.ndarray:
    """A piece at a time, so that of a file's map no more is in memory."""
    size = math.prod(stored.shape)
    half = np.empty(size, np.float16)
    worst = np.float32(0)
    for first in range(0, size, PIECE):
        count, dtype = min(PIECE, size - first), np.dtype(FLOATS[stored.dtype])
        piece = np.memmap(stored.path, dtype, "r", stored.offset + first * dtype.itemsize, (count,))
        if stored.dtype == "BF16":  # the upper halves of float32
            piece = (piece.astype(np.uint32) << 16).view(np.float32)
        half[first : first + count] = anex.tensor(np.asarray(piece, np.float32), dtype="float16")
        if not np.isfinite(half[first : first + count]).all():
            worst = np.maximum(worst, np.abs(piece).max())
    if worst != 0:  # NaN too
        raise CheckpointError(
            f"{stored.path}: {stored.name!r} has values up to {worst:g}; fp16, and so the engine, ends at 65504"
        )
    return half.reshape(stored.shape)
