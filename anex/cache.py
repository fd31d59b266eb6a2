"""Compiled programs of the Neural Engine that outlive the process, and how many this process may still compile.

The system keeps compiled programs by an identifier made of their text and weights: compiling an equal
program again, in any process, costs a look-up. It offers no list of them, so anex notes each one that
it had compiled in a folder of its own: ``~/Library/Caches/anex`` on macOS, ``$XDG_CACHE_HOME/anex`` or
``~/.cache/anex`` elsewhere, or ``ANEX_CACHE_DIR``.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import tempfile
import time
import weakref
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from . import _native, files
from ._native import Caller
from .errors import ArgumentError, Error, UnsupportedError


@dataclass(frozen=True)
class Entry:
    """One compiled program: ``bytes`` of its text and weights, times in seconds since 1970.

    ``name``: its functions and what they give. ``loaded``: in the hardware's memory, by this process.
    ``kept``: ``clear`` leaves it. ``compiled_by``: the version of anex, and the system it ran on.
    """

    identifier: str
    name: str
    bytes: int
    created: float
    last_used: float
    loaded: bool
    kept: bool
    compiled_by: str


@dataclass(frozen=True)
class Budget:
    """The process's account with the Neural Engine; a limit of 0 is none.

    ``compiles`` cannot be given back, ``loaded`` programs can: above ``load_limit`` the least recently
    used one is unloaded (``evictions``) and loads again at its next call. ``hits``: programs found
    compiled already. Compilations beyond the limit are a ``CompileLimitError``; with ``isolate=True``
    they happen in processes of their own.
    """

    compiles: int
    compile_limit: int
    loaded: int
    load_limit: int
    hits: int
    evictions: int


def budget() -> Budget:
    """What this process has compiled and loaded, and may.

    >>> budget().loaded <= budget().compiles + budget().hits
    True
    """
    account = _native.ane_account()
    names = ("compiles", "compile_limit", "loaded", "load_limit", "evictions")
    return Budget(hits=account["cache_hits"], **{name: account[name] for name in names})


def folder() -> Path:
    """Where the notes lie; it need not exist."""
    return files.of_user("ANEX_CACHE_DIR")


def list() -> tuple[Entry, ...]:
    """Every compiled program that the system still holds, the least recently used first."""
    found = sorted(_entries(), key=lambda entry: entry.last_used)
    if not _native.ane_is_open() and _native.ane_open() is not None:
        return tuple(found)  # nobody here can say what has become of them
    held = []
    for entry in found:
        try:
            holds = _native.ane_cache_has(entry.identifier)
        except UnsupportedError:  # a system that does not tell
            holds = True
        if holds:
            held.append(entry)
        else:
            _path(entry.identifier).unlink(missing_ok=True)
    return tuple(held)


def size() -> int:
    """Bytes of text and weights of the programs in ``list()``; how large they are compiled, the system does not say."""
    return sum(entry.bytes for entry in list())


def clear(*, kept: bool = False) -> int:
    """Have the system forget compiled programs, those marked by ``keep`` only with ``kept``; how many they were.

    Programs at work stay as they are.
    """
    entries = [entry for entry in list() if kept or not entry.kept]
    for entry in entries:
        if _native.ane_is_open():
            _native.ane_cache_purge(entry.identifier)
        _path(entry.identifier).unlink(missing_ok=True)
    return len(entries)


def keep(program: Caller, keep: bool = True) -> None:
    """Never unload ``program`` for others, nor ``clear`` it; ``keep=False`` takes that back."""
    executable: Any = getattr(program, "_executable", None)
    if not hasattr(executable, "keep"):
        raise ArgumentError("keep() takes a program compiled for device='ane'; others are not in the cache")
    executable.keep(keep)
    note(executable.stats()["identifier"], kept=keep)


# ---- notes ------------------------------------------------------------------------------------

_programs: weakref.WeakSet[Any] = weakref.WeakSet()  # of this process; each has info()


def enter(program: Any, name: str, bytes: int, system: str) -> None:
    """Note a program that has just been compiled or found."""
    from . import __version__

    _programs.add(program)
    by = f"anex {__version__}" + (f", {system}" if system else "")
    note(program.info()["identifier"], name=name, bytes=bytes, compiled_by=by)


def note(identifier: str, **known: Any) -> None:
    """Write down what is known of a program; a folder that cannot be written costs the note, nothing else."""
    path = _path(identifier)
    now = time.time()
    found = _read(path) or {"created": now, "kept": False, "name": "", "bytes": 0, "compiled_by": ""}
    text = json.dumps(found | known | {"identifier": identifier, "last_used": now}, indent=1)
    with contextlib.suppress(OSError):
        path.parent.mkdir(parents=True, exist_ok=True)
        # readers see the old note or the new one, never half of it
        handle, temporary = tempfile.mkstemp(prefix=".new-", dir=path.parent)
        try:
            with open(handle, "w", encoding="utf-8") as file:
                file.write(text)
            os.replace(temporary, path)
        except BaseException:
            os.unlink(temporary)
            raise


def _path(identifier: str) -> Path:
    return folder() / "programs" / (re.sub(r"\W", "-", identifier)[:240] + ".json")


def _read(path: Path) -> dict[str, Any] | None:
    """A note, or None where there is none that can be read."""
    types: dict[str, Any] = {
             "identifier": str, "name": str, "bytes": int, "created": (int, float), "last_used": (int, float),
             "kept": bool, "compiled_by": str}  # fmt: skip
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
        if isinstance(found, dict) and all(isinstance(found.get(key), kind) for key, kind in types.items()):
            return {key: found[key] for key in types}
    except (OSError, ValueError):
        pass
    return None


def _entries() -> Any:
    loaded = _loaded()
    try:
        paths = sorted((folder() / "programs").glob("*.json"))
    except OSError:
        return
    for path in paths:
        if found := _read(path):
            yield Entry(loaded=found["identifier"] in loaded, **found)


def _loaded() -> set[str]:
    found = set()
    for program in tuple(_programs):
        try:
            info = program.info()
        except Error:  # closed, or its process has died
            continue
        if info["is_loaded"]:
            found.add(info["identifier"])
    return found
