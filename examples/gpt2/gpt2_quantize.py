"""Matrices in 8 or 4 bits, as Core ML's ``constexpr_blockwise_shift_scale`` has them: value = scale * code.

8 bits have a scale a row, 4 bits a scale for each 32 inputs of a row. Codes are symmetric around 0.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from gpt2_blob import read_blob, write_blob

BITS = (16, 8, 4)
BLOCK = 32  # inputs that share a scale in 4 bits


@dataclass(frozen=True)
class Quantized:
    codes: np.ndarray  # int8 [rows, inputs], of 4 bits -7 .. 7
    scale: np.ndarray  # fp16 [rows, blocks]
    bits: int

    @property
    def shape(self) -> tuple[int, ...]:
        return self.codes.shape

    def save(self, path: Path) -> None:
        """``path``.q8.bin and ``path``.s8.bin, or 4."""
        write_blob(path.with_name(f"{path.name}.q{self.bits}.bin"), self.codes)
        write_blob(path.with_name(f"{path.name}.s{self.bits}.bin"), self.scale)

    def dense(self) -> np.ndarray:
        """What it stands for, in float32."""
        inputs = self.shape[1]
        scale = np.repeat(self.scale.astype(np.float32), inputs // self.scale.shape[1], axis=1)
        return self.codes * scale


def blocks(inputs: int, bits: int) -> int:
    """Scales a row. A row that does not divide into blocks of 32 has one of all its inputs."""
    return 1 if bits == 8 or inputs % BLOCK else inputs // BLOCK


def quantize(weight: np.ndarray, bits: int) -> Quantized:
    """``weight`` [rows, inputs] to the nearest codes; the scale comes from the largest value of its block."""
    rows, inputs = weight.shape
    most = (1 << bits - 1) - 1
    codes = np.empty((rows, inputs), np.int8)
    scale = np.empty((rows, blocks(inputs, bits)), np.float16)
    for first in range(0, rows, 4096):  # a vocabulary's worth of float32 need not be in memory at once
        part = np.asarray(weight[first : first + 4096], np.float32).reshape(
            -1, scale.shape[1], inputs // scale.shape[1]
        )
        step = (np.abs(part).max(-1, keepdims=True) / most).astype(np.float16)
        step[step == 0] = 1
        codes[first : first + 4096] = np.clip(np.rint(part / step), -most, most).reshape(-1, inputs)
        scale[first : first + 4096] = step[..., 0]
    return Quantized(codes, scale, bits)


def load_quantized(path: Path, shape: tuple[int, ...], bits: int) -> Quantized:
    codes = read_blob(path.with_name(f"{path.name}.q{bits}.bin"), shape, np.int8)
    scale = read_blob(path.with_name(f"{path.name}.s{bits}.bin"), (shape[0], blocks(shape[1], bits)))
    return Quantized(codes, scale, bits)
