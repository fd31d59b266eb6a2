"""Model files of llama2.c, read and written: seven int32, then float32 weights (its "version 0").

In the file the channels that rotary positions turn together lie side by side; here the first half of a head turns
with the second, which programs do on whole rows. Rows of ``wq`` and ``wk`` are moved on the way in and out.
"""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
from stories_config import ROPE_BASE, Config, StoriesError
from stories_files import replacing

HEADER = 7 * 4  # bytes
MAGIC = 0x616B3432  # of versions 1 and 2, which are laid out otherwise
ORDER = ("attention_norm", "wq", "wk", "wv", "wo", "ffn_norm", "w1", "w2", "w3")


def angles(config: Config) -> np.ndarray:
    """What a position turns pairs of channels by, [seq_len, head_size / 2], in radians."""
    steps = np.arange(0, config.head_size, 2) / config.head_size
    return np.outer(np.arange(config.seq_len), 1 / ROPE_BASE**steps)


def load_config(path: Path) -> Config:
    """What the header of a model file says."""
    with open(path, "rb") as file:
        header = np.frombuffer(file.read(HEADER), "<i4")
    if len(header) < 7:
        raise StoriesError(f"{path} is {path.stat().st_size} bytes; a llama2.c model begins with a header of {HEADER}")
    if header.view("<u4")[0] == MAGIC:
        raise StoriesError(f"{path} is version {header[1]} of llama2.c's format; export it with --version 0")
    *sizes, vocabulary, length = (int(number) for number in header)
    try:
        return Config(*sizes, abs(vocabulary), length, shared=vocabulary > 0)
    except StoriesError as error:
        raise StoriesError(f"{path} is no llama2.c model: {error}") from None


def load(path: str | os.PathLike[str]) -> tuple[Config, dict[str, np.ndarray]]:
    """(sizes, weights) of a model file; the weights are float32 copies in the order of ``Config.shapes``."""
    path = Path(path)
    config = load_config(path)
    wanted, found = _bytes(config), path.stat().st_size
    if found != wanted:
        state = "cut off" if found < wanted else "too long"
        raise StoriesError(f"{path} is {state}: {found} bytes, where {config} takes {wanted}; fetch it again")
    data, at = np.memmap(path, "<f4", "r", HEADER), 0
    weights: dict[str, np.ndarray] = {}

    def take(shape: tuple[int, ...]) -> np.ndarray:
        nonlocal at
        begin, at = at, at + int(np.prod(shape))
        return np.array(data[begin:at]).reshape(shape)

    weights["embedding"] = take(config.shapes()["embedding"])
    for name in ORDER:
        for i in range(config.n_layers):
            weights[f"{name}_{i}"] = _halves(take(config.layer_shapes()[name]), name, config)
    weights["norm"] = take((config.dim,))
    take((2, config.seq_len, config.head_size // 2))  # cosines and sines, which follow from the sizes
    if not config.shared:
        weights["output"] = take(config.shapes()["output"])
    return config, {name: weights[name] for name in config.shapes()}


def save(path: str | os.PathLike[str], config: Config, weights: dict[str, np.ndarray]) -> None:
    """Write a model file that llama2.c's ``run`` takes; it appears when it is whole."""
    path = Path(path)
    vocabulary = config.vocab_size if config.shared else -config.vocab_size
    sizes = (config.dim, config.hidden_dim, config.n_layers, config.n_heads, config.n_kv_heads, vocabulary)
    with replacing(path) as partial, open(partial, "wb") as file:
        file.write(np.array([*sizes, config.seq_len], "<i4").tobytes())

        def put(array: np.ndarray) -> None:
            file.write(np.ascontiguousarray(array, "<f4").data)

        put(np.asarray(weights["embedding"]))
        for name in ORDER:
            for i in range(config.n_layers):
                put(_pairs(np.asarray(weights[f"{name}_{i}"]), name, config))
        put(np.asarray(weights["norm"]))
        put(np.cos(angles(config)))
        put(np.sin(angles(config)))
        if not config.shared:
            put(np.asarray(weights["output"]))


def _bytes(config: Config) -> int:
    tables = config.seq_len * config.head_size  # half of it cosines
    return HEADER + 4 * (config.parameters() + tables)


def _halves(matrix: np.ndarray, name: str, config: Config) -> np.ndarray:
    """Rows (0, 1, 2, 3 ..) of a head to (0, 2, .., 1, 3, ..)."""
    if name not in ("wq", "wk"):
        return matrix
    heads = matrix.reshape(-1, config.head_size // 2, 2, matrix.shape[1])
    return np.ascontiguousarray(heads.swapaxes(1, 2)).reshape(matrix.shape)


def _pairs(matrix: np.ndarray, name: str, config: Config) -> np.ndarray:
    """The way back."""
    if name not in ("wq", "wk"):
        return matrix
    heads = matrix.reshape(-1, 2, config.head_size // 2, matrix.shape[1])
    return np.ascontiguousarray(heads.swapaxes(1, 2)).reshape(matrix.shape)
