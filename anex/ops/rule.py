"""What the Neural Engine wants of an op: rules as data, each with where it was learnt and how sure that is.

A rule that is well-founded (``high``) and means an error (``E``) refuses the op; every other one informs.
Sources are tags of public projects and what they measured:

FRG ANEForge (M1, M2 Pro, M5, M5 Pro), SWP its sweep of the MIL vocabulary (M5 Pro, e5rt), CAT its catalogue of
native layers, MDX maderix/ANE (M3 Ultra, M4, M5), ORI Orion (M4 Max), TRN ane-train (M1), LMC ANE-LM, CRN CRANE,
CGT computer-graphics-tools/ane, INF ane-infer (M5), FDT a client of compiled programs, H3 a video project (Ultra),
M3P an M3 Pro study, RNE rustane (M3 Ultra), Q38 a W8A8 engine,
HOL hollance/neural-engine (old Core ML), APM anemll-profile, ANM ANEMLL,
S00/S03/S04 field notes, FIT fitted to published timings.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from coremltools.converters.mil.mil import Operation

Severity = Literal["E", "F", "W", "S", "I"]
Confidence = Literal["high", "medium", "low"]
Check = Callable[["Operation", str], "str | None"]

SEVERITIES: dict[str, str] = {
    "E": "does not compile or evaluate",
    "F": "Core ML falls back",
    "W": "silently wrong",
    "S": "slow",
    "I": "good to know",
}
FAMILIES = ("h13", "h14", "h15", "h16", "h17")  # M1 .. M5
MACS = dict(zip(FAMILIES, ("M1", "M2", "M3", "M4", "M5"), strict=True))
BEFORE_H16 = FAMILIES[:3]
PATHS = ("private", "e5rt", "coreml")
# Rules that are about the op, whatever its operands.
ABOUT_THE_OP = ("unsupported-op", "contested-op", "too-old", "acceptance", "no-native-layer", "concat", "gelu")


@dataclass(frozen=True)
class Cliff:
    """What the engine does to float16 values past a limit, as the CPU engine's op ``kernel`` does it too.

    ``anex_overflow``: results of magnitude ``limit`` and more are infinite; ``anex_flush``: smaller than it
    are zero; ``anex_narrow_sum``: float16 sums, no longer exact above it; ``anex_narrow_index``: places that an
    op finds come back in float16, no longer exact above it. ``where``: in which uses of the op; None: in all.
    """

    kernel: Literal["anex_overflow", "anex_flush", "anex_narrow_sum", "anex_narrow_index"]
    limit: float
    where: Callable[[Operation], bool] | None = None


@dataclass(frozen=True)
class Rule:
    """One statement about one or more ops.

    ``check(op, family)`` says what was found against it, None when nothing was. ``confidence`` is low
    where sources contradict each other. ``cure`` names the pass (anex.passes) that rewrites what the
    rule is about. ``cliff``: what it says of values, for ``ane_numerics=True`` of ``device="cpu"``.
    ``os``: the systems its sources ran, as far as they say. Which question to a machine settles it stands in
    ``anex.placement.settling``.
    """

    id: str
    statement: str
    severity: Severity
    confidence: Confidence
    check: Check
    source: tuple[str, ...]
    fix: str
    chips: tuple[str, ...] = FAMILIES
    path: tuple[str, ...] = PATHS[:2]
    cure: str = ""
    cliff: Cliff | None = None
    os: str = "macOS 15 to 26"

    def __post_init__(self) -> None:
        if not self.source or not self.fix or not self.statement:
            raise ValueError(f"rule {self.id}: a rule has a statement, a source and a way out")
        if not {*self.chips} <= {*FAMILIES} or not {*self.path} <= {*PATHS}:
            raise ValueError(f"rule {self.id}: chips {self.chips} or path {self.path} unknown")

    def on(self, *chips: str, confidence: Confidence | None = None) -> Rule:
        """The same for other chips, as sure or less so."""
        return replace(self, chips=chips, confidence=confidence or self.confidence)


@dataclass(frozen=True)
class Measured:
    """Whether a rule ``holds`` on this machine, what the probe said, and on which device, ``ane`` or ``double``."""

    holds: bool
    verdict: str
    device: str

    @property
    def said(self) -> str:
        how = "it holds" if self.holds else "it does not hold"
        return f"measured here ({self.device}): {how}: {self.verdict.rstrip('.')}"

    def __str__(self) -> str:
        return f"{self.said}; published: "


@dataclass(frozen=True)
class Finding:
    """A rule and what one op has against it. ``cured``: a pass that is on rewrites it. ``here``: what was measured."""

    rule: Rule
    found: str
    op_type: str
    op_name: str
    cured: bool = False
    here: Measured | None = None

    @property
    def lifted(self) -> bool:
        """Whether this machine was measured not to have what the rule says."""
        return self.here is not None and not self.here.holds

    @property
    def refuses(self) -> bool:
        """Whether the op must not be handed to the Neural Engine."""
        sure = self.rule.confidence == "high" if self.here is None else self.here.holds
        return self.rule.severity == "E" and sure and not self.cured

    @property
    def warns(self) -> bool:
        """Whether a user should hear of it though the program compiles."""
        return self.rule.severity in "EWS" and not self.refuses and not self.cured and not self.lifted

    @property
    def text(self) -> str:
        """The rule, what was found, where it holds, who says so, and the way out."""
        rule = self.rule
        sure = "contested" if rule.confidence == "low" else f"{rule.confidence} confidence"
        cure = f"; the pass {rule.cure} rewrites it" if self.cured else ""
        return (
            f"[{rule.id}] {self.found}: {rule.statement} ({SEVERITIES[rule.severity]} on {chips(rule.chips)}, "
            f"{rule.os}; {self.here or ''}{sure}; {', '.join(rule.source)}); {rule.fix}{cure}"
        )

    def __str__(self) -> str:
        return f"{self.op_type} {self.op_name!r}: {self.text}"


def family(chip: str) -> str:
    """The family of an architecture string: ``h16`` of ``h16g``; newer ones count as the newest known.

    >>> family("h13g"), family("h18p"), family("h16")
    ('h13', 'h17', 'h16')
    """
    from ..errors import ArgumentError

    match = re.fullmatch(r"h(\d\d)[a-z]*", chip.lower())
    if match is None or int(match[1]) < 13:
        raise ArgumentError(f"chip {chip!r}: a Neural Engine that runs MIL is h13 (M1) or later, such as 'h16g'")
    return min(f"h{match[1]}", FAMILIES[-1])


def chips(families: Iterable[str]) -> str:
    """Families as text: ``h13 (M1), h14 (M2)``."""
    families = tuple(families)
    return "every chip" if families == FAMILIES else ", ".join(f"{each} ({MACS[each]})" for each in families)
