"""MIL text, packages and what they say: formatted, compared, turned into each other."""

from __future__ import annotations

import os
import shutil
from functools import partial
from pathlib import Path

from .. import store
from ..errors import ArgumentError, FormatError, MissingFileError
from ..load import EVERY, MODEL_PATH, as_path, from_mil, read_source
from ..mil import blob
from ..mil import to_text as printed
from ..mil.diff import Difference, reader
from ..mil.diff import diff as compare

Location = str | os.PathLike[str]


def fmt(path: Location) -> str:
    """The text of a MIL file in the layout of Apple's compiler, with a newline at its end.

    What the text says stays, weights and version included; other spacing and order go. The text of a text that
    this gave is itself. Raises ``FormatError`` with line and column.
    """
    return printed(read_source(path).program, canonical=True) + "\n"


def diff(
    a: Location, b: Location, *, weights_a: Location | None = None, weights_b: Location | None = None,
    interface: bool = False,
) -> list[Difference]:  # fmt: skip
    """What differs between two models, op by op; empty where they are the same program.

    Names of values, the order of constants and where they stand make no difference. ``interface``: names of inputs and
    outputs do. ``weights_a``, ``weights_b``: weight files, or folders for ``@model_path/``; files that are not there
    are compared by their offsets.
    """
    sources = read_source(a), read_source(b)
    given = zip(sources, (weights_a, weights_b), strict=True)
    reads = [reader(partial(source.weight_file, weights=weights)) for source, weights in given]
    return compare(
        sources[0].program, sources[1].program, read_a=reads[0], read_b=reads[1], interface=interface
    )  # fmt: skip


def to_text(path: Location, folder: Location | None = None) -> str:
    """The MIL text of a model; with ``folder``, also written there as ``model.mil``, its weights beside it.

    The folder is made; files that are in it are not replaced. ``MissingFileError`` where a weight file is missing.
    """
    source = read_source(path)
    text = printed(source.model if source.model is not None else source.program)
    if folder is None:
        return text
    target = as_path(folder)
    files = {}
    for name, references in blob.references(source.program).items():
        at = source.weight_file(name)
        blob.check(at, references)
        files[target / name.removeprefix(MODEL_PATH)] = at
    written = target / "model.mil"
    for there in (written, *files):
        if there.exists():
            raise ArgumentError(f"{there} exists; give a folder without it")
    try:
        for there, at in files.items():
            there.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(at, there)
        target.mkdir(parents=True, exist_ok=True)
        written.write_text(text, encoding="utf-8")
    except OSError as error:
        raise FormatError(f"{target} cannot be written: {error}") from error
    return text


def to_package(path: Location, package: Location, weights: Location | None = None) -> Path:
    """Write a ``.mlpackage`` of MIL text, or of a compiled model, and its weights; the functions are all taken along.

    Core ML takes fp16, fp32 and int32 at a package's edges, so other inputs and outputs get a ``cast`` there; the rest
    is the same program, as ``diff`` says. ``weights`` as in ``anex.from_mil``. A package at ``package`` is replaced.
    """
    target = as_path(package)
    if target.suffix != ".mlpackage":
        raise ArgumentError(f"{target}: a package is called something.mlpackage")
    if not as_path(path).exists():
        raise MissingFileError(f"{path} does not exist")
    store.save(from_mil(as_path(path), weights, EVERY), target)
    return target
