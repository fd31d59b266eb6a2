"""Reports that were written earlier, read and checked against their schema, ``report.schema.json``."""

from __future__ import annotations

import functools
import json
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from ..bench.report import SCHEMA
from ..errors import ArgumentError, FormatError

FILE = Path(__file__).parent / "report.schema.json"
Key = tuple[str, str, tuple[tuple[str, float], ...]]
"""Benchmark, label of the configuration, and its sizes: labels alone repeat."""


def load(path: Path) -> dict[str, Any]:
    """A JSON report, of one benchmark or of all, or a merged one: FormatError where it is neither, or has defects."""
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ArgumentError(f"{path} cannot be read: {error.strerror or error}") from error
    except (ValueError, RecursionError) as error:
        raise FormatError(f"{path} is no JSON: {error}") from error
    if not isinstance(found, dict) or not {"benchmarks", "reports"} & {*found}:
        raise FormatError(f"{path} is no report of anex bench: it has neither 'benchmarks' nor 'reports'")
    if found.get("schema_version") != SCHEMA:
        raise FormatError(f"{path} has the schema {found.get('schema_version')!r}, and this anex reads {SCHEMA}: "
                          "run the benchmarks again with it")  # fmt: skip
    if defect := defect_of(found):
        raise FormatError(f"{path} is no whole report of anex bench: {defect}; run the benchmarks again")
    return found


def defect_of(report: Mapping[str, Any]) -> str:
    """The first thing that the schema does not allow; empty where all is well."""
    from fastjsonschema import JsonSchemaException

    kind = "community" if "reports" in report else "machine"
    try:
        _checker(kind)(report)
    except JsonSchemaException as error:
        return str(error.message).replace("data", "the report", 1)
    return ""


@functools.cache
def _checker(kind: str) -> Callable[[Any], Any]:
    import fastjsonschema

    schema = json.loads(FILE.read_text(encoding="utf-8"))
    found: Callable[[Any], Any] = fastjsonschema.compile(
        {"$ref": f"#/definitions/{kind}", "definitions": schema["definitions"]}
    )
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
