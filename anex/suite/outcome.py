"""What one training, probe or benchmark of a whole run comes to."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from ..bench.warned import Warned

SECTIONS = {"training": "TRAINING", "probes": "PROBE", "benchmarks": "ROOT-LEVEL"}
"""By name in JSON, as the published script heads them, in its order."""


@dataclass(frozen=True)
class Outcome:
    """``status``: PASS, FAIL or SKIP; ``reasons`` of the latter two; ``text``: its table; ``data``: that as JSON;
    ``warned``: what the rules warned of."""

    section: str
    name: str
    status: str
    seconds: float
    reasons: Sequence[str] = ()
    text: str = ""
    data: Mapping[str, Any] = field(default_factory=dict)
    warned: Sequence[Warned] = ()

    @property
    def line(self) -> str:
        """The line of the summary, and a FAIL or SKIP line for each reason.

        >>> print(Outcome("probes", "api", "SKIP", 0.0, ["it is about the engine"]).line)
        api                  SKIP       0.0 s
          SKIP: it is about the engine
        """
        first = f"{self.name:20} {self.status:6} {self.seconds:7.1f} s"
        return "\n".join([first, *(f"  {self.status}: {reason}" for reason in self.reasons)])


def counted(outcomes: Sequence[Outcome]) -> dict[str, int]:
    """Total, Passed, Failed and Skipped."""
    by = {status: sum(each.status == status for each in outcomes) for status in ("PASS", "FAIL", "SKIP")}
    return {"total": len(outcomes), "passed": by["PASS"], "failed": by["FAIL"], "skipped": by["SKIP"]}
