"""Reports that were written earlier, read and checked."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from ..bench.report import SCHEMA
from ..errors import ArgumentError, FormatError

Key = tuple[str, str, tuple[tuple[str, float], ...]]
"""Benchmark, label of the configuration, and its sizes: labels alone repeat."""


def load(path: Path) -> dict[str, Any]:
    """A JSON report, of one benchmark or of all, or a merged one: FormatError where it is neither."""
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ArgumentError(f"{path} cannot be read: {error.strerror or error}") from error
    except ValueError as error:
        raise FormatError(f"{path} is no JSON: {error}") from error
    if not isinstance(found, dict) or not {"benchmarks", "reports"} & {*found}:
        raise FormatError(f"{path} is no report of anex bench: it has neither 'benchmarks' nor 'reports'")
    if found.get("schema_version") != SCHEMA:
        raise FormatError(f"{path} has the schema {found.get('schema_version')!r}, and this anex reads {SCHEMA}: "
                          "run the benchmarks again with it")  # fmt: skip
    return found


def rows(report: Mapping[str, Any]) -> Iterator[tuple[Key, Mapping[str, Any], Mapping[str, Any]]]:
    """Key, benchmark and row of each configuration."""
    for benchmark in report["benchmarks"]:
        for row in benchmark.get("rows", ()):
            facts = tuple(sorted(row.get("facts", {}).items()))
            yield (benchmark["name"], row["config"], facts), benchmark, row


def spread(row: Mapping[str, Any]) -> float:
    """The widest p10 to p90 of its timings, as a share of the median."""
    found = (t for t in row.get("timings", {}).values() if t["median_ms"] > 0)
    return max(((t["p90_ms"] - t["p10_ms"]) / t["median_ms"] for t in found), default=0.0)
