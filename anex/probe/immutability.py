"""The published table of six questions about weights and ways around the framework (seed 003), for this machine."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from ..devices.info import label

# Question; the probe that asks it, or a question of the self-test that one puts; what an M5 answered.
ROWS = (
    ("Can weights be swapped without compiling again?", "weight-reload", "No: baked, the overwritten file is ignored"),
    ("Does a weightsBuffer override compiled weights?", "selftest/weights-buffer", "No: the same output"),
    ("Does QoS change the speed?", "qos", "No: 0 to 63 work alike"),
    ("Does _ANEChainingRequest chain programs?", "selftest/chaining", "Validates; the driver says code 15"),
    ("Does _ANEPerformanceStats tell counters?", "perf-stats", "The class is there; needs perfStatsMask"),
    ("Is there a real-time path?", "selftest/real-time", "beginRealTimeTask: NO; evaluateRealTime works, no gain"),
)


def table(answers: Sequence[Mapping[str, Any]], device: str) -> list[str]:
    """Question, what this machine answered and what was published, aligned; "not asked" where no probe was."""
    known = {each["name"]: each for each in answers}
    for each in answers:
        known.update({f"selftest/{id_}": asked for id_, asked in each.get("asked", {}).items()})
    rows = [("Question", f"Result here ({label(device)})", "Published for M5 (seed 003)")]
    for question, name, published in ROWS:
        found = known.get(name, {})
        said = str(found.get("verdict") or found.get("reason") or "not asked")
        rows.append((question, said, published))
    widths = [max(len(row[i]) for row in rows) for i in range(2)]
    lines = [f"{row[0]:{widths[0]}}  {row[1]:{widths[1]}}  {row[2]}" for row in rows]
    return ["Weights and ways around:", lines[0], "-" * max(map(len, lines)), *lines[1:]]
