"""What one line of a run tells: the JSON records of the published trainer, and the lines it prints for people."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

PARTS = ("ane", "io", "cls", "elem", "rms", "cblas_wait")
"""The components of a step in the records, each ``t_NAME`` there, in milliseconds."""


@dataclass(frozen=True)
class Step:
    """A step's loss; ``parts`` in milliseconds, of the steps of its batch so far; ``ms`` of the step, where told."""

    number: int
    loss: float
    parts: dict[str, float] = field(default_factory=dict)
    compiles: int | None = None
    rate: float | None = None
    ms: float | None = None


@dataclass(frozen=True)
class Batch:
    """Steps that made one update: milliseconds of all of them, and of one."""

    steps: int
    compile_ms: float
    train_ms: float
    ms_per_step: float
    compiles: int | None = None


@dataclass(frozen=True)
class Parts:
    """Where the time of a step goes, milliseconds by name."""

    ms: dict[str, float]


@dataclass(frozen=True)
class Speed:
    """TFLOPS of the Neural Engine, and percent of what the published trainer takes for its peak."""

    tflops: float
    percent: float


@dataclass(frozen=True)
class Begun:
    """The first line of a run."""

    title: str


@dataclass(frozen=True)
class Facts:
    """Of the model and its training, by name."""

    values: dict[str, Any]


@dataclass(frozen=True)
class Kept:
    """The run has a checkpoint of this step."""

    step: int


@dataclass(frozen=True)
class Summary:
    """One line of the report at the end."""

    name: str
    value: str


@dataclass(frozen=True)
class Unknown:
    """A JSON object that is none of the records; ``why`` in a few words."""

    why: str


LONGEST = 4000
"""Characters of a line for people that is looked at; those that tell something have a hundred."""

Event = Step | Batch | Parts | Speed | Begun | Facts | Kept | Summary | Unknown

NUMBER = r"[-+]?(?:\d+\.?\d*(?:[eE][-+]?\d+)?|nan|inf(?:inity)?)"
TIME = r"\d{1,12}(?:\.\d{1,6})?"
PART = re.compile(rf"(\w+)=({TIME})(?=\s|$)")
NOT_JSON = re.compile(r"(?<=[:,\[])\s*(-?)(nan|inf(?:inity)?)(?=\s*[,}\]])", re.IGNORECASE)  # as C prints them


def _parts(line: str) -> Parts | None:
    found = {name: float(value) for name, value in PART.findall(line)}
    return Parts(found) if len(found) > 1 else None


def _optional(text: str | None) -> float | None:
    return None if text is None else float(text)


FORMS: tuple[tuple[re.Pattern[str], Callable[[re.Match[str]], Event | None]], ...] = tuple(
    (re.compile(pattern.replace("NUMBER", NUMBER).replace("TIME", TIME)), made)
    for pattern, made in (
        (
            r"^step\s+(\d+)\s+loss=(NUMBER)(?:\s|$)(?:.*?\blr=(NUMBER))?(?:.*?\s(TIME)ms/step)?",
            lambda m: Step(int(m[1]), float(m[2]), rate=_optional(m[3]), ms=_optional(m[4])),
        ),
        (
            r"\[batch (\d+): compile=(TIME)ms train=(TIME)ms \((TIME)ms/step\) compiles=(\d+)\]",
            lambda m: Batch(int(m[1]), float(m[2]), float(m[3]), float(m[4]), int(m[5])),
        ),
        (r"^\s+(?:timing: )?(?:\w+=TIME(?:\s+|$))+(?:ms/step)?$", lambda m: _parts(m[0])),
        (r"^=== (.*[Tt]raining.*?) ===$", lambda m: Begun(m[1])),
        (
            r"^dim=(\d+) hidden=(\d+) heads=(\d+) seq=(\d+) vocab=(\d+) layers=(\d+)",
            lambda m: Facts(dict(zip(("dim", "hidden", "heads", "seq", "vocab", "layers"), map(int, m.groups()),
                                     strict=True))),
        ),
        (
            r"^Params: (TIME)M \(transformer (TIME)M \+ embed (TIME)M\)",
            lambda m: Facts({"params": float(m[1]), "transformer": float(m[2]), "embed": float(m[3])}),
        ),
        (
            r"^Kernels: (\d+)\D+(\d+) weight-bearing",
            lambda m: Facts({"kernels": int(m[1]), "weight_bearing": int(m[2])}),
        ),
        (r"^Accum (\d+) .*LR=(NUMBER)", lambda m: Facts({"accum": int(m[1]), "lr": float(m[2])})),
        (r"^FLOPs/step: .*total=(TIME)M", lambda m: Facts({"mflop": float(m[1])})),
        (r"^ANE FLOPs/step: (TIME)M", lambda m: Facts({"ane_mflop": float(m[1])})),
        (r"Compiled (\d+) kernels in (\d+)ms", lambda m: Facts({"compiled": int(m[1]), "compiled_ms": int(m[2])})),
        (r"^\[(?:checkpoint saved: |exec\(\) restart |RESUMED )step (\d+)", lambda m: Kept(int(m[1]))),
        (
            r"^(Total steps|Wall time|Compile time|Compile|Train time|Avg compile|Avg train|ANE TFLOPS|Total TFLOPS"
            r"|ANE utilization|Recompilations):\s+(.+)$",
            lambda m: Summary(m[1], m[2].strip()),
        ),
    )
)  # fmt: skip


def read(line: str) -> Event | None:
    """What a whole line tells; None where it is but text.

    >>> read('{"type":"step","step":3,"loss":nan,"t_ane":1.5,"compiles":72}')
    Step(number=3, loss=nan, parts={'ane': 1.5}, compiles=72, rate=None, ms=None)
    >>> read("    ane=15.9 io=3.8 ms/step")
    Parts(ms={'ane': 15.9, 'io': 3.8})
    >>> read("Token data: 20658981 tokens (41.3 MB)")
    """
    if line.lstrip().startswith("{"):
        return record(line)
    for pattern, made in FORMS if len(line) <= LONGEST else ():
        if found := pattern.search(line):
            return made(found)
    return None


def record(line: str) -> Event | None:
    """What a line that begins as a JSON object tells; None where it is none, as one that was cut off."""
    try:
        found = json.loads(line)
    except (ValueError, RecursionError):
        mended = NOT_JSON.sub(lambda m: f"{m[1]}Infinity" if m[2][0] in "iI" else "NaN", line)
        try:
            found = json.loads(mended)
        except (ValueError, RecursionError):
            return None
    kind = found.get("type")
    try:
        return RECORDS[kind](found) if isinstance(kind, str) and kind in RECORDS else Unknown(f"type {kind!r:.30}")
    except _MisfitError as misfit:
        return Unknown(f"{kind} without {misfit}")


class _MisfitError(Exception):
    """A field that is missing, or no number."""


def _number(found: dict[str, Any], name: str) -> float:
    value = found.get(name)
    try:
        if isinstance(value, int | float) and not isinstance(value, bool):
            return float(value)
    except OverflowError:
        pass
    raise _MisfitError(name)


def _measured(found: dict[str, Any], name: str) -> float:
    """What was measured is finite, not below 0, and no more than the age of the world."""
    value = _number(found, name)
    if not 0 <= value < 1e15:
        raise _MisfitError(name)
    return value


def _whole(found: dict[str, Any], name: str) -> int:
    value = found.get(name)
    if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value < 1 << 53:
        raise _MisfitError(name)
    return value


def _step(found: dict[str, Any]) -> Step:
    parts = {}
    for name in found:
        if name.startswith("t_"):
            with suppress(_MisfitError):  # the loss counts without it
                parts[name[2:]] = _measured(found, name)
    compiles = _whole(found, "compiles") if "compiles" in found else None
    return Step(_whole(found, "step"), _number(found, "loss"), parts, compiles)


def _batch(found: dict[str, Any]) -> Batch:
    compile_ms, train_ms, each = (_measured(found, name) for name in ("compile_ms", "train_ms", "ms_per_step"))
    return Batch(_whole(found, "batch"), compile_ms, train_ms, each)


RECORDS: dict[str, Callable[[dict[str, Any]], Event]] = {
    "step": _step,
    "batch": _batch,
    "perf": lambda found: Speed(_measured(found, "ane_tflops"), _measured(found, "ane_util_pct")),
}
