"""The op suite: for every op of MIL that anex knows, uses with shapes that the ANE likes and with awkward ones."""

from __future__ import annotations

from . import compute, control, elementwise, indexing, moves, reduction  # noqa: F401  each enters its families
from .record import CASES, Case

__all__ = ["CASES", "Case", "every", "find"]


def every(*, quick: bool = False) -> list[Case]:
    """All cases in the order of the table; ``quick``: the first of each op."""
    return [case for cases in CASES.values() for case in (cases[:1] if quick else cases)]


def find(id: str) -> Case:
    op, _, number = id.rpartition("-")
    return CASES[op][int(number)]
