"""Whether the Neural Engine takes an op at all: what stands first in ``define(..., ane=[...])``.

The evidence is one sweep of the whole MIL vocabulary (SWP: each op compiled alone for an M5 Pro through
e5rt, run, and compared) and one catalogue of the native layers of each family (CAT). The private in-memory
path is another door to the same compiler, so what the sweep ran is accepted here too; what it could not
compile is refused where the catalogue knows no native layer either, and contested where it does.
"""

from __future__ import annotations

from .rule import FAMILIES, Check, Confidence, Rule, Severity

SWEPT = "SWP: M5 Pro, e5rt"
CATALOGUE = "CAT: native layers by family"
WITHIN_LIMITS = "see the op's other rules"


def never(*_: object) -> None:
    """Finds nothing: the rule is there to be read."""


def always(found: str) -> Check:
    return lambda op, chip: found


def ran(error: float) -> Rule:
    """Compiled, ran, and matched a reference to this relative error."""
    return _accepted(f"compiles, runs, and is right to a relative error of {error:g}", SWEPT)


def compiled() -> Rule:
    """Compiled and ran; nobody compared the values."""
    return _accepted("compiles and runs; its values were not compared", SWEPT)


def listed() -> Rule:
    """Native on every family by the catalogue; not in the sweep."""
    return _accepted("native on every family", CATALOGUE)


def conditional(statement: str, *source: str) -> Rule:
    """Accepted within limits; those that can be checked are rules of their own."""
    return Rule("acceptance", statement, "I", "high", never, source or (SWEPT,), WITHIN_LIMITS)


def is_conditional(rule: Rule) -> bool:
    """Whether it is one of ``conditional``."""
    return rule.fix == WITHIN_LIMITS


def no_native_layer(how: str) -> Rule:
    """It compiled and ran, though the catalogue says otherwise."""
    return Rule(
        "no-native-layer", "it compiled and ran in a sweep, though the engine has no native layer for it", "I", "low",
        always("this op"), (f"{SWEPT}: ran", f"CAT: {how} on every family"), "nothing, unless the compiler refuses it",
    )  # fmt: skip


def refused(
    statement: str = "has no implementation on the Neural Engine",
    *,
    fix: str = "compute it on the host, or of ops that are accepted",
    source: tuple[str, ...] = (f"{SWEPT}: refused", CATALOGUE),
    cure: str = "",
) -> Rule:
    """Refused by the sweep, and no family has a native layer for it."""
    return Rule("unsupported-op", statement, "E", "high", always("this op"), source, fix, cure=cure)


def contested(
    statement: str,
    *source: str,
    fix: str,
    confidence: Confidence = "low",
    severity: Severity = "E",
    chips: tuple[str, ...] = FAMILIES,
    cure: str = "",
) -> Rule:
    """Sources contradict each other: told, never refused."""
    return Rule("contested-op", statement, severity, confidence, always("this op"), source, fix, chips, cure=cure)


def native_but_refused(*, fix: str, cure: str = "") -> Rule:
    """The sweep could not compile it, though families have a native layer."""
    statement = "the compiler refused it in a sweep, though the engine has a native layer for it"
    return contested(statement, f"{SWEPT}: refused", f"{CATALOGUE}: native", fix=fix, cure=cure, confidence="medium")


def since(chip: str, *, fix: str, cure: str = "") -> Rule:
    """Native from this family on."""
    first = FAMILIES.index(chip)
    statement = f"native from {chip} on"
    source = (f"{CATALOGUE}: walled or bridged before",)
    return Rule("too-old", statement, "E", "medium", always("this op"), source, fix, FAMILIES[:first], cure=cure)


def _accepted(statement: str, source: str) -> Rule:
    return Rule("acceptance", statement, "I", "high", never, (source,), "nothing to do")
