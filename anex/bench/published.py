"""The published rows of a configuration."""

from __future__ import annotations

import math
from collections.abc import Mapping

from .. import published
from .record import Row


def rows(row: Row, table: tuple[str, str]) -> list[Mapping[str, str]]:
    """Those whose columns are what the configuration says they must be: of this table first, then of other tools."""
    match = row.config.match
    if not match:
        return []
    found = [line for line in published.rows() if all(_same(line.get(k, ""), v) for k, v in match.items())]
    return sorted(found, key=lambda line: not (line["source"].startswith(table[0]) and line["table"] == table[1]))


def _same(text: str, wanted: float | str) -> bool:
    if isinstance(wanted, str):
        return text == wanted
    try:
        return math.isclose(float(text), wanted, rel_tol=1e-6)
    except ValueError:
        return False


def said(line: Mapping[str, str]) -> str:
    """One row in a few words: its time, or its rate where no time was published."""
    figure = f"{float(line['ms']):.3f} ms" if line["ms"] else f"{float(line['tflops']):.2f} TFLOPS"
    return f"{figure} {line['chip']}"
