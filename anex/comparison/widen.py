"""The float32 twin of a program: the same ops by the same names, every float16 tensor and constant in float32.

What such a twin gives is what the program means; what a device gives beside is rounding, or a fault. It is made
of the protobuf, where blocks, states and compressed weights need no handling of their own.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from .._coremltools import coremltools
from ..load import from_proto
from ..store import to_proto

if TYPE_CHECKING:
    from coremltools.converters.mil.mil import Program
    from coremltools.proto import MIL_pb2

STORED = "@model_path/weights/weight.bin"
WIDE = "@model_path/weights/wide.bin"
HALF, SINGLE = "fp16", "fp32"  # as the argument of cast
KEEPS = frozenset({"constexpr_cast"})  # takes float16 alone, and gives float32


def widen(program: Program, function: str = "main") -> Program:
    """The twin of one function of ``program``, called ``main``; ``program`` itself is never changed."""
    with coremltools(), tempfile.TemporaryDirectory(prefix="anex-") as folder:
        weights = Path(folder, "weights")
        weights.mkdir()
        proto = to_proto(program, weights).mlProgram
        chosen = proto.functions[function]
        with _Weights(weights) as stored:
            for value in chosen.inputs:
                _type(value.type)
            for block in chosen.block_specializations.values():
                _block(block, stored)
        return from_proto(proto, Path(folder), function=function)


class _Weights:
    """The float16 blobs of a weight file, written to another as float32, each once."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.moved: dict[int, int] = {}
        self.reader: Any = None
        self.writer: Any = None

    def __enter__(self) -> _Weights:
        return self

    def __exit__(self, *_: object) -> None:
        self.reader = self.writer = None  # that closes the files

    def moved_to(self, offset: int) -> int:
        from coremltools.libmilstoragepython import _BlobStorageReader, _BlobStorageWriter

        if self.writer is None:
            self.reader = _BlobStorageReader(str(self.folder / "weight.bin"))
            self.writer = _BlobStorageWriter(str(self.folder / "wide.bin"))
        if offset not in self.moved:
            half = np.asarray(self.reader.read_fp16_data(offset)).view(np.float16)
            self.moved[offset] = self.writer.write_float_data(half.astype(np.float32))
        return self.moved[offset]


def _block(block: MIL_pb2.Block, stored: _Weights) -> None:
    for item in block.inputs:
        _type(item.type)
    for op in block.operations:
        if op.type in KEEPS:
            continue
        for output in op.outputs:
            _type(output.type)
        for value in _values(op):
            _value(value, stored)
        for inner in op.blocks:
            _block(inner, stored)


def _values(op: MIL_pb2.Operation) -> Iterator[MIL_pb2.Value]:
    yield from (value for name, value in op.attributes.items() if name != "name")
    for argument in op.inputs.values():
        yield from (each.value for each in argument.arguments if each.WhichOneof("binding") == "value")


def _value(value: MIL_pb2.Value, stored: _Weights) -> None:
    from coremltools.proto import MIL_pb2

    kind = value.type.WhichOneof("type")
    if kind == "tensorType":
        was_half = value.type.tensorType.dataType == MIL_pb2.DataType.FLOAT16
        _type(value.type)
        if value.WhichOneof("value") == "blobFileValue":
            if was_half:
                value.blobFileValue.offset = stored.moved_to(value.blobFileValue.offset)
                value.blobFileValue.fileName = WIDE
            return
        tensor = value.immediateValue.tensor
        if was_half:
            wide = np.frombuffer(tensor.bytes.values, np.float16).astype(np.float32)
            tensor.floats.SetInParent()
            tensor.floats.values.extend(wide.tolist())
        elif tensor.WhichOneof("value") == "strings":  # the dtype of a cast
            texts = [SINGLE if text == HALF else text for text in tensor.strings.values]
            del tensor.strings.values[:]
            tensor.strings.values.extend(texts)
        return
    _type(value.type)
    inner = value.immediateValue
    for each in (*inner.tuple.values, *inner.list.values):
        _value(each, stored)


def _type(kind: MIL_pb2.ValueType) -> None:
    from coremltools.proto import MIL_pb2

    which = kind.WhichOneof("type")
    if which == "tensorType" and kind.tensorType.dataType == MIL_pb2.DataType.FLOAT16:
        kind.tensorType.dataType = MIL_pb2.DataType.FLOAT32
    elif which == "listType":
        _type(kind.listType.type)
    elif which == "stateType":
        _type(kind.stateType.wrappedType)
    elif which == "tupleType":
        for each in kind.tupleType.types:
            _type(each)
