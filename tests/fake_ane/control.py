"""The stand-in's switches and counters, by ctypes on the very library that anex opens."""

from __future__ import annotations

import ctypes
import functools
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from . import build

VARIABLE = "ANEX_ANE_FRAMEWORK"
Value = str | int | bool


def path() -> Path:
    """The library: the one the environment names, or else one built now."""
    named = os.environ.get(VARIABLE)
    return Path(named) if named else build.build()


@functools.cache
def library() -> ctypes.CDLL:
    lib = ctypes.CDLL(str(path()), mode=os.RTLD_NOW | os.RTLD_LOCAL)
    text = ctypes.c_char_p
    for name, result, arguments in (
        ("set", ctypes.c_int, [text, text]),
        ("get", ctypes.c_int, [text, text, ctypes.c_size_t]),
        ("count", ctypes.c_int64, [text]),
        ("reset", None, []),
        ("reason", text, []),
        ("name", text, [ctypes.c_int, ctypes.c_int]),
    ):
        function = getattr(lib, f"fake_ane_{name}")
        function.restype, function.argtypes = result, arguments
    return lib


def names(*, counters: bool = False) -> list[str]:
    """All switches, or all counters."""
    found: list[str] = []
    while name := library().fake_ane_name(counters, len(found)):
        found.append(name.decode())
    return found


def spell(value: Value) -> str:
    return {True: "yes", False: "no"}[value] if isinstance(value, bool) else str(value)


def put(name: str, value: Value) -> None:
    """Set one switch; switches.inc says what they mean."""
    result = library().fake_ane_set(name.encode(), spell(value).encode())
    if result:
        why = {
            -1: f"the stand-in has no switch {name!r}; it has {', '.join(names())}",
            -2: f"the switch {name!r} cannot be {value!r}; see tests/fake_ane/switches.inc",
            -3: f"{name!r} works before classes are registered only: start a process with environment({name}=...)",
        }
        raise ValueError(why[result])


def get(name: str) -> str:
    value = ctypes.create_string_buffer(1024)
    if library().fake_ane_get(name.encode(), value, len(value)):
        raise ValueError(f"the stand-in has no switch {name!r}; it has {', '.join(names())}")
    return value.value.decode()


def count(counter: str) -> int:
    number = int(library().fake_ane_count(counter.encode()))
    if number < 0 and counter not in names(counters=True):
        raise ValueError(f"the stand-in has no counter {counter!r}; it has {', '.join(names(counters=True))}")
    return number


def reset() -> None:
    """Switches to their defaults, counters to 0 (but for the live ones), the cache emptied."""
    library().fake_ane_reset()


def reason() -> str:
    """Why the stand-in last refused something, which the framework would not tell."""
    return str(library().fake_ane_reason().decode(errors="replace"))


@contextmanager
def switched(**switches: Value) -> Iterator[None]:
    """Switches set for a while: ``with fake_ane.switched(load="once", arch="h15g"):``"""
    before = {name: get(name) for name in switches}
    try:
        for name, value in switches.items():
            put(name, value)
        yield
    finally:
        for name, old in before.items():
            put(name, old)


def environment(**switches: Value) -> dict[str, str]:
    """The environment of a process that shall see the stand-in so, and nothing of this process's switches."""
    text = ";".join(f"{name}={spell(value)}" for name, value in switches.items())
    return {**os.environ, VARIABLE: str(path()), "FAKE_ANE": text}
