"""Two reports, one before and one now: what got worse by more than is allowed."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from ..errors import ArgumentError
from .reports import Key, rows, spread

SHOWN = 5  # configurations that only one report has
LOWER = frozenset({"ms", "us", "mJ"})
HIGHER = frozenset({"TFLOPS", "GFLOPS", "TOPS", "GB/s", "GFLOPS/MiB", "TFLOPS/W"})


def direction(unit: str) -> int:
    """1 where more is better, -1 where less is; 0 where a value is no figure of merit, as sizes are.

    >>> direction("ms"), direction("TFLOPS"), direction("MiB")
    (-1, 1, 0)
    """
    return -1 if unit in LOWER else 1 if unit in HIGHER else 0


@dataclass(frozen=True)
class Change:
    """``worse``: by which share it takes longer, or does less a second: 0.5 is half as long again, below 0 better.

    ``noise``: the wider of both rows' p10 to p90, as a share of the median.
    """

    benchmark: str
    config: str
    title: str
    unit: str
    before: float
    now: float
    worse: float
    noise: float

    @property
    def line(self) -> str:
        how = "worse" if self.worse > 0 else "better"
        noisy = f"; within the noise: p10 to p90 is {self.noise:.0%} of the median" if self.noise > abs(self.worse) \
            else ""  # fmt: skip
        return (f"{self.benchmark} {self.config}: {self.title} {self.before:.4g} to {self.now:.4g} {self.unit}, "
                f"{abs(self.worse):.0%} {how}{noisy}")  # fmt: skip


@dataclass
class Comparison:
    """``changes`` of every value that both reports have; ``broken``: what passed before, and fails or is skipped now;
    ``missing``: configurations that only one of them has, by which."""

    limit: float
    changes: list[Change] = field(default_factory=list)
    broken: list[str] = field(default_factory=list)
    missing: dict[str, list[str]] = field(default_factory=dict)

    @property
    def regressions(self) -> list[Change]:
        return sorted((each for each in self.changes if each.worse > self.limit), key=lambda each: -each.worse)

    @property
    def failed(self) -> bool:
        return bool(self.regressions or self.broken)

    def lines(self) -> Iterator[str]:
        better = sum(each.worse < -self.limit / (1 + self.limit) for each in self.changes)
        yield (f"Compared: {len(self.changes)} values, {len(self.regressions)} more than {self.limit:.0%} worse, "
               f"{better} as much better")  # fmt: skip
        yield from (f"FAIL: {each.line}" for each in self.regressions)
        yield from (f"FAIL: {each}" for each in self.broken)
        for where, found in self.missing.items():
            if found:
                more = f" and {len(found) - SHOWN} more" if len(found) > SHOWN else ""
                yield f"Only {where}: {', '.join(found[:SHOWN])}{more}"
        if any(each.noise > each.worse for each in self.regressions):
            yield "Where a change is within the noise, run both again on a quiet machine before believing it."


def is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def worse(before: float, now: float, sign: int) -> float:
    """A rate of half is twice the time: both are 1.0, 100 % worse.

    >>> worse(2.0, 3.0, -1), worse(30.0, 20.0, 1), worse(4.0, 2.0, -1)
    (0.5, 0.5, -0.5)
    """
    return now / before - 1 if sign < 0 else before / now - 1


def compare(before: Mapping[str, Any], now: Mapping[str, Any], limit: float) -> Comparison:
    """Value by value of each configuration. ArgumentError where devices or chips differ, or nothing is shared."""
    for name, report in (("base", before), ("report", now)):
        if "benchmarks" not in report:
            raise ArgumentError(f"the {name} is merged from several machines: compare with one machine's report")
    for name in ("device", "chip"):
        here, there = (report["system"][name] for report in (now, before))
        if here != there:
            raise ArgumentError(f"the base is of {name} {there!r} and this run of {here!r}: times do not compare")
    known = {key: row for key, _, row in rows(before)}
    found, seen = Comparison(limit), dict[Key, None]()  # in their order
    for key, benchmark, row in rows(now):
        seen[key] = None
        if key in known:
            found.changes += changes(benchmark, known[key], row)
            if known[key]["status"] == "PASS" and row["status"] == "FAIL":
                found.broken.append(f"{key[0]} {key[1]} passed before: {'; '.join(row['failed'].values())}")
            elif known[key]["status"] == "PASS" and row["status"] == "SKIP":
                found.broken.append(f"{key[0]} {key[1]} passed before and is skipped: {row.get('skipped', '')}")
    steps = list(_trainings(before, now))
    if not {*seen} & {*known} and not steps:
        raise ArgumentError("the base and this run have no configuration in common: run the same selection, or all")
    found.changes += steps
    found.missing = {
        where: [f"{key[0]} {key[1]}" for key in keys if key not in others]
        for where, keys, others in (("in the base", known, seen), ("in this run", seen, known))
    }
    found.broken += [*_broken("training", before, now), *_broken("probes", before, now)]
    return found


def _broken(section: str, before: Mapping[str, Any], now: Mapping[str, Any]) -> Iterator[str]:
    passed = {each["name"] for each in before.get(section, ()) if each["status"] == "PASS"}
    for each in now.get(section, ()):
        if each["status"] == "FAIL" and each["name"] in passed:
            why = each.get("verdict") or "; ".join(each.get("reasons", ()))
            yield f"{section.removesuffix('s')} {each['name']} passed before: {why}"


def _trainings(before: Mapping[str, Any], now: Mapping[str, Any]) -> Iterator[Change]:
    """Milliseconds a step of those that ran in both, compilation left out."""
    known = {each["name"]: each.get("ms_per_step") for each in before.get("training", ())}
    for each in now.get("training", ()):
        old, new = known.get(each["name"]), each.get("ms_per_step")
        if old and new:
            yield Change("training", each["name"], "ms/step", "ms", old, new, worse(old, new, -1), 0.0)


def changes(benchmark: Mapping[str, Any], before: Mapping[str, Any], now: Mapping[str, Any]) -> Iterator[Change]:
    noise = max(spread(before), spread(now))
    for column in benchmark["columns"]:
        sign = direction(column["unit"])
        old, new = (row["values"].get(column["key"]) for row in (before, now))
        if not sign or column["key"] in now.get("facts", {}) or not (is_number(old) and is_number(new)):
            continue
        if old > 0 and new > 0:  # what a dispatch costs is a difference, which noise can turn
            yield Change(benchmark["name"], now["config"], column["title"], column["unit"], old, new,
                         worse(old, new, sign), noise)  # fmt: skip
