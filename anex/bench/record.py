"""What a benchmark is: configurations, what is run for each, and the columns that are told of it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from .timing import Effort, Timing

if TYPE_CHECKING:
    from coremltools.converters.mil.mil import Program

    from ..cost.model import Prediction

Make = Callable[[], "Program"]


@dataclass(frozen=True)
class Steps:
    """Programs called one after another, timed together. ``feeds``: of each the inputs that are the first output of an
    earlier one, by its number; what comes out are the outputs of the ``last`` programs."""

    parts: Sequence[Make]
    feeds: Sequence[Mapping[str, int]]
    last: int = 1


@dataclass(frozen=True)
class Config:
    """One row to be. ``facts``: its sizes and what follows from them alone; ``programs``: what is timed, by name, made
    when it is their turn; ``match``: columns of a published row of the same configuration; ``inputs``: arrays by name,
    where they matter; ``options``: of ``anex.compile``, by the program's name; ``peers``: other software's way
    of the same, each something that makes a call; ``threads``: of the CPU, all of them where 0; ``device``: the only
    one that has what it is about; ``missing``: why nothing has it; ``check``: numbers that follow from the outputs of
    all programs."""

    label: str
    facts: Mapping[str, float]
    programs: Mapping[str, Make | Steps]
    match: Mapping[str, float | str] = field(default_factory=dict)
    inputs: Mapping[str, Any] = field(default_factory=dict)
    options: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    peers: Mapping[str, Callable[[], Callable[[], object]]] = field(default_factory=dict)
    threads: int = 0
    device: str = ""
    missing: str = ""
    check: Callable[[Mapping[str, Any]], Mapping[str, float]] | None = None


@dataclass
class Row:
    """A configuration and what was found. ``failed``: the stage and reason, by program; ``skipped``: why it was not
    run at all; ``found``: checked numbers."""

    config: Config
    timings: dict[str, Timing] = field(default_factory=dict)
    predicted: dict[str, list[Prediction]] = field(default_factory=dict)
    failed: dict[str, str] = field(default_factory=dict)
    skipped: str = ""
    found: dict[str, Any] = field(default_factory=dict)
    stats: dict[str, Mapping[str, Any]] = field(default_factory=dict)
    marks: list[str] = field(default_factory=list)

    @property
    def status(self) -> str:
        return "SKIP" if self.skipped else "FAIL" if self.failed else "PASS"

    def ms(self, name: str = "") -> float:
        """Median milliseconds of a program; of the only one without a name. KeyError where it failed."""
        return self.timings[name or next(iter(self.config.programs), "")].ms

    def __getitem__(self, name: str) -> float:
        return self.config.facts[name]


@dataclass(frozen=True)
class Column:
    """``key`` in JSON, ``title`` as published, ``format`` of ``str.format``, ``value`` of a row (KeyError: none)."""

    key: str
    title: str
    format: str
    value: Callable[[Row], Any]
    unit: str = ""

    def text(self, row: Row) -> str:
        value = self.of(row)
        return "-" if value is None else self.format.format(value)

    def of(self, row: Row) -> Any:
        try:
            return self.value(row)
        except (KeyError, ZeroDivisionError):
            return None


@dataclass(frozen=True)
class Benchmark:
    """One published tool. ``source`` in words, and source and table in ``anex.published``; ``configs`` takes its own
    options; ``before`` and ``notes`` are lines above and below the table, the latter of all rows together; ``x``: the
    fact on the x axis of its picture; ``powered``: what the engine draws is read too, as ``found["power"]``;
    ``quick``: options of ``configs`` for a run that has little time, of which ``quick_rows`` are run, the smallest;
    ``usual``: how often the published tool calls."""

    name: str
    title: str
    source: str
    table: tuple[str, str]
    columns: Sequence[Column]
    configs: Callable[..., Iterable[Config]]
    before: Callable[..., Sequence[str]] = lambda **options: ()
    notes: Callable[[Sequence[Row]], Sequence[str]] = lambda rows: ()
    x: str = ""
    powered: bool = False
    quick: Mapping[str, Any] = field(default_factory=dict)
    quick_rows: int = 3
    usual: Effort = field(default_factory=Effort)

    def __reduce__(self) -> tuple[Callable[[str], Benchmark], tuple[str]]:
        return registered, (self.name,)  # in another process its functions are there, and need not travel


BENCHMARKS: dict[str, Benchmark] = {}


def registered(name: str) -> Benchmark:
    from . import tables

    return tables.benchmark(name)


def register(benchmark: Benchmark) -> Benchmark:
    if benchmark.name in BENCHMARKS:
        raise ValueError(f"benchmark {benchmark.name} is there twice")
    BENCHMARKS[benchmark.name] = benchmark
    return benchmark
