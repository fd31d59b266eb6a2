"""Which question to a machine settles which rule, and by which answers.

Rules say what was published; ``anex probe`` and ``anex selftest`` ask this machine and keep what it says
(``anex.answers``). A question that a rule is about is joined to it here and nowhere else.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from ..ops.rule import BEFORE_H16, FAMILIES, Measured

Answers = Mapping[str, Mapping[str, Any]]
LATER = tuple(family for family in FAMILIES if family not in BEFORE_H16)
REFUSED = ("refused.*",)
RIGHT = ("right",)


@dataclass(frozen=True)
class Settlement:
    """``question``: a probe, or ``selftest/`` and a question of the self-test; of one that tries several things
    ``trial`` is the one that counts. ``holds`` and ``lifted``: patterns of the answers by which the rule does and does
    not hold here; any other leaves it to what was published. ``families``: whose limit the trial is about."""

    rule: str
    question: str
    holds: tuple[str, ...]
    lifted: tuple[str, ...]
    trial: str = ""
    families: tuple[str, ...] = FAMILIES

    def of(self, answers: Answers, device: str) -> Measured | None:
        """What ``device`` answered; None where it was not asked, or its answer leaves the rule open."""
        answer = answers.get(self.question, {})
        key = answer.get("key", "")
        if self.trial:
            tried = answer.get("data", {}).get(self.trial, {})
            key = tried.get("status", "") if isinstance(tried, Mapping) else ""
        for patterns, holds in ((self.holds, True), (self.lifted, False)):
            if any(re.fullmatch(pattern, str(key)) for pattern in patterns):
                return Measured(holds, str(answer.get("verdict", key)), device)
        return None


def _asked(rule: str, question: str, *rest: Any, **named: Any) -> Settlement:
    return Settlement(rule, f"selftest/{question}", *rest, **named)


SETTLEMENTS = (
    Settlement("sdpa-mask", "sdpa-mask", ("ignored", "some"), ("heeded",)),
    Settlement("weights-baked", "weight-reload", ("baked",), ("reloaded",)),
    Settlement("quantised-per-tensor", "quant", (), ("all",)),
    Settlement("conv-channels", "lm-head", REFUSED, RIGHT),
    Settlement("several-inputs", "multi-input", ("mismatch", "refused"), ("evaluate",)),
    _asked("chaining", "chaining", (r"code -?\d+",), ("yes",)),
    _asked("compile-limit", "compile-limit", (r"\d+",), ("none",)),
    _asked("surface-floor", "surface-floor", (".*floor larger",), (".*floor none",)),
    _asked("row-stride", "narrow-rows", ("padded",), ()),
    _asked("axis-extent", "axis-caps", REFUSED, RIGHT, "width 16385", BEFORE_H16),
    _asked("axis-extent", "axis-caps", REFUSED, RIGHT, "width 65537", LATER),
    _asked("axis-extent-contested", "axis-caps", REFUSED, RIGHT, "width 16384", BEFORE_H16),
    _asked("axis-extent-contested", "axis-caps", REFUSED, RIGHT, "width 16385", LATER),
    _asked("channel-extent", "axis-caps", REFUSED, RIGHT, "channels 65537"),
    _asked("flat-extent", "flat-elementwise", (*REFUSED, "wrong"), RIGHT, "[1,16416]", BEFORE_H16),
    _asked("fp16-only", "float32-compute", (*REFUSED, "wrong"), RIGHT, "add in float32"),
    _asked("kernel-width", "conv-kernel-width", REFUSED, RIGHT, "15 wide", ("h13",)),
    _asked("kernel-width", "conv-kernel-width", REFUSED, RIGHT, "16 wide", FAMILIES[1:]),
    _asked("conv-bias", "conv-bias", REFUSED, RIGHT, "with bias"),
    _asked("matmul-k32", "matmul-contraction", ("wrong",), RIGHT, "K=33"),
    _asked("matmul-constant", "matmul-constant", REFUSED, RIGHT, "constant y"),
    _asked("thin-broadcast", "broadcast", ("wrong",), RIGHT, "[1,C,1]"),
    _asked("concat", "concat-compiles", REFUSED, RIGHT),
    _asked("gelu", "gelu-compiles", (*REFUSED, "wrong"), RIGHT, "EXACT"),
    _asked("softmax-extent", "softmax-long", ("wrong", "depends"), RIGHT),
    _asked("sum-range", "reduce-sum", ("narrow",), ("wide",)),
    _asked("matmul-range", "matmul-cliff", ("32768",), ("none",)),
    _asked("slice-range", "slice-cliff", ("4096",), ("none",)),
    _asked("subnormal", "subnormals", ("flushed",), ("kept",)),
)


def settled(answers: Answers, family: str, device: str) -> dict[str, Measured]:
    """By rule, what a machine of ``family`` answered."""
    found = ((each.rule, each.of(answers, device)) for each in SETTLEMENTS if family in each.families)
    return {rule: measured for rule, measured in found if measured is not None}


def questions() -> Iterator[str]:
    """Those of the self-test that a rule waits for, each once."""
    yield from dict.fromkeys(
        each.question.removeprefix("selftest/") for each in SETTLEMENTS if each.question.startswith("selftest/")
    )
