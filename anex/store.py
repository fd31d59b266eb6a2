"""MIL programs to protobuf, text, files and bytes; ``load`` is the way back.

coremltools' exporter writes them. It needs unique, legal names, which a program under a user's hands
may lack, so the program bears such names while it is exported and its own again afterwards: nothing
here changes the program it is given.
"""

from __future__ import annotations

import contextlib
import io
import os
import tempfile
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from . import _coremltools
from ._coremltools import coremltools
from .agree import agree
from .errors import ArgumentError, CompileError, Error, FormatError, MissingFileError
from .load import EVERY, as_path, from_model

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
        agree(model.mlProgram, version)
        return model


def text(program: Program) -> str:
    """MIL text of ``program``, whose larger constants stand in a weight file; see ``to_text``."""
    return to_text(program)[0]


def to_text(program: Program) -> tuple[str, bytes]:
    """MIL text and the weight file that it refers to as ``@model_path/weights/weight.bin``.

    The bytes are empty when no constant is large enough for the file. Errors as ``to_proto``.
    """
    from . import mil

    with tempfile.TemporaryDirectory(prefix="anex-") as folder:
        model = to_proto(program, folder)
        weights = Path(folder, "weight.bin")
        return mil.to_text(model), weights.read_bytes() if weights.exists() else b""


def save(program: Program, path: str | os.PathLike[str]) -> None:
    """Write ``program`` to ``path``: a Core ML package for ``*.mlpackage``, else a folder of MIL text.

    The folder holds ``model.mil`` and ``weights/weight.bin``, as a ``.mlmodelc`` does;
    ``anex.from_mlpackage`` and ``anex.from_mil`` read them back. An older model at ``path`` is
    replaced once the new one is complete, anything else that is there is an error. Core ML takes
    fp16 (from iOS16), fp32 and int32 at the edges of a package: other inputs and outputs get a
    ``cast`` there, unused inputs an ``identity``. Raises ``MissingFileError`` when the folder around
    ``path`` does not exist, ``ArgumentError`` when something else stands there, and as ``to_proto``.

    Example: ``save(program, "block.mlpackage")``.
    """
    path = as_path(path)
    if not path.parent.is_dir():
        raise MissingFileError(f"{path}: the folder {path.parent} does not exist")
    if path.exists() and not _is_model(path):
        raise ArgumentError(f"{path} exists and is not a saved model; remove it first")
    try:
        with tempfile.TemporaryDirectory(prefix=f".{path.name}-", dir=path.parent) as folder:
            new, old = Path(folder, "new", path.name), Path(folder, "old")
            new.parent.mkdir()
            (_save_package if path.suffix == ".mlpackage" else _save_text)(program, new)
            if path.exists():
                path.rename(old)
            new.rename(path)
    except OSError as error:
        raise Error(f"cannot write {path}: {error}") from error


def dumps(program: Program) -> bytes:
    """``program`` as bytes, for pickles and caches; ``loads`` checks them and gives it back."""
    with tempfile.TemporaryDirectory(prefix="anex-") as folder, io.BytesIO() as data:
        model = to_proto(program, folder)
        with zipfile.ZipFile(data, "w") as archive:
            archive.writestr(_MODEL, model.SerializeToString())
            if (weights := Path(folder, "weight.bin")).exists():
                archive.write(weights, WEIGHTS)
        return data.getvalue()


def loads(data: bytes) -> Program:
    """The program that ``dumps`` made ``data`` of. Raises ``FormatError`` for damaged data."""
    with tempfile.TemporaryDirectory(prefix="anex-") as folder:
        path = Path(folder, WEIGHTS)
        path.parent.mkdir()
        try:
            with zipfile.ZipFile(io.BytesIO(data)) as archive:  # every member has a checksum
                model = archive.read(_MODEL)
                if WEIGHTS in archive.namelist():
                    path.write_bytes(archive.read(WEIGHTS))
        except Exception as error:  # zipfile has no common base of what it raises
            raise FormatError(f"not what anex.store.dumps makes, or damaged: {error}") from error
        return from_model(model, path.parent.parent, "the dumped program", EVERY)


def _save_text(program: Program, folder: Path) -> None:
    from . import mil

    weights = folder / "weights"
    weights.mkdir(parents=True)
    (folder / "model.mil").write_text(mil.to_text(to_proto(program, weights)), encoding="utf-8")


def _save_package(program: Program, path: Path) -> None:
    weights = path.parent / "weights"
    weights.mkdir()
    with coremltools() as ct:
        from coremltools.converters.mil.backend.mil.load import load as export

        if _needs_edges(ct, program):
            program = _with_edges(program)
        with _legal_names(program), _exported():
            version = _opset(ct, program)
            model = export(program, str(weights), specification_version=version, convert_to="mlprogram")
            ct.utils.save_spec(model, str(path), weights_dir=str(weights))


def _needs_edges(ct: Any, program: Program) -> bool:
    """Whether Core ML would refuse the program's inputs or outputs as they are."""
    from coremltools.converters.mil.mil import types

    accepted = {types.fp32, types.int32}
    if _opset(ct, program) >= ct.target.iOS16:
        accepted.add(types.fp16)
    for function in program.functions.values():
        inputs = [var for var in function.inputs.values() if not types.is_state(var.sym_type)]
        unused = any(not var.child_ops for var in inputs)
        if unused or not {var.dtype for var in [*inputs, *function.outputs]} <= accepted:
            return True
    return False


def _with_edges(program: Program) -> Program:
    """A copy of the program with the casts and identities that coremltools' converter adds."""
    from coremltools.converters.mil.mil.passes.pass_registry import PASS_REGISTRY

    copy = loads(dumps(program))
    with _exported():
        PASS_REGISTRY["mil_backend::adjust_io_to_supported_types"](copy)
        PASS_REGISTRY["nn_backend::handle_unused_inputs"](copy)
    return copy


def _opset(ct: Any, program: Program) -> Any:
    """The program's deployment target, iOS15 at least: the first that knows MIL."""
    used, _ = program._get_max_opset_version_and_op()
    declared = [function.opset_version for function in program.functions.values() if function.opset_version]
    return max([used, *declared, ct.target.iOS15])


def _is_model(path: Path) -> bool:
    """Whether ``path`` is a folder that ``save`` may replace."""
    known = ("Manifest.json", "model.mil", "coremldata.bin")
    return path.is_dir() and (any((path / name).is_file() for name in known) or not any(path.iterdir()))


@contextlib.contextmanager
def _legal_names(program: Program) -> Iterator[None]:
    """Unique, legal names within the block, and the old ones after it."""
    named: list[Any] = []

    def gather(block: Any) -> None:
        named.extend(block.inputs.values() if isinstance(block.inputs, dict) else block.inputs)
        for op in block.operations:
            named.extend([op, *op.outputs])
            for inner in op.blocks:
                gather(inner)

    functions = list(program.functions.values())
    for function in functions:
        gather(function)
        named.extend([*function.placeholder_inputs.values(), *function.input_types])
    names = [item.name for item in named]
    inputs = [(function._input_dict, dict(function.placeholder_inputs)) for function in functions]
    try:
        _coremltools.legalise(program)
        yield
    finally:
        for item, name in zip(named, names, strict=True):
            item.name = name
        for function, (variables, placeholders) in zip(functions, inputs, strict=True):
            function._input_dict = variables
            function.placeholder_inputs.clear()
            function.placeholder_inputs.update(placeholders)


@contextlib.contextmanager
def _exported() -> Iterator[None]:
    """Whatever coremltools' exporter raises becomes ``CompileError``; a full disk stays itself."""
    try:
        yield
    except (Error, MemoryError, OSError):
        raise
    except Exception as error:
        raise CompileError(f"coremltools cannot export the program: {error}") from error
