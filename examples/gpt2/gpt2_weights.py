"""The weights of a model by the names of the converted form, wherever they come from."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
from gpt2_blob import read_blob
from gpt2_checkpoint import Checkpoint
from gpt2_config import CheckpointError, Config, read_config
from gpt2_convert import MATRICES, converted, shapes
from gpt2_quantize import Quantized, load_quantized, quantize


class Weights:
    """fp16 arrays by name (``wte``, ``layer_00/wq``); matrices of ``bits`` 8 or 4 are ``Quantized``."""

    def __init__(self, config: Config, arrays: Mapping[str, np.ndarray], quantized: Mapping[str, Quantized]) -> None:
        self.config = config
        self.arrays = arrays
        self.quantized = quantized

    @classmethod
    def load(cls, folder: Path, bits: int = 16) -> Weights:
        """A converted folder, mapped into memory; or a Hugging Face folder, converted in memory.

        Quantised matrices are taken from where ``convert`` put them, else made here.
        """
        config = read_config(folder)
        whole = (folder / "wte.bin").exists()
        arrays: dict[str, np.ndarray]
        if whole:
            arrays = {name: read_blob(folder / f"{name}.bin", shape) for name, shape in shapes(config).items()}
            if (folder / "lm_head.bin").exists():
                arrays["lm_head"] = read_blob(folder / "lm_head.bin", arrays["wte"].shape)
        else:
            try:
                arrays = dict(converted(Checkpoint(folder), config))
            except CheckpointError as error:
                raise CheckpointError(f"{error}; nor is it a folder that gpt2_convert.py wrote") from None
        quantized = {}
        if bits != 16:
            head = "lm_head" if "lm_head" in arrays else "wte"
            for name in (head, *(name for name in arrays if name.rpartition("/")[2] in MATRICES)):
                ready = whole and (folder / f"{name}.q{bits}.bin").exists()
                quantized[name] = (
                    load_quantized(folder / name, arrays[name].shape, bits) if ready else quantize(arrays[name], bits)
                )
        return cls(config, arrays, quantized)

    def vector(self, name: str) -> np.ndarray:
        return self.arrays[name]

    def matrix(self, name: str) -> np.ndarray | Quantized:
        """[rows, inputs]"""
        return self.quantized.get(name, self.arrays[name])

    @property
    def head(self) -> np.ndarray | Quantized:
        """What makes logits of channels, [vocabulary, channels]: the embedding itself unless there is another."""
        return self.matrix("lm_head" if "lm_head" in self.arrays else "wte")

    @property
    def bytes_per_token(self) -> int:
        """What decoding one token reads of the weights."""
        names = {name for name in self.arrays if "/" in name} | {"lm_head" if "lm_head" in self.arrays else "wte"}
        return sum(_nbytes(self.matrix(name)) for name in names)


def _nbytes(matrix: np.ndarray | Quantized) -> int:
    if isinstance(matrix, Quantized):
        return matrix.codes.size * matrix.bits // 8 + matrix.scale.nbytes
    return matrix.nbytes
