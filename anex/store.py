"""MIL programs to protobuf, text, files and bytes; ``load`` is the way back.

coremltools' exporter writes them. It needs unique, legal names, which a program under a user's hands
may lack, so the program bears such names while it is exported and its own again afterwards: nothing
here changes the program it is given.
"""

from __future__ import annotations

import contextlib
import io
import os
import shutil
import tempfile
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from . import _coremltools
from ._coremltools import coremltools
from .errors import ArgumentError, CompileError, Error, FormatError, MissingFileError
from .load import from_proto, read_model

if TYPE_CHECKING:
    from coremltools.converters.mil.mil import Program
    from coremltools.proto import Model_pb2

WEIGHTS = "weights/weight.bin"
_MODEL = "model.mlmodel"


def to_proto(program: Program, weights_dir: str | os.PathLike[str]) -> Model_pb2.Model:
    """The protobuf of ``program``, as it is; its weights go into ``weights_dir/weight.bin``.

    The opset is the program's own, iOS15 at least. Names that MIL text cannot hold are replaced, the
    order of inputs and outputs is kept. The model has no description: Core ML needs one, see
    ``save``, Apple's compilers for MIL do not. Raises ``CompileError`` with coremltools' reason for
    a program it cannot export.
    """
    with coremltools() as ct, _legal_names(program), _exported():
        from coremltools.converters.mil.backend.mil.load import MILProtoExporter

        version = _opset(ct, program)
        exporter = MILProtoExporter(program, os.fspath(weights_dir), version)
        model = ct.proto.Model_pb2.Model(specificationVersion=version)
        model.mlProgram.CopyFrom(exporter.export())
        exporter.blob_writers.clear()  # closes the file
        return model


def text(program: Program) -> tuple[str, bytes]:
    """MIL text and the weight file that it refers to as ``@model_path/weights/weight.bin``.

    The bytes are empty when no constant is large enough for the file. Errors as ``to_proto``.
    """
    from .mil import to_text

    with tempfile.TemporaryDirectory(prefix="anex-") as folder:
        model = to_proto(program, folder)
        weights = Path(folder, "weight.bin")
        return to_text(model), weights.read_bytes() if weights.exists() else b""


def save(program: Program, path: str | os.PathLike[str]) -> None:
    """Write ``program`` to ``path``: a Core ML package for ``*.mlpackage``, else a folder of MIL text.

    The folder holds ``model.mil`` and ``weights/weight.bin``, as a ``.mlmodelc`` does;
    ``anex.from_mlpackage`` and ``anex.from_mil`` read them back. An older model at ``path`` is
    replaced once the new one is complete, anything else that is there is an error. Core ML takes
    fp16 (from iOS16), fp32 and int32 at the edges of a package: other inputs and outputs get a
    ``cast`` there, unused inputs an ``identity``. Raises ``MissingFileError`` when the folder around
    ``path`` does not exist, ``ArgumentError`` when something else stands there, and as ``to_proto``.

    >>> save(program, "block.mlpackage")  # doctest: +SKIP
    """
    path = Path(path)
    if not path.parent.is_dir():
        raise MissingFileError(f"{path}: the folder {path.parent} does not exist")
    if path.exists() and not _is_model(path):
        raise ArgumentError(f"{path} exists and is not a saved model; remove it first")
    with _written(path), tempfile.TemporaryDirectory(prefix=f".{path.name}-", dir=path.parent) as folder:
        new, old = Path(folder, "new", path.name), Path(folder, "old")
        new.parent.mkdir()
        (_save_package if path.suffix == ".mlpackage" else _save_text)(program, new)
        if path.exists():
            path.rename(old)
        new.rename(path)


def dumps(program: Program) -> bytes:
    """``program`` as bytes, for pickles and caches; ``loads`` checks them and gives it back."""
    with tempfile.TemporaryDirectory(prefix="anex-") as folder, io.BytesIO() as data:
        model = to_proto(program, folder)
        with zipfile.ZipFile(data, "w") as archive:
            archive.writestr(_MODEL, model.SerializeToString())
            if (weights := Path(folder, "weight.bin")).exists():
                archive.write(weights, WEIGHTS)
        return data.getvalue()
