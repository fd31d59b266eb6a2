"""The published tables: from their own times, our columns must give their own figures, to their rounding."""

from __future__ import annotations

import pytest

from anex.bench import tables
from anex.bench.record import BENCHMARKS, Config, Row
from anex.bench.tables.sram import marked
from anex.bench.timing import Timing

# ---- as printed by the published tools ------------------------------------------------------------------------------

PEAK_000 = """
128x conv 512ch 64x64 | 64.0 | 274.88 | 15.083 ms | 18.22 | 90.9% | 278
96x conv 512ch 64x64 | 48.0 | 206.16 | 11.401 ms | 18.08 | 90.2% | 276
64x conv 512ch 64x64 | 32.0 | 137.44 | 7.749 ms | 17.74 | 88.4% | 271
128x conv 384ch 64x64 | 36.0 | 154.62 | 8.727 ms | 17.72 | 88.3% | 270
256x conv 256ch 64x64 | 32.0 | 137.44 | 7.837 ms | 17.54 | 87.4% | 268
128x conv 256ch 64x64 | 16.0 | 68.72 | 4.012 ms | 17.13 | 85.4% | 261
"""
INT8_000 = """
128x conv 512ch 64x64 | 32.0 | 274.88 | 8.032 ms | 34.22 | 170.6% | 85.3% | 522
96x conv 512ch 64x64 | 24.0 | 206.16 | 6.012 ms | 34.29 | 171.0% | 85.5% | 523
64x conv 512ch 64x64 | 16.0 | 137.44 | 4.111 ms | 33.44 | 166.7% | 83.4% | 510
128x conv 384ch 64x64 | 18.0 | 154.62 | 4.663 ms | 33.16 | 165.3% | 82.7% | 506
128x conv 256ch 64x64 | 8.0 | 68.72 | 2.235 ms | 30.74 | 153.3% | 76.7% | 469
"""
PEAK_002 = """
32x conv 512ch sp64 | 16.0 | 1.07 | 0.408 ms | 2.63
48x conv 512ch sp64 | 24.0 | 1.61 | 0.262 ms | 6.15
64x conv 512ch sp64 | 32.0 | 2.15 | 0.244 ms | 8.80
96x conv 512ch sp64 | 48.0 | 3.22 | 0.326 ms | 9.89
128x conv 512ch sp64 | 64.0 | 4.29 | 0.385 ms | 11.14
64x conv 256ch sp64 | 8.0 | 0.54 | 0.365 ms | 1.47
128x conv 256ch sp64 | 16.0 | 1.07 | 0.454 ms | 2.37
256x conv 256ch sp64 | 32.0 | 2.15 | 0.351 ms | 6.11
64x conv 384ch sp64 | 18.0 | 1.21 | 0.429 ms | 2.82
128x conv 384ch sp64 | 36.0 | 2.42 | 0.354 ms | 6.82
"""
INMEM_002 = """
256ch x64sp | 0.1 | 0.319 ms | 0.03
512ch x64sp | 0.5 | 0.357 ms | 0.09
1024ch x64sp | 2.0 | 0.457 ms | 0.29
2048ch x64sp | 8.0 | 0.254 ms | 2.11
3072ch x64sp | 18.0 | 0.389 ms | 3.10
4096ch x64sp | 32.0 | 1.148 ms | 1.87
"""
SRAM_002 = """
256ch x 64sp | 0.1 | 0.03 | 0.2 | 0.378 ms | 0.02
512ch x 64sp | 0.5 | 0.06 | 0.6 | 0.389 ms | 0.09
1024ch x 64sp | 2.0 | 0.12 | 2.2 | 0.392 ms | 0.34
2048ch x 64sp | 8.0 | 0.25 | 8.5 | 0.218 ms | 2.47
3072ch x 64sp | 18.0 | 0.38 | 18.8 | 0.396 ms | 3.05
4096ch x 64sp | 32.0 | 0.50 | 33.0 | 1.116 ms | 1.92
5120ch x 64sp | 50.0 | 0.62 | 51.2 | 0.767 ms | 4.38
6144ch x 64sp | 72.0 | 0.75 | 73.5 | 0.872 ms | 5.54
8192ch x 32sp | 128.0 | 0.50 | 129.0 | 4.195 ms | 1.02
"""
FINE_002 = """
256 ch | 0.1 | 0.378 ms | 0.02 | 177.7
512 ch | 0.5 | 0.431 ms | 0.08 | 155.6
1024 ch | 2.0 | 0.411 ms | 0.33 | 163.5
1536 ch | 4.5 | 0.493 ms | 0.61 | 136.1
2048 ch | 8.0 | 0.410 ms | 1.31 | 163.9
2560 ch | 12.5 | 0.237 ms | 3.53 | 282.6 <-- peak efficiency
3072 ch | 18.0 | 0.335 ms | 3.60 | 200.1
3584 ch | 24.5 | 0.414 ms | 3.97 | 162.1
4096 ch | 32.0 | 1.134 ms | 1.89 | 59.2 <-- spilling
4608 ch | 40.5 | 0.563 ms | 4.83 | 119.2
5120 ch | 50.0 | 0.659 ms | 5.09 | 101.8
6144 ch | 72.0 | 0.844 ms | 5.73 | 79.5 <-- spilling
8192 ch | 128.0 | 4.203 ms | 1.02 | 8.0 <-- catastrophic spilling
"""
PUBLISHED = {
    ("peak", "seed000"): PEAK_000, ("int8", ""): INT8_000, ("peak", "seed002"): PEAK_002, ("inmem", ""): INMEM_002,
    ("sram", ""): SRAM_002, ("sram-fine", ""): FINE_002,
}  # fmt: skip
TITLES = {
    "peak": "Config W(MB) GFLOP ms/eval TFLOPS %peak Est.MHz",
    "int8": "Config W(MB) GOP ms/eval TOPS %fp16 %int8 Est.MHz",
    "inmem": "Config W(MB) ms/eval TFLOPS",
    "sram": "Config W(MB) Act(MB) Tot(MB) ms/eval TFLOPS",
    "sram-fine": "Channels W(MB) ms/eval TFLOPS GFLOPS/MB",
    "matmul": "n GFLOP MB ms/eval p90 TFLOPS",
    "fused-1": "L fused ms seq ms speedup overhead us/dispatch",
    "fused-2": "C S Layers ms/eval TFLOPS Eff%",
}
del tables  # imported for what it registers


def lines(text: str) -> list[list[str]]:
    return [[cell.strip() for cell in line.split("|")] for line in text.strip().splitlines()]


ROUNDED = 0.0005  # ms: the published times may be as much more or less


def published_ms(cells: list[str]) -> float:
    return next(float(cell.removesuffix(" ms")) for cell in cells if cell.endswith(" ms"))


def timed(config: Config, ms: float) -> Row:
    """The row of a machine that took that long."""
    return Row(config, {next(iter(config.programs)): Timing((ms / 1e3,), 0, True)})


def rows(name: str, preset: str) -> list[tuple[Config, list[str]]]:
    options = {"preset": preset} if preset else {}
    return list(zip(BENCHMARKS[name].configs(**options), lines(PUBLISHED[name, preset]), strict=True))


def number(text: str) -> float:
    return float(text.rstrip("%").removesuffix(" ms"))


@pytest.mark.parametrize(("name", "preset"), PUBLISHED)
def test_our_columns_give_the_published_figures_from_the_published_times(name, preset):
    """Rates were computed from the times before these were rounded: they lie between those of both ends."""
    for config, cells in rows(name, preset):
        ms = published_ms(cells)
        ends = [timed(config, ms - ROUNDED), timed(config, ms), timed(config, ms + ROUNDED)]
        assert config.label == cells[0]
        for column, cell in zip(BENCHMARKS[name].columns[1:], cells[1:], strict=False):
            theirs = number(cell.partition(" <--")[0])
            few, same, many = (number(column.text(row)) for row in ends)
            assert same == theirs or min(few, many) <= theirs <= max(few, many), (config.label, column.title)


@pytest.mark.parametrize("name", TITLES)
def test_the_columns_are_those_of_the_published_tool_in_its_order(name):
    assert " ".join(column.title for column in BENCHMARKS[name].columns) == TITLES[name]


def test_the_fine_probe_marks_the_published_rows_as_they_were_marked():
    found = [(timed(config, published_ms(cells)), cells) for config, cells in rows("sram-fine", "")]
    notes = marked([row for row, _ in found])
    assert ["; ".join(row.marks) for row, _ in found] == [cells[-1].partition(" <-- ")[2] for _, cells in found]
    assert [note.partition(":")[0] for note in notes] == [
        "Peak efficiency at 2560ch (12.5 MB weights)", "On-chip memory", "First spill at 4096ch (32.0 MB)",
        "Catastrophic at 8192ch (128.0 MB)", "Recovers at 4608ch, 5120ch",
    ]  # fmt: skip
    assert notes[1] == "On-chip memory: approx 24-32 MB"


def test_the_peak_of_the_second_document_is_the_published_one():
    found = [timed(config, published_ms(cells)) for config, cells in rows("peak", "seed002")]
    (note,) = BENCHMARKS["peak"].notes(found)
    assert note.endswith("TFLOPS (128x conv 512ch sp64, 64 MB weights)")
