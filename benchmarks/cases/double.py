"""What stands between Python's call and the framework of the Neural Engine, measured on its stand-in."""

from __future__ import annotations

import ctypes
import itertools
import os
import sys
from collections.abc import Callable
from typing import Any

from ..case import Case, Contender, Setting, Work
from ..runtimes import ROOT

REPEATS, SHAPE = 1000, (1, 64, 1, 32)


def call_to_framework() -> Case:
    """A whole call of a program for the Neural Engine, there and back, and the bare message that it ends in.

    The stand-in's evaluate says yes at once, so the difference is more than all that stands between Python's call and
    the framework.
    """

    def bare(setting: Setting) -> Work:
        send = ctypes.CDLL(str(_open())).fake_ane_send
        send.restype, send.argtypes = None, [ctypes.c_int64]
        return Work(lambda: send(REPEATS), None, REPEATS)

    def single(setting: Setting) -> Work:
        program, (x, y) = _program("one"), _tensors(2)
        return _repeated(lambda: program(x, out=y))

    def several(setting: Setting) -> Work:
        program, (x, y, z, p, q) = _program("several"), _tensors(5)
        out = (p, q)
        return _repeated(lambda: program(x, y, z, out=out))

    def executable(setting: Setting) -> Work:
        program, (x, y) = _program("one"), _tensors(2)
        run, given = program._executable.run, (x,)
        return _repeated(lambda: run(given, y))

    contenders: dict[str, Contender] = {
        "double bare message": bare,
        "double program(x, out=y)": single,
        "double program(x, y, z, out=(p, q))": several,
        "double Executable.run((x,), y)": executable,
    }
    return Case("from Python's call to the framework's evaluate, and back", contenders, device="double")


def _repeated(call: Callable[[], object]) -> Work:
    def calls() -> None:
        for _ in itertools.repeat(None, REPEATS):
            call()

    return Work(calls, None, REPEATS)


def _open() -> Any:
    """The stand-in's library, with anex talking to it; whatever was not built is a ``RuntimeError``."""
    sys.path.insert(0, str(ROOT / "tests"))
    from fake_ane import build, control

    from anex import devices

    if not build.LIBRARY.exists():
        raise RuntimeError("no stand-in here: `make build-with-objc` builds it")
    os.environ[control.VARIABLE] = str(build.LIBRARY)
    if "ane" not in devices.available():
        raise RuntimeError("anex was built without the binding of the Neural Engine: ANEX_OBJC=1 builds it")
    control.put("empty_evaluate", True)
    return build.LIBRARY


def _program(name: str) -> Any:
    _open()
    import anex
    from anex import mb

    @anex.graph(x=SHAPE)
    def one(x: Any) -> Any:
        return mb.add(x=x, y=x, name="y")

    @anex.graph(x=SHAPE, y=SHAPE, z=SHAPE)
    def several(x: Any, y: Any, z: Any) -> Any:
        return mb.add(x=x, y=y, name="p"), mb.sub(x=x, y=z, name="q")

    return anex.compile({"one": one, "several": several}[name], device="ane")


def _tensors(count: int) -> list[Any]:
    import anex

    return [anex.zeros(SHAPE) for _ in range(count)]
