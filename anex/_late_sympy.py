"""sympy as coremltools has it, loaded when somebody reckons with a symbol.

coremltools makes a symbol of each size that is not known, and asks of every other value whether it is one. Most of
its programs reckon with none, even where a slice of a state has one that nobody looks at: without sympy they start
half a second sooner and take 35 MB less.
"""

from __future__ import annotations

import contextlib
import importlib
import sys
from collections.abc import Callable, Iterator
from types import ModuleType
from typing import Any

KINDS = ("Basic", "Expr", "Symbol")  # the classes that coremltools asks for
BINARY = ("add", "sub", "mul", "truediv", "floordiv", "mod", "pow")
OPERATORS = (
    *(f"__{side}{name}__" for name in BINARY for side in ("", "r")),
    "__neg__", "__pos__", "__abs__", "__int__", "__float__", "__lt__", "__le__", "__gt__", "__ge__",
    "__hash__", "__str__", "__repr__",
)  # fmt: skip


def _sympy() -> Any:
    return importlib.import_module("sympy")


class LateSymbol:
    """What ``sympy.Symbol(name)`` makes, which takes its place in whatever is done with it."""

    def __init__(self, name: str) -> None:
        self.name = name

    def _sympy_(self) -> Any:  # how sympy asks others what they are
        return _sympy().Symbol(self.name)

    def __getattr__(self, name: str) -> Any:
        if name == "__sympy__":  # the mark of those that sympy takes as they are
            raise AttributeError(name)
        return getattr(self._sympy_(), name)

    def __eq__(self, other: object) -> bool:
        if isinstance(other, LateSymbol):
            return self.name == other.name
        return _is(other, "Basic") and bool(self._sympy_() == other)


def _operator(name: str) -> Callable[..., Any]:
    def operator(self: LateSymbol, *others: Any) -> Any:
        return getattr(self._sympy_(), name)(*others)

    return operator


for _name in OPERATORS:
    setattr(LateSymbol, _name, _operator(_name))


def _is(value: object, kind: str) -> bool:
    """Of a class of sympy, of which nothing is before it is there."""
    sympy = sys.modules.get("sympy")
    return sympy is not None and not isinstance(sympy, _Module) and isinstance(value, getattr(sympy, kind))


class _Late(type):
    """Of a class of sympy; late symbols are of all that coremltools asks for."""

    def __instancecheck__(cls, value: object) -> bool:
        return isinstance(value, LateSymbol) or _is(value, cls.__name__)

    def __subclasscheck__(cls, kind: type) -> bool:
        sympy = sys.modules.get("sympy")
        known = sympy is not None and not isinstance(sympy, _Module)
        return issubclass(kind, LateSymbol) or (known and issubclass(kind, getattr(sympy, cls.__name__)))

    def __call__(cls, *arguments: Any, **options: Any) -> Any:
        if cls.__name__ == "Symbol" and len(arguments) == 1 and not options:
            return LateSymbol(*arguments)
        return getattr(_sympy(), cls.__name__)(*arguments, **options)


class _Module(ModuleType):
    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        return getattr(_sympy(), name)


@contextlib.contextmanager
def late_sympy() -> Iterator[None]:
    """What is imported within the block, and asks for sympy, has it late; unless it is loaded already."""
    if "sympy" in sys.modules:
        yield
        return
    late = _Module("sympy")
    for kind in KINDS:
        setattr(late, kind, _Late(kind, (), {}))
    sys.modules["sympy"] = late
    try:
        yield
    finally:
        if sys.modules.get("sympy") is late:
            del sys.modules["sympy"]
