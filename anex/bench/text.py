"""A run as people read it: the published columns, then what was published, then what is predicted, never mixed."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from ..devices.info import label
from . import published
from .machine import header
from .record import Row
from .running import Run

SHOWN = 3  # published rows beside one of ours


def cells(run: Run) -> list[list[str]]:
    """The table with its titles."""
    columns = run.benchmark.columns
    titles = [*(c.title for c in columns), f"predicted {run.chip}", "published"]
    return [titles, *([*own(run, row), prediction(row), others(run, row)] for row in run.rows)]


def own(run: Run, row: Row) -> list[str]:
    texts = [column.text(row) for column in run.benchmark.columns]
    if row.skipped:
        texts[-1] = f"SKIP({row.skipped})"
    elif row.failed:
        texts[-1] = "FAIL(" + "; ".join(row.failed.values()) + ")"
    return [*texts[:-1], " ".join([texts[-1], *(f"<-- {mark}" for mark in row.marks)])]


def prediction(row: Row) -> str:
    """Of each program; of several in turn their sum, whose interval nobody knows."""
    texts = []
    for name, several in row.predicted.items():
        ms = sum(each.ms for each in several)
        interval = f" ({several[0].low:.3f} to {several[0].high:.3f})" if len(several) == 1 else ""
        texts.append((f"{name} " if len(row.predicted) > 1 else "") + f"{ms:.3f} ms{interval}")
    return ", ".join(texts)


def others(run: Run, row: Row) -> str:
    found = published.rows(row, run.benchmark.table)
    return "; ".join(map(published.said, found[:SHOWN])) + (
        f"; {len(found) - SHOWN} more" if len(found) > SHOWN else ""
    )


def text(run: Run) -> str:
    lines = [f"=== {run.benchmark.title} ===", *header(run.device), *run.benchmark.before(**run.options)]
    return "\n".join([*lines, *aligned(cells(run)), *below_the_table(run)])


def below_the_table(run: Run) -> list[str]:
    lines = [*run.notes, *(f"AneWarning: {each.line}" for each in run.warned)]
    if any(not timing.steady for row in run.rows for timing in row.timings.values()):
        lines.append("not steady after the warm-up: " + ", ".join(
            row.config.label for row in run.rows if not all(t.steady for t in row.timings.values())))  # fmt: skip
    if run.interrupted:
        lines.append("interrupted: the rows above are whole, and others are missing")
    lines.append(f"Times are {label(run.device)}; the last two columns are others' figures and the cost model's.")
    return lines + sources(run)


def sources(run: Run) -> list[str]:
    """Who published what stands in the last column, and what is known to be wrong with it."""
    from ..published import defects

    said: dict[str, None] = {}
    for row in run.rows:
        for line in published.rows(row, run.benchmark.table)[:SHOWN]:
            known = "".join(f" ({defect})" for defect in defects(line))
            said[f"published: {line['chip']}, {line['source']}{known}"] = None
    return list(said)


def aligned(table: Sequence[Sequence[str]]) -> list[str]:
    """The first and the last two columns to the left, numbers to the right, a rule under the titles.

    >>> aligned([["Config", "ms", "p", "q"], ["32x", "1.25", "", "x"]])
    ['Config    ms  p  q', '------------------', '32x     1.25     x']
    """
    widths = [max(map(len, column)) for column in zip(*table, strict=True)]
    left = {0, len(widths) - 1, len(widths) - 2}
    lines = [
        "  ".join(t.ljust(w) if i in left else t.rjust(w) for i, (t, w) in enumerate(zip(row, widths, strict=True)))
        for row in table
    ]
    return [line.rstrip() for line in (lines[0], "-" * max(map(len, lines)), *lines[1:])]


def markdown(run: Run) -> str:
    titles, *rows = cells(run)

    def line(texts: Iterable[str]) -> str:
        return "| " + " | ".join(t.replace("|", "\\|") for t in texts) + " |"

    ruler = line(["---"] + ["---:"] * (len(titles) - 3) + ["---"] * 2)
    table = ["", line(titles), ruler, *map(line, rows)]
    said = [*header(run.device), *run.benchmark.before(**run.options)]
    below = [each for note in below_the_table(run) for each in ("", note)]
    return "\n".join([f"### {run.benchmark.title}", *(each for one in said for each in ("", one)), *table, *below])
