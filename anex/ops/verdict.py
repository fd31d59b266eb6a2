"""Whether a family of chips takes an op at all, by name: what the rules about the op itself come to."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from .acceptance import is_conditional
from .findings import UNKNOWN
from .foreign import rules_of
from .rule import ABOUT_THE_OP, Rule, chips, family

Taken = Literal["yes", "conditional", "contested", "no"]


@dataclass(frozen=True)
class Verdict:
    """``taken``: "conditional" within limits that other rules check, "contested" where sources contradict each other.

    ``rules``: those that say so, the deciding one first.
    """

    op_type: str
    family: str
    taken: Taken
    rules: tuple[Rule, ...]

    def __str__(self) -> str:
        what = "; ".join(f"{rule.statement} ({', '.join(rule.source)})" for rule in self.rules)
        first = self.rules[0]
        way_out = f"; {first.fix}" if self.taken in ("no", "contested") else ""
        return f"{self.op_type} on {chips((self.family,))}: {self.taken}: {what}{way_out}"


def verdict(op_type: str, chip: str) -> Verdict:
    """The verdict on an op by name, for a chip such as "h16g".

    >>> verdict("relu", "h13g").taken, verdict("lstm", "h17g").taken, verdict("concat", "h16g").taken
    ('yes', 'no', 'contested')
    """
    on = family(chip)
    rules = tuple(r for r in rules_of(op_type) or (UNKNOWN,) if on in r.chips and r.id in ABOUT_THE_OP)
    found = {rule.id: rule for rule in reversed(rules)}
    taken: Taken = "yes"
    if "unsupported-op" in found:
        taken = "no"
    elif {*found} & {"contested-op", "too-old", "no-native-layer", "concat", "gelu"}:
        taken = "contested"
    elif is_conditional(found["acceptance"]):
        taken = "conditional"
    first = {"no": "unsupported-op", "contested": ""}.get(taken, "acceptance")
    order = sorted(rules, key=lambda rule: (rule.id != first, rule.id == "acceptance"))
    return Verdict(op_type, on, taken, tuple(order))
