"""The evaluator from Python: ``Program(text, {path: weights}).run(inputs)``."""

from __future__ import annotations

import ctypes
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

MAX_RANK = 8
NUMPY = ["float16", "float32", "int8", "uint8", "int16", "uint16", "int32", "uint32", "bool"]  # as dtypes.inc


class File(ctypes.Structure):
    _fields_ = [("path", ctypes.c_char_p), ("data", ctypes.c_char_p), ("bytes", ctypes.c_size_t)]


class Tensor(ctypes.Structure):
    _fields_ = [
        ("data", ctypes.c_void_p),
        ("shape", ctypes.c_int64 * MAX_RANK),
        ("strides", ctypes.c_int64 * MAX_RANK),
        ("rank", ctypes.c_int32),
        ("dtype", ctypes.c_int32),
    ]


class Numerics(ctypes.Structure):
    _fields_ = [
        (name, ctypes.c_bool)
        for name in ("narrow_reduce", "matmul_cliff", "flush_subnormals", "slice_clamp", "sdpa_ignores_mask")
    ]


class Error(ctypes.Structure):
    _fields_ = [("text", ctypes.c_char * 1024)]


def load(path: Path) -> ctypes.CDLL:
    library = ctypes.CDLL(str(path))
    library.mil_parse.restype = ctypes.c_void_p
    library.mil_parse.argtypes = [ctypes.c_char_p, ctypes.c_size_t, ctypes.POINTER(File), ctypes.c_int]
    library.mil_parse.argtypes += [ctypes.c_char_p, ctypes.c_size_t]
    library.mil_free.argtypes = [ctypes.c_void_p]
    library.mil_function_count.argtypes = [ctypes.c_void_p]
    library.mil_op_count.argtypes = [ctypes.c_void_p, ctypes.c_int]
    library.mil_port_count.argtypes = [ctypes.c_void_p, ctypes.c_int, ctypes.c_int]
    for name, extra in (("mil_function_name", 1), ("mil_op_type", 2), ("mil_port_name", 3), ("mil_port_type", 3)):
        function = getattr(library, name)
        function.argtypes = [ctypes.c_void_p, *[ctypes.c_int] * extra]
        function.restype = ctypes.POINTER(Tensor) if name == "mil_port_type" else ctypes.c_char_p
    library.mil_run.argtypes = [ctypes.c_void_p, ctypes.c_int] + [ctypes.POINTER(ctypes.POINTER(Tensor))] * 2
    library.mil_run.argtypes += [ctypes.POINTER(Numerics), ctypes.POINTER(Error)]
    return library


def tensor_of(array: np.ndarray) -> Tensor:
    tensor = Tensor(data=array.ctypes.data, rank=array.ndim, dtype=NUMPY.index(array.dtype.name))
    tensor.shape[: array.ndim] = array.shape
    tensor.strides[: array.ndim] = array.strides
    return tensor


def pointers(arrays: Sequence[np.ndarray]) -> Any:
    each = [ctypes.pointer(tensor_of(array)) for array in arrays]
    return (ctypes.POINTER(Tensor) * max(len(each), 1))(*each)


class Program:
    """Raises ``ValueError`` with the evaluator's sentence for what it refuses."""

    def __init__(self, library: ctypes.CDLL, text: str | bytes, files: Mapping[str, bytes] | None = None) -> None:
        self.library, self.handle = library, None
        text = text.encode() if isinstance(text, str) else text
        given = [File(path.encode(), data, len(data)) for path, data in (files or {}).items()]
        error = ctypes.create_string_buffer(1024)
        array = (File * max(len(given), 1))(*given)
        self.handle = library.mil_parse(text, len(text), array, len(given), error, len(error))
        if not self.handle:
            raise ValueError(error.value.decode(errors="replace"))

    def __del__(self) -> None:
        if self.handle:
            self.library.mil_free(self.handle)

    @property
    def functions(self) -> list[str]:
        count = self.library.mil_function_count(self.handle)
        return [self.library.mil_function_name(self.handle, f).decode() for f in range(count)]

    def ops(self, function: int = 0) -> list[str]:
        count = self.library.mil_op_count(self.handle, function)
        return [self.library.mil_op_type(self.handle, function, i).decode() for i in range(count)]

    def ports(self, is_output: bool, function: int = 0) -> dict[str, tuple[tuple[int, ...], str]]:
        found = {}
        for i in range(self.library.mil_port_count(self.handle, function, is_output)):
            name = self.library.mil_port_name(self.handle, function, is_output, i).decode()
            tensor = self.library.mil_port_type(self.handle, function, is_output, i).contents
            found[name] = tuple(tensor.shape[: tensor.rank]), NUMPY[tensor.dtype]
        return found

    def run(
        self,
        inputs: Mapping[str, np.ndarray],
        function: int = 0,
        outputs: Sequence[np.ndarray] | None = None,
        **numerics: bool,
    ) -> list[np.ndarray]:
        given = [inputs[name] for name in self.ports(False, function)]
        if outputs is None:
            outputs = [np.zeros(shape, dtype) for shape, dtype in self.ports(True, function).values()]
        error, switches = Error(), Numerics(**numerics)
        left, right = pointers(given), pointers(outputs)
        if self.library.mil_run(self.handle, function, left, right, switches, error):
            raise RuntimeError(error.text.decode())
        return list(outputs)
