"""What was measured of one case with one number of threads, the ratios in it, and the file of many."""

from __future__ import annotations

import json
import statistics
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

from .case import Case, Goal, Limit

SCHEMA, VERSION = "anex benchmarks", 1
NOISE = 0.08  # of a ratio; a median this much below its goal may be on it
LIMIT = "limit "  # before a kind, in the place of a contender


class Spread(NamedTuple):
    median: float
    low: float  # the quartiles
    high: float


def spread(values: Sequence[float]) -> Spread:
    """Median and quartiles, linear between the values."""
    if len(values) == 1:
        return Spread(values[0], values[0], values[0])
    low, middle, high = statistics.quantiles(values, n=4, method="inclusive")
    return Spread(middle, low, high)


@dataclass(frozen=True)
class Comparison:
    """``peer``'s time (or memory) / ``ours``, round by round; above 1 we are faster (or smaller)."""

    ours: str
    peer: str
    ratio: Spread | None  # None: who is missing stands in ``why``
    goal: float | None = None
    why: str = ""
    of: str = "time"  # or "memory"
    most: Spread | None = None  # what ``ratio`` would be if ours reached the machine's limit; None without one

    @property
    def verdict(self) -> str:
        """Where the median stands to the goal: "met", "within noise", "missed", or "" without goal or ratio."""
        if self.goal is None or self.ratio is None:
            return ""
        if self.ratio.median >= self.goal:
            return "met"
        return "within noise" if self.ratio.median >= self.goal * (1 - NOISE) else "missed"

    @property
    def out_of_reach(self) -> bool:
        """Whether the goal was not met, and asks for more than the machine can do."""
        return self.verdict not in ("", "met") and self.most is not None and self.most.median < (self.goal or 0)


@dataclass
class Result:
    case: str
    title: str
    threads: int
    turn: float  # seconds that a contender had in each round
    first: str  # the contender that the others are compared with
    device: str = "cpu"
    date: str = ""
    seconds: dict[str, list[float]] = field(default_factory=dict)  # by contender, of each round the median call
    rates: dict[str, list[float]] = field(default_factory=dict)  # by kind of limit, FLOP/s or bytes/s of each round
    state: dict[str, list[float]] = field(default_factory=dict)  # of the machine, see machine.state
    memory: dict[str, list[int]] = field(default_factory=dict)  # by contender: peak bytes, of cases that measure it
    left_out: dict[str, str] = field(default_factory=dict)  # by contender: why it has no times
    unchecked: list[str] = field(default_factory=list)  # contenders whose answer nobody compared
    limits: list[Limit] = field(default_factory=list)
    goals: list[Goal] = field(default_factory=list)

    @classmethod
    def of(cls, name: str, case: Case, threads: int, turn: float) -> Result:
        limits, goals = list(case.limits), list(case.goals)
        first = next(iter(case.contenders))
        return cls(name, case.title, threads, turn, first, case.device, limits=limits, goals=goals)

    @property
    def ours(self) -> str | None:
        """``first``; None where it has no times."""
        return self.first if self.first in self.seconds else None

    def times(self, name: str, of: str = "time") -> Sequence[float] | None:
        """Seconds of each round; of "limit KIND": what the work would take at the rate of that round."""
        if of == "memory":
            return self.memory.get(name)
        if not name.startswith(LIMIT):
            return self.seconds.get(name)
        kind = name.removeprefix(LIMIT)
        amount = next((limit.amount for limit in self.limits if limit.kind == kind), None)
        rates = self.rates.get(kind)
        return [amount / rate for rate in rates] if amount is not None and rates else None

    def ratio(self, ours: str, peers: Sequence[str], of: str = "time") -> Spread | None:
        """(the fastest peer's time) / (ours), of each round; None where ours or all peers are missing."""
        mine = self.times(ours, of)
        theirs = [times for peer in peers if (times := self.times(peer, of))]
        if not mine or not theirs:
            return None
        return spread([min(each) / own for own, *each in zip(mine, *theirs, strict=True)])

    def most(self, ours: str, peers: Sequence[str], of: str = "time") -> Spread | None:
        """(the fastest peer's time) / (the time that the work of ours takes at the limits of the machine)."""
        binding = [LIMIT + each.kind for each in self.limits if each.binds(ours)]
        bounds = [times for name in binding if (times := self.times(name))]
        theirs = [times for peer in peers if not peer.startswith(LIMIT) and (times := self.times(peer))]
        if of != "time" or not bounds or not theirs:
            return None
        slowest = [max(each) for each in zip(*bounds, strict=True)]
        return spread([min(each) / bound for bound, *each in zip(slowest, *theirs, strict=True)])

    def more(self, name: str) -> Spread:
        """(time of ``name``) - (time of ours), of each round, in seconds."""
        assert self.ours
        pairs = zip(self.seconds[name], self.seconds[self.ours], strict=True)
        return spread([theirs - ours for theirs, ours in pairs])

    def of_limit(self, name: str) -> dict[str, Spread]:
        """By kind: the share of what the machine can do that ``name`` reaches."""
        found = {each.kind: self.ratio(name, [LIMIT + each.kind]) for each in self.limits if each.binds(name)}
        return {kind: share for kind, share in found.items() if share}

    def comparisons(self) -> list[Comparison]:
        """Everybody with ours, in order; then the goals that say something else."""
        goals = {(goal.ours, goal.peers, goal.of): goal.ratio for goal in self.goals}
        found = []
        if self.ours and self.device == "cpu":
            for name in self.seconds:
                if name != self.ours:
                    goal = goals.pop((self.ours, (name,), "time"), None)
                    found.append(self.comparison(self.ours, [name], name, goal))
        for (ours, peers, of), goal in goals.items():
            missing = [name for name in (ours, *peers) if not self.times(name, of)]
            here = [peer for peer in peers if peer not in missing]
            label = here[0] if len(here) == 1 else f"best of {', '.join(here or peers)}"
            why = f"without {', '.join(missing)}" if missing else ""
            if len(peers) == 1:
                label = peers[0]
            found.append(self.comparison(ours, peers, label, goal, why, of))
        return found

    def comparison(
        self, ours: str, peers: Sequence[str], label: str, goal: float | None, why: str = "", of: str = "time"
    ) -> Comparison:
        return Comparison(ours, label, self.ratio(ours, peers, of), goal, why, of, self.most(ours, peers, of))

    def as_json(self) -> dict[str, Any]:
        return {
            **asdict(self),
            "comparisons": [
                {
                    "ours": each.ours, "peer": each.peer, "of": each.of, "goal": each.goal, "verdict": each.verdict,
                    "why": each.why,
                    "ratio": each.ratio._asdict() if each.ratio else None,
                    "most": each.most._asdict() if each.most else None,
                }
                for each in self.comparisons()
            ],
        }  # fmt: skip

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> Result:
        given = {name: value for name, value in data.items() if name != "comparisons"}
        given["limits"] = [Limit(each["kind"], each["amount"], tuple(each["of"])) for each in data["limits"]]
        given["goals"] = [
            Goal(**{**each, "peer": each["peer"] if isinstance(each["peer"], str) else tuple(each["peer"])})
            for each in data["goals"]
        ]
        return cls(**given)


@dataclass
class Report:
    """All results of one machine, and the file that holds them."""

    machine: dict[str, Any]
    versions: dict[str, str]
    absent: dict[str, str]
    results: list[Result] = field(default_factory=list)

    def add(self, result: Result) -> None:
        """In place of an earlier result of the same case and number of threads."""
        for i, other in enumerate(self.results):
            if (other.case, other.threads) == (result.case, result.threads):
                self.results[i] = result
                return
        self.results.append(result)

    def in_order(self, names: Iterable[str]) -> list[Result]:
        """Most threads first, then as ``names`` has the cases; those it does not have come last."""
        order = {name: i for i, name in enumerate(names)}
        return sorted(self.results, key=lambda each: (-each.threads, order.get(each.case, len(order))))

    def write(self, path: Path) -> None:
        data = {
            "schema": SCHEMA, "version": VERSION, "machine": self.machine, "versions": self.versions,
            "absent": self.absent, "results": [result.as_json() for result in self.results],
        }  # fmt: skip
        part = path.with_suffix(path.suffix + ".part")
        part.write_text(json.dumps(data, indent=1) + "\n")
        part.replace(path)

    @classmethod
    def read(cls, path: Path) -> Report:
        """Raises ``ValueError`` where the file is of another schema or version."""
        data = json.loads(path.read_text())
        if data.get("schema") != SCHEMA or data.get("version") != VERSION:
            found = f"{data.get('schema')!r}, version {data.get('version')}"
            raise ValueError(f"{path} is {found}; this reads {SCHEMA!r}, version {VERSION}: measure it again")
        results = [Result.from_json(each) for each in data["results"]]
        return cls(data["machine"], data["versions"], data["absent"], results)
