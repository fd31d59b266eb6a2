"""Runs as JSON: what was measured, what was predicted and what was published stand in fields of their own."""

from __future__ import annotations

import datetime
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

from ..devices.info import label
from . import published
from .machine import facts
from .record import Row
from .running import Run
from .timing import Timing

SCHEMA = 1


def as_json(runs: Sequence[Run], device: str) -> dict[str, Any]:
    """The report of several runs on one machine. ``schema_version`` grows when a field changes its meaning."""
    now = datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds")
    return {
        "schema_version": SCHEMA,
        "date": now,
        "system": dict(facts(device)),
        "benchmarks": [run_as_json(run) for run in runs],
    }


def run_as_json(run: Run) -> dict[str, Any]:
    return {
        "name": run.benchmark.name,
        "title": run.benchmark.title,
        "source": run.benchmark.source,
        "device": label(run.device),
        "options": dict(run.options),
        "interrupted": run.interrupted,
        "columns": [{"key": c.key, "title": c.title, "unit": c.unit} for c in run.benchmark.columns],
        "rows": [_row(run, row) for row in run.rows],
        "notes": list(run.notes),
        "warnings": [asdict(each) for each in run.warned],
    }


def _row(run: Run, row: Row) -> dict[str, Any]:
    return {
        "config": row.config.label,
        "facts": dict(row.config.facts),
        "values": {column.key: column.of(row) for column in run.benchmark.columns},
        "status": row.status,
        "failed": dict(row.failed),
        "skipped": row.skipped,
        "marks": list(row.marks),
        "timings": {name: _timing(timing) for name, timing in row.timings.items()},
        "predicted": {
            "chip": run.chip,
            "programs": {
                name: [{"ms": p.ms, "low_ms": p.low, "high_ms": p.high, "bound": p.bound} for p in several]
                for name, several in row.predicted.items()
            },
        },
        "published": [dict(line) for line in published.rows(row, run.benchmark.table)],
    }


def _timing(timing: Timing) -> Mapping[str, Any]:
    """Milliseconds."""
    return {
        "median_ms": timing.ms, "p10_ms": 1e3 * timing.p10, "p90_ms": 1e3 * timing.p90, "calls": len(timing.seconds),
        "warm_up": timing.warmed, "steady": timing.steady,
    }  # fmt: skip
