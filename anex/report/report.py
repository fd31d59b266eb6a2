"""What ``anex.profile`` finds, as values; ``text`` and ``page`` show it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from typing import Any

from ..cost.program import Cost
from ..placement import Explanation
from ..profiling import Profile
from .core_ml import PlannedOp
from .sequential import CORES, Conv, Estimate

PLACED = ("residency", "residency_by_cost", "segments", "transfers", "ops")  # what the JSON has of an explanation


@dataclass(frozen=True)
class Line:
    """All ops of one type: ``ms`` of them together, GFLOP, MiB of inputs, weights and outputs, share of all ``ms``."""

    op: str
    count: int
    ms: float
    gflop: float
    mib: float
    share: float
    bound: str

    @property
    def gb_per_s(self) -> float:
        """MiB per ms, which the published profiler calls GB/s."""
        return self.mib / self.ms if self.ms else 0.0


@dataclass(frozen=True)
class Breakdown:
    """Time by type of op, the most first. ``device``: "one core", "cpu" (measured) or a chip (predicted)."""

    device: str
    measured: bool
    lines: tuple[Line, ...]

    @property
    def ms(self) -> float:
        return sum(line.ms for line in self.lines)

    @property
    def gflop(self) -> float:
        return sum(line.gflop for line in self.lines)

    @property
    def mib(self) -> float:
        return sum(line.mib for line in self.lines)


def breakdown(device: str, measured: bool, ops: Iterable[tuple[str, float, float, float, str]]) -> Breakdown:
    """Of ops as (type, ms, GFLOP, MiB, bound)."""
    groups: dict[str, list[tuple[str, float, float, float, str]]] = {}
    for op in ops:
        groups.setdefault(op[0], []).append(op)
    total = sum(op[1] for some in groups.values() for op in some)
    lines = []
    for kind, some in groups.items():
        ms, gflop, mib = (sum(op[i] for op in some) for i in (1, 2, 3))  # type: ignore[misc]
        time_of: dict[str, float] = {}
        for op in some:
            time_of[op[4]] = time_of.get(op[4], 0.0) + op[1]
        bound = max(time_of, key=lambda name: time_of[name])
        lines.append(Line(kind, len(some), ms, gflop, mib, ms / total if total else 0.0, bound))
    return Breakdown(device, measured, tuple(sorted(lines, key=lambda line: -line.ms)))


@dataclass(frozen=True)
class Rates:
    """What follows from the ms of one call: calls/s, GFLOP/s, TOPS, MiB of weights per ms, speedup over one core.

    ``utilisation``: of 16 cores.
    """

    ms: float
    iterations_per_s: float
    gflops: float
    tops: float
    weight_gb_per_s: float
    speedup: float

    @property
    def utilisation(self) -> float:
        return self.speedup / CORES


def rates(ms: float, gflop: float, weight_mib: float, sequential_ms: float) -> Rates:
    """As the published profiler derives them."""
    return Rates(ms, 1e3 / ms, gflop / ms * 1e3, gflop / ms, weight_mib / ms, sequential_ms / ms)


@dataclass(frozen=True)
class Counts:
    """Ops of a function as its file counts them: ``total`` with constants; the others by the unit they run on."""

    total: int
    const: int
    by_unit: Mapping[str, int]
    cost_by_unit: Mapping[str, float]
    entries: int
    unique: int


@dataclass(frozen=True)
class Report:
    """``print`` it, or keep ``to_json`` or ``to_html``.

    ``sequential``: the published profiler's one-core estimate. ``predicted``: by ``anex.cost`` for ``chip``, and
    ``costs`` for every chip asked for. ``profile``: what was measured, or None and ``not_measured`` says why.
    ``explanation``: where each op runs, and why. ``core_ml``: Core ML's own plan, or ``no_core_ml`` says why not.
    """

    name: str
    size_bytes: int | None
    opset: str
    counts: Counts
    weight_mib: float
    estimates: tuple[Estimate, ...]
    sequential: Breakdown
    explanation: Explanation
    costs: tuple[Cost, ...]
    predicted: Breakdown | None
    roofs: tuple[float, float]
    profile: Profile | None
    measured: Breakdown | None
    not_measured: str
    core_ml: tuple[PlannedOp, ...]
    no_core_ml: str
    threshold: float

    @property
    def chip(self) -> str:
        return self.explanation.chip

    @property
    def units(self) -> str:
        return "All (CPU+GPU+ANE)" if self.explanation.units == "ALL" else "CPU+ANE"

    @property
    def convs(self) -> list[Conv]:
        return sorted((each for each in self.estimates if isinstance(each, Conv)), key=lambda each: -each.ms)

    @property
    def predicted_rates(self) -> Rates | None:
        return self._rates(self.costs[0].prediction.ms) if self.costs else None

    @property
    def measured_rates(self) -> Rates | None:
        return self._rates(self.profile.median * 1e3) if self.profile else None

    def _rates(self, ms: float) -> Rates:
        return rates(ms, self.sequential.gflop, self.weight_mib, self.sequential.ms)

    def __str__(self) -> str:
        from .text import lines

        return "\n".join(lines(self))

    def to_html(self) -> str:
        """A page with pictures that needs no other file."""
        from .page import page

        return page(self)

    def _repr_html_(self) -> str:
        from .page import fragment

        return fragment(self)

    def to_json(self) -> str:
        import json

        return json.dumps(self.as_dict(), indent=1)

    def as_dict(self) -> dict[str, Any]:
        """Everything, in plain values: ms, GFLOP, MiB; ``measured`` and ``predicted`` apart."""
        from ..cost.text import as_json

        placed = self.explanation.as_dict()
        return {
            "format": "anex.report",
            "version": 1,
            "model": {"name": self.name, "size_bytes": self.size_bytes, "format": "ML Program", "opset": self.opset},
            "compute": {"chip": self.chip, "units": self.units},
            "counts": asdict(self.counts),
            "weight_mib": self.weight_mib,
            "sequential": _table(self.sequential) | {"ops": [_estimate(each) for each in self.estimates]},
            "predicted": {"costs": as_json(self.costs)}
            | ({"by_type": _table(self.predicted)} if self.predicted else {})
            | ({"rates": asdict(self.predicted_rates)} if self.predicted_rates else {}),
            "measured": None
            if self.profile is None
            else {
                "device": self.profile.device,
                "runs": self.profile.repeat,
                "rates": asdict(self.measured_rates) if self.measured_rates else None,
                "by_type": _table(self.measured) if self.measured else None,
                "profile": self.profile.as_dict(),
            },
            "not_measured": self.not_measured,
            "placement": {name: placed[name] for name in PLACED},
            "core_ml_plan": [asdict(each) for each in self.core_ml],
            "no_core_ml_plan": self.no_core_ml,
        }  # fmt: skip


def _table(found: Breakdown) -> dict[str, Any]:
    return {
        "device": found.device, "measured": found.measured, "ms": found.ms, "gflop": found.gflop, "mib": found.mib,
        "lines": [asdict(line) | {"ms_per_op": line.ms / line.count, "gb_per_s": line.gb_per_s}
                  for line in found.lines],
    }  # fmt: skip


def _estimate(each: Estimate) -> dict[str, Any]:
    found = asdict(each) | {"ms": each.ms, "bound": each.bound}
    return found | ({"work_unit_efficiency": each.efficiency} if isinstance(each, Conv) else {})
