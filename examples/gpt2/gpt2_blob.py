"""One array in a file behind the 128-byte header of Core ML's weight files (``BlobFileStorage``, version 2)."""

from __future__ import annotations

import math
import struct
from pathlib import Path

import numpy as np
from gpt2_config import CheckpointError

# count of blobs, version; then, at 64, of the only blob: sentinel, type, bytes of data, where the data begins
HEADER = struct.Struct("<II56xIIQQ40x")
SENTINEL = 0xDEADBEEF
TYPES = {np.dtype(np.float16): 1, np.dtype(np.int8): 4}


def write_blob(path: Path, array: np.ndarray) -> None:
    with open(path, "wb") as file:
        file.write(HEADER.pack(1, 2, SENTINEL, TYPES[array.dtype], array.nbytes, HEADER.size))
        np.ascontiguousarray(array).tofile(file)


def read_blob(path: Path, shape: tuple[int, ...], dtype: type = np.float16) -> np.ndarray:
    """The array, mapped: pages come into memory when they are read, and are the system's to drop."""
    size = math.prod(shape) * np.dtype(dtype).itemsize
    try:
        with open(path, "rb") as file:
            header = file.read(HEADER.size)
    except FileNotFoundError:
        raise CheckpointError(f"{path} is missing; convert the checkpoint again") from None
    expected = HEADER.pack(1, 2, SENTINEL, TYPES[np.dtype(dtype)], size, HEADER.size)
    there = path.stat().st_size
    if header != expected or there < HEADER.size + size:
        raise CheckpointError(
            f"{path} is no blob of {np.dtype(dtype).name} {list(shape)} ({there} bytes for {HEADER.size + size}); "
            "convert the checkpoint again"
        )
    return np.memmap(path, dtype, "r", HEADER.size, shape)
