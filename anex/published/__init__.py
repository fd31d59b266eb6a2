"""What others measured on Neural Engines: one table, ``measurements.csv``, for the cost model, benchmarks and docs.

Every row says who measured it (``source``; of the five source documents also the ``table``), on what (``chip``,
``ane_type``, ``os``), how (``path``: "private", "e5rt" or "coreml"), what (``workload`` and its sizes; MiB, GFLOP)
and the result (``ms``, ``tflops``, ``power_w`` in watts). Nothing here was measured by anex.
``use``: "fit" where the cost model rests on the row, "check" where its prediction is only compared with it.
``defect`` names what is known to be wrong with a row, separated by "; ": ``DEFECTS`` says what each means.
"""

from __future__ import annotations

import csv
import functools
from collections.abc import Mapping
from pathlib import Path

__all__ = ["DEFECTS", "FILE", "TABLES", "VERSION", "defects", "rows"]

VERSION = 1  # of the columns and their meaning
FILE = Path(__file__).parent / "measurements.csv"
DEFECTS = {
    "advertised": "what the maker advertises, measured by nobody",
    "blob": "the tool wrote a malformed weight file: every layer points at the same bytes, so the size of the weights "
    "is nominal, and sizes other than 512 channels failed on older systems for that reason",
    "chip assumed": "the source does not name its chip",
    "flat layout": "rank-2 data between products: the same block in rank 3 is 1.7 to 5 times faster",
    "mixed columns": "the published table mixes two models; the time is derived from its bandwidth column",
    "other host": "the file names another chip than the one it came from, and its copies are of another version",
    "prose": "a figure from running text, without its exact configuration",
    "rounded": "rounded to 0.01 ms, which is a tenth of the figure",
    "slow clock": "a run at a low clock: later runs on the same machine took a third of the time",
}
TABLES = {
    "seed000": ("profile", "peak", "peak_int8", "neo"),
    "seed001": ("matmul", "overhead", "peak"),
    "seed002": ("training", "breakdown", "peak", "inmem_bench", "sram_bench", "sram_probe"),
    "seed003": ("training", "overhead"),
    "seed004": ("peak",),
}


@functools.cache
def _all() -> tuple[Mapping[str, str], ...]:
    with FILE.open(newline="", encoding="utf-8") as file:
        return tuple(csv.DictReader(file))


def rows(*, source: str = "", table: str = "", chip: str = "") -> list[Mapping[str, str]]:
    """The rows whose ``source`` begins with that text, of that table and that chip; of all where nothing is given.

    >>> [row["ms"] for row in rows(source="seed000", table="peak")][:2]
    ['15.083', '11.401']
    """
    return [
        row for row in _all()
        if row["source"].startswith(source) and table in ("", row["table"]) and chip in ("", row["chip"])
    ]  # fmt: skip


def defects(row: Mapping[str, str]) -> list[str]:
    """What is wrong with a row, in sentences."""
    return [DEFECTS[name] for name in row.get("defect", "").split("; ") if name]
