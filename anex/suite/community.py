"""Reports of several machines in one file: merging is a union, whatever the order and however often."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from ..bench.report import SCHEMA
from .gate import direction
from .reports import rows

KEPT = ("config", "facts", "values", "status", "failed", "skipped", "timings", "marks")
Report = Mapping[str, Any]


def merged(reports: Iterable[Report]) -> dict[str, Any]:
    """One machine's reports, or files merged earlier: ``reports`` by machine and date, each once."""
    single = (each for report in reports for each in (report["reports"] if "reports" in report else [slim(report)]))
    several = {json.dumps(each, sort_keys=True): each for each in single}
    return {"schema_version": SCHEMA, "kind": "community", "reports": sorted(several.values(), key=_order)}


def _order(report: Report) -> tuple[str, ...]:
    system = report["system"]
    return (str(system["chip"]), str(system["machine"]), system["device"], report["date"],
            json.dumps(report, sort_keys=True))  # fmt: skip


def slim(report: Report) -> dict[str, Any]:
    """What others compare with: no predictions, no published rows."""
    return {
        "date": report["date"], "system": dict(report["system"]),
        "benchmarks": [
            {"name": each["name"], "title": each.get("title", each["name"]), "columns": each["columns"],
             "rows": [{name: row[name] for name in KEPT if name in row} for row in each["rows"]]}
            for each in report["benchmarks"] if each.get("rows")
        ],
        "probes": [{name: each[name] for name in ("name", "status", "key", "verdict")}
                   for each in report.get("probes", ())],
    }  # fmt: skip


def who(report: Report) -> str:
    """Chip, machine and what the figures are: ``ane``, ``cpu`` or ``double``."""
    system = report["system"]
    return f"{system['chip']} ({system['device']}), {report['date'][:10]}"


def markdown(community: Report) -> str:
    """A table for each benchmark, a column for each machine; of each row the first value that is a figure of merit."""
    reports: Sequence[Report] = community["reports"]
    lines = ["# Benchmarks by machine", ""]
    lines += [f"- {i + 1}: {who(each)}; {each['system']['machine']}, {each['system']['system']}, "
              f"anex {each['system']['anex']}" for i, each in enumerate(reports)]  # fmt: skip
    lines += ["", "ane and cpu were measured on that device; double is the stand-in of the tests, no hardware."]
    return "\n".join([*lines, *_tables(reports), *_probes(reports)]) + "\n"


def _tables(reports: Sequence[Report]) -> Iterator[str]:
    found: dict[str, dict[Any, dict[int, str]]] = {}
    titles: dict[str, str] = {}
    for number, report in enumerate(reports):
        for key, benchmark, row in rows(report):
            titles[key[0]] = benchmark["title"]
            found.setdefault(key[0], {}).setdefault(key, {})[number] = _told(benchmark["columns"], row)
    for name, configs in found.items():
        yield from ("", f"## {titles[name]}", "", _line(["Config", *(f"{i + 1}" for i in range(len(reports)))]),
                    _line(["---", *["---:"] * len(reports)]))  # fmt: skip
        repeated = len({key[1] for key in configs}) < len(configs)
        for key, cells in configs.items():
            label = key[1] + (f" ({', '.join(f'{n} {v:g}' for n, v in key[2])})" if repeated else "")
            yield _line([label, *(cells.get(i, "") for i in range(len(reports)))])


def _told(columns: Sequence[Mapping[str, str]], row: Mapping[str, Any]) -> str:
    if row["status"] != "PASS":
        return str(row["status"])
    told = [f"{row['values'][c['key']]:.4g} {c['unit']}" for c in columns
            if direction(c["unit"]) and row["values"].get(c["key"]) is not None]  # fmt: skip
    return ", ".join(told)


def _probes(reports: Sequence[Report]) -> Iterator[str]:
    names = dict.fromkeys(each["name"] for report in reports for each in report["probes"])
    if not names:
        return
    yield from ("", "## Probes", "", _line(["Probe", *(f"{i + 1}" for i in range(len(reports)))]),
                _line(["---"] * (1 + len(reports))))  # fmt: skip
    for name in names:
        yield _line([name, *(
            next((f"{p['status']}: {p['key']}" if p["key"] else p["status"] for p in report["probes"]
                  if p["name"] == name), "") for report in reports
        )])  # fmt: skip


def _line(cells: Iterable[str]) -> str:
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"
