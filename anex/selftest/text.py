"""MIL text written line by line, so that a probe decides what the compiler gets to see.

anex's own way to MIL text goes through coremltools, renames and rewrites; probes ask what happens without.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np

WEIGHTS = "@model_path/weights/weight.bin"
_DTYPES = {"float16": "fp16", "float32": "fp32", "int32": "int32", "int8": "int8", "bool": "bool"}
_STORED = {"float16": 1, "float32": 2, "int8": 4}  # coremltools' numbers of dtypes in weight files
_BUILD_INFO = {
    "1.3": 'dict<string, string>({{"coremlc-component-MIL", "3510.2.1"}, {"coremlc-version", "3505.4.1"}})',
    "1.0": 'dict<tensor<string, []>, tensor<string, []>>({{"coremlc-version", "3505.4.1"}})',
}


class Word(str):
    """A string constant; a plain str is the name of a value."""


class Text:
    """A MIL program in the making.

    >>> text = Text()
    >>> text.input("x", 1, 32, 1, 32)
    'x'
    >>> text.op("y", (1, 32, 1, 32), "softmax", x="x", axis=1)
    'y'
    >>> text.render("y").decode().splitlines()[-3].strip()
    'tensor<fp16, [1, 32, 1, 32]> y = softmax(x = x, axis = y_axis)[name = string("y")];'
    """

    def __init__(self, version: str = "1.3") -> None:
        self.version = version
        self.blob = b""
        self.shapes: dict[str, tuple[int, ...]] = {}
        self.dtypes: dict[str, str] = {}
        self._functions: list[str] = []
        self._inputs: list[str] = []
        self._lines: list[str] = []

    def input(self, name: str, *shape: int, dtype: str = "fp16") -> str:
        self._inputs.append(f"{self._type(shape, dtype)} {self._declare(name, shape, dtype)}")
        return name

    def const(self, name: str, value: Any) -> str:
        """A scalar, a str, a list, or an array: arrays of floats stand in the weight file."""
        import numpy as np

        if isinstance(value, Word):
            dtype, shape, literal = "string", (), f'string("{value}")'
        else:
            array = np.asarray(value, "float16" if isinstance(value, float) else None)
            array = array.astype("int32") if array.dtype == "int64" else array
            dtype, shape = _DTYPES[array.dtype.name], array.shape
            if array.ndim and (array.dtype.kind == "f" or array.dtype.name == "int8"):
                place = f'BLOBFILE(path = string("{WEIGHTS}"), offset = uint64({self._store(array)}))'
                literal = f"{self._type(shape, dtype)}({place})"
            elif array.ndim:
                literal = f"{self._type(shape, dtype)}([{', '.join(map(_literal, array.tolist()))}])"
            else:
                literal = f"{self._type((), dtype)}({_literal(array.item())})"
        if self.version == "1.0":
            literal = literal.replace("string(", "tensor<string, []>(").replace("uint64(", "tensor<uint64, []>(")
        self._declare(name, shape, dtype)
        self._lines.append(f"{self._type(shape, dtype)} {name} = const()[{self._name(name)}, val = {literal}];")
        return name

    def op(self, result: str, shape: Sequence[int], op: str, /, *, of: str = "fp16", **arguments: Any) -> str:
        """One op whose result is ``of`` that dtype; an argument names a value or a tuple of them, or is a constant."""
        written = []
        for name, value in arguments.items():
            if isinstance(value, tuple):
                written.append(f"{name} = ({', '.join(value)})")
            elif isinstance(value, str) and not isinstance(value, Word):
                written.append(f"{name} = {value}")
            else:
                written.append(f"{name} = {self.const(f'{result}_{name}', value)}")
        kind = self._type(shape, of)
        self._declare(result, shape, of)
        self._lines.append(f"{kind} {result} = {op}({', '.join(written)})[{self._name(result)}];")
        return result

    def end(self, *outputs: str, function: str = "main") -> None:
        """The function is complete; what follows belongs to the next."""
        opset = "ios16" if self.version == "1.0" else "ios18"
        lines = "\n".join(f"            {line}" for line in self._lines)
        head = f"    func {function}<{opset}>({', '.join(self._inputs)}) {{"
        self._functions.append(f"{head}\n{lines}\n        }} -> ({', '.join(outputs)});\n")
        self._inputs, self._lines = [], []

    def render(self, *outputs: str) -> bytes:
        if outputs:
            self.end(*outputs)
        head = f"program({self.version})\n[buildInfo = {_BUILD_INFO[self.version]}]\n"
        return f"{head}{{\n{''.join(self._functions)}}}\n".encode()

    @property
    def blobs(self) -> dict[str, bytes]:
        return {WEIGHTS: self.blob} if self.blob else {}

    def _declare(self, name: str, shape: Sequence[int], dtype: str) -> str:
        self.shapes[name], self.dtypes[name] = tuple(shape), dtype
        return name

    def _name(self, name: str) -> str:
        return f'name = tensor<string, []>("{name}")' if self.version == "1.0" else f'name = string("{name}")'

    def _type(self, shape: Sequence[int], dtype: str) -> str:
        if not shape and self.version != "1.0":
            return dtype
        return f"tensor<{dtype}, [{', '.join(map(str, shape))}]>"

    def _store(self, array: np.ndarray) -> int:
        """Append to the weight file; where its record is."""
        if not self.blob:
            self.blob = struct.pack("<II56x", 0, 2)
        count = struct.unpack_from("<I", self.blob)[0] + 1
        offset, data = len(self.blob), array.tobytes()
        record = struct.pack("<IIQQQ32x", 0xDEADBEEF, _STORED[array.dtype.name], len(data), offset + 64, 0)
        self.blob = struct.pack("<I", count) + self.blob[4:] + record + data + bytes(-len(data) % 64)
        return offset


def _literal(value: Any) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    if not isinstance(value, float):
        return str(value)
    mantissa, exponent = value.hex().split("p")
    return f"{mantissa.rstrip('0').rstrip('.') if '.' in mantissa else mantissa}p{exponent}"
