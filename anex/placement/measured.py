"""What probes found on this machine goes before what others published."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from .. import answers
from ..cost.chips import Chip
from ..devices.info import device_info, label
from ..ops import Finding, Measured, family

Answers = Mapping[str, Mapping[str, Any]]


def of_this_machine(chip: Chip, path: str) -> Answers:
    """The answers of its Neural Engine, by probe, if it is of that chip's family; the probes go the private way."""
    here = device_info()
    if path != "private" or not here.available or family(here.architecture) != family(chip.family):
        return {}
    return answers.load("ane")


def preferred(finding: Finding, known: Answers) -> Finding:
    """With what was measured here, where a probe settled its rule."""
    rule = finding.rule
    answer = known.get(rule.probe, {})
    key = answer.get("key")
    if key not in (*rule.holds, *rule.lifted):
        return finding
    return replace(finding, here=Measured(key in rule.holds, str(answer.get("verdict", key)), label("ane")))
