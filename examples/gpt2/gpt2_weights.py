"""The weights of a model by the names of the converted form, wherever they come from."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path

import numpy as np
from gpt2_blob import read_blob
from gpt2_checkpoint import Checkpoint
from gpt2_config import CheckpointError, Config, read_config
from gpt2_convert import MATRICES, converted, shapes
from gpt2_memory import freeze, joined, memory
from gpt2_quantize import Quantized, load_quantized, quantize

HALF = np.dtype(np.float16)
Tensors = Iterable[tuple[str, "np.ndarray | Quantized"]]


class Weights:
    """fp16 arrays by name (``wte``, ``layer_00/wq``); of ``bits`` 8 or 4 matrices are ``Quantized``, and no arrays."""

    def __init__(
        self, config: Config, arrays: Mapping[str, np.ndarray], quantized: Mapping[str, Quantized] | None = None
    ) -> None:
        self.config, self.arrays, self.quantized = config, arrays, quantized or {}
        self._joined: dict[str, np.ndarray | Quantized] = {}

    @classmethod
    def load(cls, folder: Path, bits: int = 16, done: Callable[[], object] = lambda: None) -> Weights:
        """A converted folder, or a Hugging Face folder, converted in memory; ``done`` is called after each tensor.

        Quantised matrices are taken from where ``convert`` put them, else made here.
        """
        config = read_config(folder)
        if (folder / "wte.bin").exists():
            return cls.of(config, _stored(folder, config, bits), bits, done)
        try:
            return cls.of(config, converted(Checkpoint(folder), config), bits, done)
        except CheckpointError as error:
            raise CheckpointError(f"{error}; nor is it a folder that gpt2_convert.py wrote") from None

    @classmethod
    def of(cls, config: Config, tensors: Tensors, bits: int = 16, done: Callable[[], object] = lambda: None) -> Weights:
        """Brings ``tensors``, by their names, together in memory, one after the other; quantises matrices that are not
        yet. With fewer bits than 16 ``wte`` stays where it is, as few of its rows are read: the head is another."""
        arrays = memory(
            {name: (shape, HALF) for name, shape in shapes(config).items() if bits == 16 or not _is_matrix(name)}
        )
        quantized: dict[str, Quantized] = {}
        for name, tensor in tensors:
            if isinstance(tensor, Quantized):
                quantized[name] = tensor
            elif name in arrays:
                arrays[name][...] = tensor
            elif bits == 16 or name == "wte":
                arrays[name] = tensor if bits != 16 and isinstance(tensor, np.memmap) else np.array(tensor)
            else:
                quantized[name] = quantize(tensor, bits)
            done()
        if bits != 16 and not quantized.keys() & {"wte", "lm_head"}:
            quantized["wte"] = quantize(arrays["wte"], bits)
        freeze(arrays.values())
        return cls(config, arrays, _together(quantized))

    def vector(self, name: str) -> np.ndarray:
        """A bias, a norm's, or all rows of an embedding"""
        found = self.arrays[name] if name in self.arrays else self.matrix(name)
        assert isinstance(found, np.ndarray)
        return found

    def matrix(self, name: str) -> np.ndarray | Quantized:
        """[rows, inputs]; ``layer_00/wqkv`` and ``bqkv`` are the rows of three."""
        if not name.endswith("qkv"):
            return self.quantized[name] if name in self.quantized else self.arrays[name]
        if name not in self._joined:
            self._joined[name] = _join([self.matrix(name[:-3] + part) for part in "qkv"])
        return self._joined[name]

    @property
    def head(self) -> np.ndarray | Quantized:
        """What makes logits of channels, [vocabulary, channels]: the embedding itself unless there is another."""
        return self.matrix(self._head)

    @property
    def _head(self) -> str:
        return "lm_head" if "lm_head" in self.arrays or "lm_head" in self.quantized else "wte"

    @property
    def bytes_per_token(self) -> int:
        """What decoding one token reads of the weights."""
        names = {name for name in (*self.arrays, *self.quantized) if "/" in name} | {self._head}
        return sum(_nbytes(self.matrix(name)) for name in names)


def _is_matrix(name: str) -> bool:
    """Which has fewer bits, if any has."""
    return name in ("wte", "lm_head") or name.rpartition("/")[2] in MATRICES


def _stored(folder: Path, config: Config, bits: int) -> Iterator[tuple[str, np.ndarray | Quantized]]:
    """The tensors of a converted folder, mapped."""
    sizes = shapes(config)
    head = "lm_head" if (folder / "lm_head.bin").exists() else "wte"
    for name, shape in {**sizes, head: sizes["wte"]}.items():
        ready = bits != 16 and (folder / f"{name}.q{bits}.bin").exists()
        if not ready or name == "wte":
            yield name, read_blob(folder / f"{name}.bin", shape)
        if ready:
            yield name, load_quantized(folder / name, shape, bits)


def _together(quantized: Mapping[str, Quantized]) -> dict[str, Quantized]:
    """The same in one piece of memory."""
    parts = {(name, part): getattr(matrix, part) for part in ("codes", "scale") for name, matrix in quantized.items()}
    copies = memory({key: (part.shape, part.dtype) for key, part in parts.items()})
    for key, part in parts.items():
        copies[key][...] = part
    freeze(copies.values())
    return {name: Quantized(copies[name, "codes"], copies[name, "scale"], of.bits) for name, of in quantized.items()}


def _join(parts: list[np.ndarray | Quantized]) -> np.ndarray | Quantized:
    if isinstance(parts[0], Quantized):
        codes, scale = (joined([getattr(part, kind) for part in parts]) for kind in ("codes", "scale"))
        return Quantized(codes, scale, parts[0].bits)
    return joined(parts)  # type: ignore[arg-type]


def _nbytes(matrix: np.ndarray | Quantized) -> int:
    if isinstance(matrix, Quantized):
        return matrix.codes.size * matrix.bits // 8 + matrix.scale.nbytes
    return matrix.nbytes
