"""What is known of a run from the lines that it wrote."""

from __future__ import annotations

import re
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from .curve import LIMIT, Curve
from .records import PARTS, Batch, Begun, Event, Facts, Kept, Parts, Speed, Step, Summary, Unknown, read

ESCAPE = re.compile(r"\x1b(?:\[[0-?]*[ -/]*[@-~]|\][^\x07\x1b]*(?:\x07|\x1b\\)?|[ -/]*[0-~])")
LOGGED = 2000
"""Lines of the log that are kept, and characters of each."""


KINDS = {Step: "step", Batch: "batch", Parts: "batch"}


@dataclass(frozen=True)
class LogLine:
    """``kind``: text, step, batch, record, stderr or note; a note is this program's own."""

    text: str
    kind: str


def plain(event: Event | None) -> str:
    """A record as a line of the log; empty for those that it leaves out."""
    if isinstance(event, Step):
        return f"step {event.number}  loss {event.loss:.5g}"
    if isinstance(event, Batch):
        return f"  batch of {event.steps}: {event.ms_per_step:.1f} ms/step, compile {event.compile_ms:.0f} ms"
    return ""


def clean(text: str) -> str:
    """Without what would move a terminal's cursor, colour it, or turn its text around."""
    bare = ESCAPE.sub("", text).expandtabs(4)
    return "".join(c for c in bare if c.isprintable())[:LOGGED]


class Told:
    """What one form tells, the records or the lines for people. A run may write both, each complete."""

    def __init__(self) -> None:
        self.curve = Curve()
        self.batches: list[tuple[int, float, float]] = []  # last step, compile and train ms of all until then
        self.parts: dict[str, float] = {}
        self.ms_per_step: float | None = None
        self.batch_parts: dict[str, float] | None = None  # as they were when ms_per_step was told

    def step(self, step: Step) -> None:
        while self.batches and self.batches[-1][0] >= step.number:  # what is done again
            self.batches.pop()
        self.curve.add(step.number, step.loss)
        self.parts = step.parts or self.parts
        self.ms_per_step = self.ms_per_step if step.ms is None else step.ms

    def batch(self, batch: Batch) -> None:
        _, compiled, trained = self.batches[-1] if self.batches else (0, 0.0, 0.0)
        last = self.curve.last[0] if self.curve.last else 0
        self.batches.append((last, compiled + batch.compile_ms, trained + batch.train_ms))
        if len(self.batches) > LIMIT:
            del self.batches[:-1:2]
        self.ms_per_step, self.batch_parts = batch.ms_per_step, dict(self.parts)


@dataclass
class Run:
    """A run so far. ``steps``: of it in all, where that is known; ``title``: until it names itself."""

    title: str = ""
    steps: int | None = None
    facts: dict[str, Any] = field(default_factory=dict)
    summary: dict[str, str] = field(default_factory=dict)
    speed: Speed | None = None
    compiles: int | None = None
    kept: int | None = None  # the step of its checkpoint
    records: Told = field(default_factory=Told)
    lines: Told = field(default_factory=Told)
    log: deque[LogLine] = field(default_factory=lambda: deque(maxlen=LOGGED))
    read_lines: int = 0
    logged: int = 0  # lines that ever were in it
    unknown: int = 0
    errors: deque[str] = field(default_factory=lambda: deque(maxlen=20))  # what it last wrote to stderr, but records
    listeners: list[Callable[[Event], None]] = field(default_factory=list)

    @property
    def told(self) -> Told:
        """The records where there are any: they have more digits."""
        return self.records if self.records.curve.last else self.lines

    @property
    def compile_share(self) -> float | None:
        """Of the time that batches took, compiling and training, from 0 to 1."""
        _, compiled, trained = self.told.batches[-1] if self.told.batches else (0, 0.0, 0.0)
        return compiled / (compiled + trained) if compiled + trained > 0 else None

    def components(self) -> dict[str, float]:
        """Milliseconds of a step by part, of the last batch; ``other`` is what no part says, where that is known."""
        told = self.told
        found = told.parts if told.batch_parts is None else told.batch_parts
        ordered = {name: found[name] for name in (*PARTS, *found) if name in found}
        rest = 0.0 if told.ms_per_step is None else told.ms_per_step - sum(ordered.values())
        return {**ordered, "other": rest} if ordered and rest >= 0.05 else ordered

    def left(self) -> float | None:
        """Seconds until the last step, by the time of the last batch."""
        told = self.told
        if self.steps is None or told.ms_per_step is None or told.curve.last is None:
            return None
        return max(0, self.steps - 1 - told.curve.last[0]) * told.ms_per_step / 1e3

    def read(self, line: str, stream: str = "file") -> None:
        """A line that is whole."""
        event = read(line)
        self.read_lines += 1
        is_record = event is not None and line.lstrip().startswith("{")
        if event is not None:
            self._take(event, self.records if is_record else self.lines)
            for listener in self.listeners:
                listener(event)
        if not is_record or isinstance(event, Unknown):
            self._log(clean(line), event, stream)
        elif self.lines.curve.last is None and (told := plain(event)):  # else the lines tell the same
            self._log(told, event, stream)

    def _log(self, text: str, event: Event | None, stream: str) -> None:
        kind = "record" if isinstance(event, Unknown) else KINDS.get(type(event), "text")
        if event is None and stream == "stderr":
            kind = stream
            if text.strip():
                self.errors.append(text)
        self.note(text, kind)

    def cut(self, line: str, stream: str = "file") -> None:
        """A line without its end: a record tells by its last brace whether it is whole, nothing else does."""
        if line.rstrip().endswith("}") and read(line) is not None:
            self.read(line, stream)
        elif line.strip():
            self._log(clean(line), None, stream)

    def note(self, text: str, kind: str = "note") -> None:
        self.log.append(LogLine(text, kind))
        self.logged += 1

    def _take(self, event: Event, told: Told) -> None:
        if isinstance(event, Step):
            told.step(event)
            self.compiles = self.compiles if event.compiles is None else event.compiles
            if event.rate is not None:
                self.facts["lr"] = event.rate
        elif isinstance(event, Batch):
            told.batch(event)
            self.compiles = self.compiles if event.compiles is None else event.compiles
        elif isinstance(event, Parts):
            told.parts = event.ms
            told.batch_parts = None if told.batch_parts is None else event.ms
        elif isinstance(event, Speed):
            self.speed = event
        elif isinstance(event, Begun):
            self.title, self.facts, self.summary = clean(event.title), {}, {}
        elif isinstance(event, Facts):
            self.facts.update(event.values)
        elif isinstance(event, Kept):
            self.kept = event.step
        elif isinstance(event, Summary):
            self.summary[event.name] = clean(event.value)
        else:
            self.unknown += 1
