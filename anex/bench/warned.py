"""What the rules warn of while programs are compiled: gathered for the report, not printed between its lines."""

from __future__ import annotations

import contextlib
import re
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from ..errors import AneWarning


@dataclass(frozen=True)
class Warned:
    """One rule, how often it spoke, and its first words."""

    rule: str
    count: int
    text: str

    @property
    def line(self) -> str:
        return f"{self.count} x {self.text}"


@contextlib.contextmanager
def gathered() -> Iterator[list[str]]:
    """The texts of every AneWarning inside, there when it ends; other warnings are passed on."""
    texts: list[str] = []
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", AneWarning)
        try:
            yield texts
        finally:
            texts += [str(each.message) for each in caught if issubclass(each.category, AneWarning)]
    for each in caught:
        if not issubclass(each.category, AneWarning):
            warnings.warn_explicit(each.message, each.category, each.filename, each.lineno, source=each.source)


def by_rule(texts: Sequence[str]) -> list[Warned]:
    """Each rule once.

    >>> [each.line for each in by_rule(["conv 'a': [conv-bias] b", "conv 'c': [conv-bias] b", "other"])]
    ["2 x conv 'a': [conv-bias] b", '1 x other']
    """
    found: dict[str, list[str]] = {}
    for text in texts:
        said = re.search(r"\[([a-z0-9-]+)\]", text)
        found.setdefault(said[1] if said else text, []).append(text)
    return [Warned(rule, len(several), several[0]) for rule, several in found.items()]
