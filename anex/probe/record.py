"""What a probe asks, and what it found."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .session import Session


EXPECTED = "FAIL (expected)"


@dataclass(frozen=True)
class Check:
    """One number against a limit that it may not pass."""

    what: str
    found: float
    limit: float

    @property
    def passed(self) -> bool:
        return self.found <= self.limit  # false for NaN

    def __str__(self) -> str:
        return f"{self.what}: {self.found:.6g} ({'PASS' if self.passed else 'FAIL'}, limit {self.limit:g})"


@dataclass(frozen=True)
class Answer:
    """``key``: in a word, for programs; ``verdict``: in a sentence; ``checks`` decide whether the probe passes,
    ``lines`` are its table as people read it, ``data`` the same for programs. ``expected``: a failure that everybody
    sees, and that is no fault of this machine's."""

    key: str
    verdict: str
    checks: Sequence[Check] = ()
    lines: Sequence[str] = ()
    data: Mapping[str, Any] = field(default_factory=dict)
    expected: bool = False

    @property
    def status(self) -> str:
        if self.expected:
            return EXPECTED
        return "PASS" if all(check.passed for check in self.checks) else "FAIL"


@dataclass(frozen=True)
class Probe:
    """``source``: the published tool that asks it; ``answers``: what was published, by who measured it; ``device``:
    the only one that can be asked, or none for all."""

    name: str
    question: str
    source: str
    answers: Mapping[str, str]
    device: str
    run: Callable[[Session], Answer]


PROBES: dict[str, Probe] = {}


def probe(
    name: str, *, question: str, source: str, device: str = "", answers: Mapping[str, str] | None = None
) -> Callable[[Callable[[Session], Answer]], Callable[[Session], Answer]]:
    """Register a function as a probe."""
    if name in PROBES:
        raise ValueError(f"probe {name} is there twice")

    def register(function: Callable[[Session], Answer]) -> Callable[[Session], Answer]:
        PROBES[name] = Probe(name, question, source, dict(answers or {}), device, function)
        return function

    return register
