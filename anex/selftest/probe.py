"""The registry of probes: questions about the Neural Engine on which sources differ or are silent."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class Answer:
    """``key``: the answer in a word, for programs; ``verdict``: in a sentence; ``data``: what it rests on."""

    key: str
    verdict: str
    data: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Probe:
    """``claims``: what each source says. ``alone``: it spoils its process, which must be a fresh one."""

    id: str
    group: str
    question: str
    claims: Mapping[str, str]
    run: Callable[[], Answer]
    alone: bool

    def ask(self) -> dict[str, Any]:
        """Run it here; an answer or why there is none, as the report has it."""
        from .raw import Refused, said

        known = {"id": self.id, "group": self.group, "question": self.question, "claims": dict(self.claims)}
        try:
            answer = self.run()
        except Refused as refused:
            verdict = f"No answer: the framework refused at {refused.stage}: {said(refused.reply)}."
            return {**known, "status": "failed", "key": "refused", "verdict": verdict, "data": {"stage": refused.stage}}
        except Exception as error:  # whatever it is, the other probes go on
            verdict = f"No answer: {type(error).__name__}: {error}."
            return {**known, "status": "failed", "key": "failed", "verdict": verdict, "data": {}}
        return {**known, "status": "answered", "key": answer.key, "verdict": answer.verdict, "data": dict(answer.data)}


PROBES: dict[str, Probe] = {}
GROUPS = {"question": "open question", "rule": "contested rule", "numerics": "numerics"}


def probe(
    id: str, *, group: str, question: str, alone: bool = False, **claims: str
) -> Callable[[Callable[[], Answer]], Callable[[], Answer]]:
    """Register a function as a probe; ``claims``: sources (``MDX_LIB`` for two) and what they say."""
    if group not in GROUPS or id in PROBES:
        raise ValueError(f"probe {id}: unknown group or known id")

    def register(function: Callable[[], Answer]) -> Callable[[], Answer]:
        said = {names.replace("_", ", "): claim for names, claim in claims.items()}
        PROBES[id] = Probe(id, group, question, said, function, alone)
        return function

    return register
