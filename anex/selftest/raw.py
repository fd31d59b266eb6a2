"""A program given to the framework as it stands, message by message: no passes, no rules, no cache, no second try."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Protocol

from .. import _native
from .compare import compare
from .text import Text

if TYPE_CHECKING:
    import numpy as np

_NUMPY = {"fp16": "float16", "fp32": "float32", "int32": "int32", "int8": "int8"}


class Source(Protocol):
    """What ``Text`` is: text, weights, and the shapes and MIL dtypes of its values."""

    shapes: dict[str, tuple[int, ...]]
    dtypes: dict[str, str]

    @property
    def blobs(self) -> dict[str, bytes]: ...

    def render(self, *outputs: str) -> bytes: ...


class Refused(Exception):
    """The framework said no: where, and its answer."""

    def __init__(self, stage: str, reply: Mapping[str, Any]) -> None:
        super().__init__(f"{stage}: {said(reply)}")
        self.stage, self.reply = stage, dict(reply)


def said(reply: Mapping[str, Any]) -> str:
    """What the framework said, as text."""
    if reply["yes"]:
        return "YES"
    if reply["raised"]:
        return f"the exception {reply['domain']}: {reply['text']}"
    if not reply["domain"]:
        return reply["text"] or "NO without an error"
    return f"{reply['domain']} code {reply['code']}: {reply['text']}"


@dataclass(frozen=True)
class Symbol:
    """An input or output in the tables of the loaded program. ``row``: bytes from one row to the next."""

    index: int
    name: str
    row: int
    bytes: int


class Model:
    """One in-memory model. ``with Model(text, "y") as model: model.run({"x": array})["y"]``."""

    def __init__(self, text: Source, *outputs: str, nil_weights: bool = False) -> None:
        self.text = text
        self.outputs = outputs
        self.mil = text.render(*outputs)
        self.raw = _native.AneRaw(self.mil, text.blobs, nil_weights)
        if not self.raw.made["yes"]:
            raise Refused("descriptor", self.raw.made)

    def __enter__(self) -> Model:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.raw.close()

    def write_files(self) -> None:
        """What the compiler looks for in the model's folder: its text, and the blobs under their names."""
        folder = Path(self.raw.state()["folder"])
        self.write(folder / "model.mil", self.mil)
        for path, data in self.text.blobs.items():
            self.write(folder / path.removeprefix("@model_path/"), data)

    @staticmethod
    def write(path: Path, data: bytes) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)

    def must(self, message: str, qos: int = 21) -> Mapping[str, Any]:
        """Send one message; ``Refused`` if the answer is no."""
        reply: Mapping[str, Any] = self.raw.send(message, qos)
        if not reply["yes"]:
            raise Refused(message, reply)
        return reply

    def start(self, qos: int = 21) -> Model:
        """Write the files, compile, load."""
        self.write_files()
        self.must("compile", qos)
        self.must("load", qos)
        return self

    @property
    def attributes(self) -> Any:
        text = self.raw.attributes()
        return json.loads(text) if text else {}

    def symbols(self, procedure: int = 0) -> tuple[list[Symbol], list[Symbol]]:
        """The inputs and outputs of a procedure, in the order of the tables."""
        attributes = self.attributes
        described = attributes["ANEFModelDescription"]
        status = attributes["NetworkStatusList"]
        entries = {
            entry["Name"].removesuffix("@output"): entry
            for network in status
            for side in ("LiveInputList", "LiveOutputList")
            for entry in network.get(side, ())
        }
        found = described["ANEFModelProcedures"][procedure]
        sides = []
        for side in ("Input", "Output"):
            names = described[f"kANEFModel{side}SymbolsArrayKey"]
            symbols = []
            for index in found[f"ANEFModel{side}SymbolIndexArray"]:
                name = names[index].removesuffix("@output")
                entry = entries[name]
                size = int(entry["BatchStride"]) * int(entry.get("Batches", 1))
                symbols.append(Symbol(int(index), name, int(entry["RowStride"]), size))
            sides.append(symbols)
        return sides[0], sides[1]

    def surface(self, symbol: Symbol, array: np.ndarray | None = None, size: int | None = None) -> Any:
        """A surface as large as the tables ask, or of ``size`` bytes, with the array in rows."""
        surface = _native.AneSurface(size or symbol.bytes)
        if array is not None:
            surface.write(in_rows(array, symbol.row)[: size or symbol.bytes])
        return surface

    def bind(
        self, arrays: Mapping[str, np.ndarray], procedure: int = 0, size: int | None = None
    ) -> tuple[list[tuple[Any, int]], list[tuple[Any, int]], list[Symbol]]:
        """(surface, symbol index) of every input and output, and the symbols of the outputs."""
        inputs, outputs = self.symbols(procedure)
        given = [(self.surface(each, arrays[each.name], size), each.index) for each in inputs]
        return given, [(self.surface(each, size=size), each.index) for each in outputs], outputs

    def run(self, arrays: Mapping[str, np.ndarray], procedure: int = 0) -> dict[str, np.ndarray]:
        """Evaluate once; the outputs by name. ``Refused`` if the answer is no."""
        given, wanted, symbols = self.bind(arrays, procedure)
        reply = self.raw.evaluate(given, wanted, procedure=procedure)
        if not reply["yes"]:
            raise Refused("evaluate", reply)
        return {each.name: self.read(surface, each) for (surface, _), each in zip(wanted, symbols, strict=True)}

    def read(self, surface: Any, symbol: Symbol) -> np.ndarray:
        return from_rows(
            surface.read(), symbol.row, self.text.shapes[symbol.name], _NUMPY[self.text.dtypes[symbol.name]]
        )


def in_rows(array: np.ndarray, row: int) -> bytes:
    """Each row of the last axis, padded to ``row`` bytes."""
    import numpy as np

    rows = np.ascontiguousarray(array).reshape(-1, array.shape[-1]) if array.ndim else array.reshape(1, 1)
    size = rows.shape[1] * rows.itemsize
    if size >= row:
        return rows.tobytes()
    padded = np.zeros((len(rows), row), "uint8")
    padded[:, :size] = rows.view("uint8").reshape(len(rows), size)
    return padded.tobytes()


def from_rows(data: bytes, row: int, shape: Sequence[int], dtype: str) -> np.ndarray:
    import numpy as np

    count, width = int(np.prod(shape[:-1], dtype=int)), shape[-1] if shape else 1
    size = width * np.dtype(dtype).itemsize
    row = max(row, size)
    rows = np.frombuffer(data, "uint8", count * row).reshape(count, row)[:, :size]
    return np.ascontiguousarray(rows).view(dtype).reshape(shape)


def judged(
    text: Text, arrays: Mapping[str, np.ndarray], tolerance: float = 2e-3, **expected: np.ndarray
) -> dict[str, Any]:
    """Compile, load and run ``text``, and compare: ``status`` is right, wrong, or where it was refused.

    ``expected``: the outputs by name, in the order in which the function returns them.
    """
    try:
        with Model(text, *expected) as model:
            found = model.start().run(arrays)
    except Refused as refused:
        return {"status": f"refused at {refused.stage}", "said": said(refused.reply)}
    errors = {name: compare(found[name], wanted) for name, wanted in expected.items()}
    worst = max(errors.values(), key=lambda each: each["relative"])
    return {"status": "right" if worst["relative"] <= tolerance else "wrong", **worst}
