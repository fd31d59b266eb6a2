"""Models from files: whatever holds MIL, to one coremltools MIL program with the function ``main``.

coremltools has a reader for its protobuf (``milproto``). It is exact but narrow: it refuses function
attributes, inline weights and doc strings, knows one folder of weights, and answers a bad file with
any exception at all. So the protobuf is checked and tidied before it gets it, by ``tidy``.
"""

from __future__ import annotations

import contextlib
import os
import tempfile
import traceback
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from . import _coremltools, bounds
from ._coremltools import coremltools
from .errors import ArgumentError, CompileError, Error, FormatError, MissingFileError, UnsupportedError
from .mil.scalars import BY_NUMBER
from .tidy import blob_values, describe, tidy

if TYPE_CHECKING:
    from coremltools.converters.mil.mil import Program
    from coremltools.proto import MIL_pb2

MODEL_PATH = "@model_path/"
EVERY = "*"  # as the name of a function: all of them


def from_mlpackage(path: str | os.PathLike[str], function: str | None = None) -> Program:
    """The MIL program of a ``.mlpackage``, or of an ML program's bare ``.mlmodel``.

    ``function`` picks one of several, and ``"*"`` takes them all, see ``Program.functions``; without it
    the package's default function is taken, or ``main``. Inputs and outputs keep their names, shapes and
    dtypes, weights stay as compressed as they are. Raises ``MissingFileError``, ``FormatError``
    (malformed or truncated),
    ``UnsupportedError`` (a neural network, a pipeline, an unknown op), ``CompileError`` (an op with
    wrong inputs), ``ArgumentError`` (no such function).

    Example: ``program = anex.from_mlpackage("Decoder.mlpackage", function="prefill")``.
    """
    path = as_path(path)
    model = _root_model(path) if path.is_dir() else path
    return from_model(bounds.read(model), model.parent, str(path), function)


def from_mil(
    source: str | os.PathLike[str],
    weights: str | os.PathLike[str] | None = None,
    function: str | None = None,
) -> Program:
    """The MIL program of a compiled ``.mlmodelc`` folder, a ``model.mil`` file, or MIL text itself.

    A string with ``program(`` in it is text, everything else a path. ``weights`` is the weight file,
    or the folder that stands for ``@model_path/`` in the text; without it, the folder of the text.
    ``function`` picks one of several, ``"*"`` all of them, ``main`` without it. Shapes the text gives a range for
    (``FlexibleShapeInformation``) stay symbolic. Raises as ``from_mlpackage`` does.

    >>> twice = '''program(1.3) {
    ...     func main<ios18>(tensor<fp16, [1, 4, 1, 8]> x) {
    ...         tensor<fp16, [1, 4, 1, 8]> y = add(x = x, y = x);
    ...     } -> (y);
    ... }'''
    >>> list(from_mil(twice).functions["main"].inputs)
    ['x']
    """
    return _from_text(source, weights, function)


def _from_text(
    source: str | os.PathLike[str],
    weights: str | os.PathLike[str] | None,
    function: str | None,
    zeros: bool = False,
) -> Program:
    from .mil import from_text

    if isinstance(source, str) and ("program(" in source or "\n" in source):
        with coremltools():
            return from_proto(from_text(source), None, weights=weights, function=function, zeros=zeros)
    proto, folder = _proto_at(as_path(source))
    with coremltools():
        return from_proto(proto, folder, weights=weights, function=function, zeros=zeros)


def from_file(
    path: str | os.PathLike[str],
    function: str | None = None,
    weights: str | os.PathLike[str] | None = None,
    *,
    zeros: bool = False,
) -> Program:
    """The MIL program of a file or folder of any kind above, told apart by what it holds; ``weights`` as there.

    ``zeros``: MIL text whose weights are not there has zeros in their place, for those who look at shapes only.
    """
    path = as_path(path)
    if _is_package(path):
        return from_mlpackage(path, function)
    if not path.exists():
        raise MissingFileError(f"{path} does not exist")
    return _from_text(path, weights, function, zeros)


def default_shapes(path: str | os.PathLike[str], function: str | None = None) -> dict[str, tuple[int, ...]]:
    """Of the inputs whose shapes are flexible: the default ones that the file at ``path`` names."""
    from .mil import flexible

    source = read_source(path)
    chosen = _choose(
        list(source.program.functions), function, source.model.description.defaultFunctionName if source.model else ""
    )
    if source.model is not None:
        return flexible.default_shapes(source.model, chosen)
    return flexible.written_defaults(source.program.functions[chosen])


@dataclass(frozen=True)
class Source:
    """What a file says: a ``MILSpec.Program``, where its ``@model_path/`` leads, and of a package the whole model."""

    program: MIL_pb2.Program
    folder: Path
    model: Any = None

    def weight_file(self, text: str, weights: str | os.PathLike[str] | None = None) -> Path:
        """The file that a BLOBFILE path means; ``MissingFileError`` where there is none."""
        return _weight_file(text, self.folder, weights)


def read_source(path: str | os.PathLike[str]) -> Source:
    """The protobuf of a file or folder of any kind that ``from_file`` takes: nothing is checked but its form."""
    path = as_path(path)
    if _is_package(path):
        root = _root_model(path) if path.is_dir() else path
        model = _parsed(bounds.read(root), str(path))
        return Source(model.mlProgram, root.parent, model)
    return Source(*_proto_at(path))


def _is_package(path: Path) -> bool:
    return path.suffix in (".mlpackage", ".mlmodel") or (path.is_dir() and (path / "Manifest.json").exists())


def _proto_at(path: Path) -> tuple[MIL_pb2.Program, Path]:
    """What MIL text in a file says, and the folder of the file."""
    from .mil import from_text

    path = _text_file(path)
    try:
        text = bounds.read(path).decode()
    except UnicodeDecodeError as error:
        raise FormatError(f"{path} is not MIL text: {error}") from error
    with coremltools():
        try:
            return from_text(text), path.parent
        except FormatError as error:
            raise FormatError(f"{path}: {error}") from error


def from_model(data: bytes, folder: Path, what: str, function: str | None = None) -> Program:
    """The MIL program of a serialised Core ML model whose ``@model_path/`` is ``folder``."""
    model = _parsed(data, what)
    default = model.description.defaultFunctionName
    return from_proto(model.mlProgram, folder, function=function, default=default)


def _parsed(data: bytes, what: str) -> Any:
    from google.protobuf.message import DecodeError

    with coremltools() as ct:
        model = ct.proto.Model_pb2.Model()
        try:
            model.ParseFromString(data)
        except DecodeError as error:
            raise FormatError(f"{what} is not a Core ML model, or truncated: {error}") from error
        kind = model.WhichOneof("Type")
        if kind is None:
            raise FormatError(f"{what} is not a Core ML model, or truncated: it says no type")
        if kind != "mlProgram":
            raise UnsupportedError(f"{what} is a {kind} model; anex takes ML programs, so convert it to one")
        return model


def from_proto(
    proto: MIL_pb2.Program,
    folder: Path | None,
    *,
    weights: str | os.PathLike[str] | None = None,
    function: str | None = None,
    default: str = "",
    zeros: bool = False,
) -> Program:
    """The MIL program of one function of a protobuf whose ``@model_path/`` is ``folder``; ``"*"``: of all.

    ``zeros``: instead of weight files that are not there.
    """
    if function == EVERY and len(proto.functions) > 1:
        return _together(proto, folder, weights, zeros)
    function = None if function == EVERY else function
    name = _choose(list(proto.functions), function, default)
    chosen = type(proto)(version=1)
    chosen.functions["main"].CopyFrom(proto.functions[name])
    main = chosen.functions["main"]
    with coremltools() as ct, tempfile.TemporaryDirectory(prefix="anex-") as links:
        target = _target(ct, main)
        tidy(main, partial(_inputs_of, target))
        _gather_weights(chosen, folder, weights, links, zeros)
        from coremltools.converters.mil.frontend.milproto.load import load_mil_proto

        _coremltools.restart_names()
        with _explained(), bounds.evaluation(), _coremltools.plain_bools():
            program = load_mil_proto(chosen, target, links)
        _coremltools.validate(program)
        return program


def _together(
    proto: MIL_pb2.Program, folder: Path | None, weights: str | os.PathLike[str] | None, zeros: bool
) -> Program:
    """One program of all functions: coremltools' reader takes them one at a time."""
    with coremltools():
        given: dict[str, Any] = {"weights": weights, "zeros": zeros}
        parts = {name: from_proto(proto, folder, function=name, **given) for name in sorted(proto.functions)}
        whole = next(iter(parts.values()))
        functions = {name: part.functions["main"] for name, part in parts.items()}
        whole.functions.clear()
        for name, function in functions.items():
            whole.add_function(name, function)
        whole.default_function_name = "main" if "main" in functions else next(iter(functions))
        return whole


def _inputs_of(target: Any, op_type: str) -> Collection[str]:
    """The argument names of an op in an opset."""
    from coremltools.converters.mil.mil.ops.helper import _get_version_of_op
    from coremltools.converters.mil.mil.ops.registry import SSAOpRegistry

    if op_type not in SSAOpRegistry.core_ops:
        raise ValueError(f"coremltools has no op {op_type!r}")
    op = _get_version_of_op(SSAOpRegistry.core_ops[op_type], target)
    names: Collection[str] = op.input_spec.input_types
    return names


@contextlib.contextmanager
def _explained() -> Iterator[None]:
    """Turn whatever coremltools' reader raises into our errors, with the op it was at."""
    try:
        yield
    except Error:
        raise
    except MemoryError as error:
        raise FormatError(f"the program needs more memory to be read than there is: {error}") from error
    except Exception as error:  # assertions, KeyErrors, C++ exceptions: anything at all
        frames = [frame.f_locals for frame, _ in traceback.walk_tb(error.__traceback__)]
        at: dict[str, Any] = next((found for found in reversed(frames) if "op_spec" in found), {})
        where = describe(at["op_spec"]) if at else "a malformed MIL program"
        message = str(error.args[0]) if error.args else type(error).__name__
        if isinstance(error, KeyError) and error.args[0] in BY_NUMBER:
            raise UnsupportedError(f"{where}: coremltools has no {BY_NUMBER[error.args[0]].name}") from error
        if isinstance(error, NotImplementedError):
            raise UnsupportedError(f"{where}: coremltools cannot read it back: {message}") from error
        if isinstance(error, AssertionError) and "proto_type" in at:
            message = f"gives {_type_name(at['pymil_type'])}, declared as {_type_name(at['proto_type'])}"
        wrong_op = at and at["op_spec"].type != "const"
        raise (CompileError if wrong_op else FormatError)(f"{where}: {message}") from error


def _type_name(kind: Any) -> str:
    return str(kind.__type_info__())


def _choose(names: list[str], wanted: str | None, default: str) -> str:
    """The function to load: the one wanted, else the package's default, ``main``, the only one."""
    if not names:
        raise FormatError("a MIL program without functions; truncated?")
    candidates = [wanted] if wanted else [default, "main", *(names if len(names) == 1 else [])]
    for name in candidates:
        if name in names:
            return name
    asked = f"function {wanted!r} is none of" if wanted else "several functions: pass function=, one of"
    raise ArgumentError(f"{asked} {', '.join(sorted(names))}")


def _target(ct: Any, function: MIL_pb2.Function) -> Any:
    """The deployment target whose opset the function is written in."""
    for version, opset in ct._OPSET.items():
        if opset == function.opset:
            return ct.target(version)
    raise UnsupportedError(f"opset {function.opset!r} is unknown to coremltools {ct.__version__}")


# Files -----------------------------------------------------------------------------------------


def as_path(path: Any) -> Path:
    """A ``Path``, or ``ArgumentError``."""
    try:
        return Path(path)
    except TypeError as error:
        raise ArgumentError(f"{path!r} is not a path: {error}") from error


def _root_model(package: Path) -> Path:
    """The protobuf inside a package. Its class makes what it does not find, so look first."""
    if not (package / "Manifest.json").is_file():
        hint = "; anex.from_mil reads compiled models" if package.suffix == ".mlmodelc" else ""
        raise FormatError(f"{package} is not a model package: it has no Manifest.json{hint}")
    with coremltools():
        from coremltools.libmodelpackage import ModelPackage

        try:
            root = ModelPackage(str(package)).getRootModel()
            return bounds.inside(Path(root.path()), package)
        except Error:
            raise
        except Exception as error:  # RuntimeError, UnicodeDecodeError, and no root at all
            raise FormatError(f"{package}/Manifest.json: {error}") from error


def _text_file(path: Path) -> Path:
    """``model.mil`` of a compiled model's folder; the path itself for a file."""
    if not path.is_dir():
        return path
    if (path / "model.mil").exists():
        return path / "model.mil"
    if (path / "Manifest.json").exists():
        raise FormatError(f"{path} is a model package; anex.from_mlpackage reads it")
    if list(path.glob("model*/model.mil")):
        raise UnsupportedError(f"{path} is a pipeline; load one of its models: {path}/model0")
    if list(path.glob("*.espresso.net")):
        raise UnsupportedError(f"{path} is a compiled neural network; anex takes ML programs")
    raise MissingFileError(f"{path} has no model.mil")


def _gather_weights(
    program: MIL_pb2.Program, folder: Path | None, weights: str | os.PathLike[str] | None, links: str,
    zeros: bool,
) -> None:  # fmt: skip
    """Check every weight file, and put links to them where coremltools' reader will look.

    It looks in one folder for the last part of the path, so ``a/w.bin`` and ``b/w.bin`` would be one.
    """
    from .mil import blob

    wanted = blob.references(program)
    files = {}
    for number, text in enumerate(wanted):
        try:
            files[text] = _weight_file(text, folder, weights)
        except MissingFileError:
            if not zeros or weights is not None:
                raise
            files[text] = Path(links, f"zeros{number}")
            blob.write_zeros(files[text], wanted[text])
    if len(set(files.values())) < len(files):
        raise FormatError(f"one weight file for several of {', '.join(files)}: pass the folder they are in")
    found: dict[str, str] = {}
    for text, path in files.items():
        blob.check(path, wanted[text])
        found[text] = f"{len(found)}.bin" if found else "weight.bin"
        os.symlink(path.resolve(), os.path.join(links, found[text]))
    for value in blob_values(next(iter(program.functions["main"].block_specializations.values()))):
        value.blobFileValue.fileName = found[value.blobFileValue.fileName]


def _model_folder(folder: Path) -> Path:
    """The package that a folder belongs to, or the folder: links inside of it may lead anywhere inside of it."""
    return next(
        (parent for parent in (folder, *folder.parents) if parent.suffix in (".mlpackage", ".mlmodelc")), folder
    )


def _weight_file(text: str, folder: Path | None, weights: str | os.PathLike[str] | None) -> Path:
    """The file a BLOBFILE path means."""
    parts = Path(text.removeprefix(MODEL_PATH)).parts
    if not parts or ".." in parts or os.path.isabs(parts[0]):
        raise FormatError(f"weight path {text!r} leads out of the model's folder")
    given = Path(weights) if weights is not None else folder
    if given is None:
        raise MissingFileError(f"the text refers to {text}: pass weights=, a file or folder")
    candidates = [given.joinpath(*parts)]
    if weights is not None:  # a file, the model's folder, or the folder the files are in
        candidates = [given] if not given.is_dir() else [*candidates, given / parts[-1]]
    for path in candidates:
        if path.is_file():
            return path if weights is not None or folder is None else bounds.inside(path, _model_folder(folder))
    raise MissingFileError(f"weight file {text}: there is no {' or '.join(map(str, candidates))}")
