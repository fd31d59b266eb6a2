"""Two reports, one before and one now: what got worse by more than is allowed."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from ..errors import ArgumentError
from .reports import Key, rows, spread

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
    """``changes`` of every value that both reports have; ``broken``: what passed before and fails now; ``missing``:
    configurations that only one of them has, by which."""

    limit: float
    changes: list[Change] = field(default_factory=list)
    broken: list[str] = field(default_factory=list)
    missing: dict[str, int] = field(default_factory=dict)

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
        yield from (f"Only {where}: {count} configuration(s)" for where, count in self.missing.items() if count)
        if any(each.noise > each.worse for each in self.regressions):
            yield "Where a change is within the noise, run both again on a quiet machine before believing it."


def worse(before: float, now: float, sign: int) -> float:
    """A rate of half is twice the time: both are 1.0, 100 % worse.

    >>> worse(2.0, 3.0, -1), worse(30.0, 20.0, 1), worse(4.0, 2.0, -1)
    (0.5, 0.5, -0.5)
    """
    return now / before - 1 if sign < 0 else before / now - 1


def compare(before: Mapping[str, Any], now: Mapping[str, Any], limit: float) -> Comparison:
    """Value by value of each configuration. ArgumentError where they are of different devices, or share nothing."""
    for name, report in (("base", before), ("report", now)):
        if "benchmarks" not in report:
            raise ArgumentError(f"the {name} is merged from several machines: compare with one machine's report")
    here, there = (report["system"]["device"] for report in (now, before))
    if here != there:
        raise ArgumentError(f"the base is of device {there!r} and this run of {here!r}: their times do not compare")
    known = {key: row for key, _, row in rows(before)}
    found, seen = Comparison(limit), set[Key]()
    for key, benchmark, row in rows(now):
        seen.add(key)
        if key in known:
            found.changes += changes(benchmark, known[key], row)
            if known[key]["status"] == "PASS" and row["status"] == "FAIL":
                found.broken.append(f"{key[0]} {key[1]} passed before: {'; '.join(row['failed'].values())}")
    if not seen & {*known}:
        raise ArgumentError("the base and this run have no configuration in common: run the same selection, or all")
    found.missing = {"in the base": len({*known} - seen), "in this run": len(seen - {*known})}
    found.broken += _broken(before.get("probes", ()), now.get("probes", ()))
    return found


def _broken(before: Sequence[Mapping[str, Any]], now: Sequence[Mapping[str, Any]]) -> list[str]:
    passed = {each["name"] for each in before if each["status"] == "PASS"}
    return [f"probe {each['name']} passed before: {each['verdict']}"
            for each in now if each["status"] == "FAIL" and each["name"] in passed]  # fmt: skip


def changes(benchmark: Mapping[str, Any], before: Mapping[str, Any], now: Mapping[str, Any]) -> Iterator[Change]:
    noise = max(spread(before), spread(now))
    for column in benchmark["columns"]:
        sign = direction(column["unit"])
        old, new = (row["values"].get(column["key"]) for row in (before, now))
        if not sign or column["key"] in now.get("facts", {}) or old is None or new is None:
            continue
        if old > 0 and new > 0:  # what a dispatch costs is a difference, which noise can turn
            yield Change(benchmark["name"], now["config"], column["title"], column["unit"], old, new,
                         worse(old, new, sign), noise)  # fmt: skip
