"""Runs as pictures: ours, what is predicted, and what others published, each in a colour of its own."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..devices.info import label
from ..errors import ArgumentError
from . import published
from .running import Run

if TYPE_CHECKING:
    from matplotlib.axes import Axes

AXES = {
    "depth": "layers", "weight_mb": "weights, MiB", "working_set_mb": "working set, MiB", "gflop": "GFLOP",
    "channels": "channels", "n": "n",
}  # fmt: skip
Points = list[tuple[float, float]]


def draw(runs: Sequence[Run], path: Path) -> None:
    """One picture, a panel a run, to a .png, .svg or .pdf. Needs matplotlib: ``pip install anex[plot]``."""
    try:
        from matplotlib.figure import Figure
    except ImportError as error:
        raise ArgumentError("drawing needs matplotlib, which is not installed: pip install 'anex[plot]'") from error
    figure = Figure(figsize=(8, 4.5 * len(runs)), layout="constrained")
    for axes, run in zip(figure.subplots(len(runs), squeeze=False)[:, 0], runs, strict=True):
        panel(axes, run)
    try:
        figure.savefig(path)
    except (ValueError, OSError) as error:
        raise ArgumentError(f"{path} cannot be drawn: {error}") from error


def panel(axes: Axes, run: Run) -> None:
    """Rates by size, both logarithmic."""
    x = axis(run)
    axes.set_title(run.benchmark.title)
    axes.set_xlabel(AXES.get(x, x))
    axes.set_ylabel("TFLOPS")
    axes.set_xscale("log")
    axes.set_yscale("log")
    for name, points, marker in (
        (f"{label(run.device)}: measured here", ours(run), "o"),
        (f"predicted for {run.chip}", predicted(run), "^"),
        *((f"published: {chip}", points, "x") for chip, points in others(run).items()),
    ):
        if points:
            axes.plot(
                *zip(*sorted(points), strict=True), marker=marker, linestyle="" if marker == "x" else "-", label=name
            )
    axes.grid(alpha=0.3)
    axes.legend(fontsize="small")


def axis(run: Run) -> str:
    """The fact on the x axis: the benchmark's, or what differs most between the rows."""
    if run.benchmark.x:
        return run.benchmark.x
    facts = [set(row.config.facts) for row in run.rows]
    known = [name for name in AXES if all(name in each for each in facts)]
    return max(known, key=lambda name: len({row[name] for row in run.rows}), default="gflop")


def ours(run: Run) -> Points:
    x = axis(run)
    return [(row[x], row["gflop"] / row.ms()) for row in run.rows if row.timings]


def predicted(run: Run) -> Points:
    x = axis(run)
    first: list[Any] = [(row, next(iter(row.predicted.values()), [])) for row in run.rows]
    return [(row[x], row["gflop"] / sum(p.ms for p in several)) for row, several in first if several]


def others(run: Run) -> dict[str, Points]:
    """By chip, of those that published a rate."""
    x = axis(run)
    found: dict[str, Points] = {}
    for row in run.rows:
        for line in published.rows(row, run.benchmark.table):
            if line["tflops"]:
                found.setdefault(line["chip"], []).append((row[x], float(line["tflops"])))
    return found
