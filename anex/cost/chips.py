"""The chips there are figures of, and where others stand among them."""

from __future__ import annotations

import re
from dataclasses import dataclass

from ..ops.rule import FAMILIES, MACS

GENERATIONS = {mac: number for number, mac in enumerate(MACS.values(), 1)}
PHONES = {"A14": 1, "A15": 2, "A16": 3, "A17": 3, "A18": 4, "A19": 5}  # the Neural Engine they share with an M chip
WIDE = {3: ("Max", "Ultra"), 4: ("Pro", "Max", "Ultra"), 5: ("Pro", "Max", "Ultra")}  # twice the memory path


@dataclass(frozen=True)
class Chip:
    """``known``: it has a name that places it. ``family``: as the rules have it, ``h16``. ``generation``: 1 for M1."""

    name: str
    generation: int
    tier: str
    known: bool

    @property
    def family(self) -> str:
        return FAMILIES[self.generation - 1]

    @property
    def is_wide(self) -> bool:
        return self.tier in WIDE.get(self.generation, ())


def chip(name: str) -> Chip:
    """The chip of that name; newer ones count as the newest known, and names that say nothing as the middle.

    >>> chip("m4 max").name, chip("M4 Max").is_wide, chip("M9").family, chip("h16g").name, chip("toaster").known
    ('M4 Max', True, 'h17', 'M4', False)
    """
    text = " ".join(re.sub(r"[\s_-]+", " ", name).split())
    if found := re.fullmatch(r"(?i)(?:apple ?)?([MA])(\d+)(?: ?(pro|max|ultra|bionic))?", text):
        letter, number, tier = found[1].upper(), int(found[2]), (found[3] or "").capitalize()
        if letter == "M" and number >= 1:
            return Chip(f"M{number} {tier}".strip(), min(number, len(FAMILIES)), tier, True)
        if number >= 14:
            return Chip(f"A{number} {tier}".strip(), PHONES.get(f"A{number}", len(FAMILIES)), "", True)
    if found := re.fullmatch(r"(?i)h(\d\d)([a-z]*)", text):
        number = int(found[1]) - 12
        if number >= 1:
            tier = "Pro" if found[2].lower() == "s" else ""
            return Chip(f"M{number} {tier}".strip(), min(number, len(FAMILIES)), tier, True)
    return Chip(text or "unknown", 3, "", False)
