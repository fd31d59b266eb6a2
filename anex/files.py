"""Files that anex writes: where, whole or not at all, and refused in its own words."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from .errors import ArgumentError


def as_json(value: Any) -> str:
    """As text that every reader of JSON takes: numbers that are infinite or none become null.

    >>> as_json({"a": [1, float("nan")], 2: Path("x")}).split()
    ['{', '"a":', '[', '1,', 'null', '],', '"2":', '"x"', '}']
    """
    return json.dumps(_plain(value), indent=1, allow_nan=False)


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {str(name): _plain(each) for name, each in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(each) for each in value]
    if isinstance(value, float):
        return float(value) if math.isfinite(value) else None
    if value is None or isinstance(value, (str, bool, int)):
        return value
    return _plain(value.item()) if hasattr(value, "item") else str(value)


def writable(path: Path, option: str) -> None:
    """ArgumentError where a file cannot be written there: said before something runs for an hour."""
    folder = path.absolute().parent
    why = (
        f"the folder {folder} does not exist" if not folder.is_dir()
        else "it is a folder" if path.is_dir()
        else f"the folder {folder} is not writable" if not os.access(folder, os.W_OK)
        else ""
    )  # fmt: skip
    if why:
        raise ArgumentError(f"{option} {path}: {why}; name another file")


def write(path: Path, text: str) -> None:
    """Whole or not at all; ArgumentError where it cannot be."""
    draft = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        draft.write_text(text, encoding="utf-8")
        draft.replace(path)
    except OSError as error:
        raise ArgumentError(f"{path} cannot be written: {error.strerror or error}; name another file") from error
    finally:
        draft.unlink(missing_ok=True) if draft.parent.is_dir() else None


def of_user(variable: str) -> Path:
    """Where anex keeps what it may need again; it need not exist: the folder that the variable of the environment
    names, or anex's among the user's caches."""
    if chosen := os.environ.get(variable):
        return Path(chosen)
    macos = Path("~/Library/Caches").expanduser()
    if macos.is_dir():
        return macos / "anex"
    return Path(os.environ.get("XDG_CACHE_HOME") or Path("~/.cache").expanduser()) / "anex"


def folder(path: Path, option: str) -> Path:
    """The folder, made where it was not there; ArgumentError where it cannot be."""
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ArgumentError(
            f"{option} {path} cannot be made: {error.strerror or error}; name another folder"
        ) from error
    if not os.access(path, os.W_OK):
        raise ArgumentError(f"{option} {path} is not writable; name another folder")
    return path
