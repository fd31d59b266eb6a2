"""What probes found on this machine goes before what others published."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from .. import answers
from ..cost.chips import Chip
from ..devices.info import device_info, label
from ..ops import Finding, Measured, family
from .settling import settled

Known = Mapping[str, Measured]
"""By rule."""


def here() -> Known:
    """What the Neural Engine of this machine answered; nothing where there is none."""
    found = device_info()
    if not found.available or not found.architecture:
        return {}
    return settled(answers.load("ane"), family(found.architecture), label("ane"))


def of_this_machine(chip: Chip, path: str) -> Known:
    """The same where it speaks of that chip's family and that path; the probes go the private way."""
    found = device_info()
    if path != "private" or not found.available or family(found.architecture) != family(chip.family):
        return {}
    return here()


def preferred(finding: Finding, known: Known) -> Finding:
    """With what was measured here, where a probe settled its rule."""
    return replace(finding, here=known[finding.rule.id]) if finding.rule.id in known else finding
