"""Runs as pictures: ours, what is predicted, and what others published, each in a colour of its own."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from .. import files
from ..devices.info import label
from ..errors import ArgumentError
from ..published import rows as published_rows
from . import published
from .running import Run

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

AXES = {
    "depth": "layers", "weight_mb": "weights, MiB", "working_set_mb": "working set, MiB", "gflop": "GFLOP",
    "channels": "channels", "n": "n", "total_mb": "weights and activations, MiB",
}  # fmt: skip
COLOURS = (*range(0, 14, 2), *range(16, 20, 2), *range(1, 14, 2), *range(17, 20, 2))  # of tab20: grey is predicted
Points = list[tuple[float, float]]


def figure(panels: int = 1) -> tuple[Figure, Sequence[Axes]]:
    """An empty picture of so many panels, one above the other. Needs matplotlib: ``pip install anex[plot]``."""
    try:
        from matplotlib.figure import Figure
    except ImportError as error:
        raise ArgumentError("drawing needs matplotlib, which is not installed: pip install 'anex[plot]'") from error
    made = Figure(figsize=(8, 4.5 * panels), layout="constrained")
    return made, list(made.subplots(panels, squeeze=False)[:, 0])


def drawable(path: Path) -> None:
    """ArgumentError where a picture cannot be written there."""
    made, _ = figure()
    known = made.canvas.get_supported_filetypes()
    if path.suffix.removeprefix(".").lower() not in known:
        raise ArgumentError(
            f"--plot {path}: the name ends in none of {', '.join(f'.{each}' for each in sorted(known))}"
        )
    files.writable(path, "--plot")


def save(made: Figure, path: Path) -> None:
    try:
        made.savefig(path)
    except (ValueError, OSError) as error:
        raise ArgumentError(f"{path} cannot be drawn: {error}") from error


def draw(runs: Sequence[Run], path: Path) -> None:
    """One picture, a panel a run, to a .png, .svg or .pdf."""
    made, panels = figure(len(runs))
    for axes, run in zip(panels, runs, strict=True):
        panel(axes, run)
    save(made, path)


def panel(axes: Axes, run: Run, x: str = "") -> None:
    """Rates by size, both logarithmic. ``x``: the fact on the x axis."""
    x = x or axis(run)
    axes.set_title(run.benchmark.title)
    axes.set_xlabel(AXES.get(x, x))
    axes.set_ylabel("TFLOPS")
    axes.set_xscale("log")
    axes.set_yscale("log")
    for name, points, marker, colour in (
        (f"{label(run.device)}: measured here", ours(run, x), "o", "black"),
        (f"predicted for {run.chip}", predicted(run, x), "^", "grey"),
        *((f"published: {chip}", points, "x", colour_of(chip)) for chip, points in sorted(others(run, x).items())),
    ):
        points = [(place, rate) for place, rate in points if place > 0 and rate > 0]  # the axes are logarithmic
        if points:
            is_line = marker != "x" and len({place for place, _ in points}) == len(points)
            axes.plot(*zip(*sorted(points), strict=True), marker=marker, color=colour, label=name,
                      linestyle="-" if is_line else "")  # fmt: skip
    finish(axes, {place for place, _ in [*ours(run, x), *predicted(run, x)] if place > 0})


def colour_of(chip: str) -> str:
    """Of a chip that published, the same in every picture."""
    from matplotlib import colormaps
    from matplotlib.colors import to_hex

    known = sorted({line["chip"] for line in published_rows()})
    return to_hex(colormaps["tab20"](COLOURS[known.index(chip) % len(COLOURS)]))


def finish(axes: Axes, places: Collection[float] = ()) -> None:
    """The grid, the legend beside it; ``places``: where the x axis, if it is logarithmic, has its numbers."""
    from matplotlib.ticker import FuncFormatter, NullFormatter, NullLocator

    axes.grid(alpha=0.3)
    if axes.get_xscale() == "log":
        if places:
            axes.set_xticks(apart(sorted(places)))
            axes.xaxis.set_minor_locator(NullLocator())
        axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:.5g}"))
        axes.xaxis.set_minor_formatter(NullFormatter())
    if axes.get_yscale() == "log":
        few = np.ptp(np.log10(axes.get_ylim())) < 2  # within two decades also between their ends
        axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:.3g}"))
        axes.yaxis.set_minor_formatter(
            FuncFormatter(lambda value, _: f"{value:.3g}" if few and f"{value:e}"[0] in "25" else "")
        )
    if axes.get_legend_handles_labels()[0]:
        axes.legend(fontsize="small", loc="center left", bbox_to_anchor=(1, 0.5))


def apart(places: Sequence[float]) -> list[float]:
    """Those whose numbers do not run into each other on a logarithmic axis.

    >>> apart([1, 2, 2.02, 4, 1000])
    [1, 2, 4, 1000]
    """
    least = max(0.07 * np.log(places[-1] / places[0]), 1e-9)
    kept = [places[0]]
    for place in places[1:]:
        if np.log(place / kept[-1]) >= least:
            kept.append(place)
    return kept


def axis(run: Run) -> str:
    """The fact on the x axis: the benchmark's, or what differs most between the rows."""
    if run.benchmark.x:
        return run.benchmark.x
    facts = [set(row.config.facts) for row in run.rows]
    known = [name for name in AXES if all(name in each for each in facts)]
    return max(known, key=lambda name: len({row[name] for row in run.rows}), default="gflop")


def ours(run: Run, x: str) -> Points:
    """TFLOPS of the first program of each row; rows without a size or a time are left out."""
    found: Points = []
    for row in run.rows:
        with suppress(KeyError):
            found.append((row[x], row["gflop"] / row.ms()))
    return found


def predicted(run: Run, x: str) -> Points:
    found: Points = []
    for row in run.rows:
        several = next(iter(row.predicted.values()), [])
        with suppress(KeyError, ZeroDivisionError):
            found.append((row[x], row["gflop"] / sum(p.ms for p in several)))
    return found


def others(run: Run, x: str) -> dict[str, Points]:
    """By chip, of those that published a rate."""
    found: dict[str, Points] = {}
    for row in run.rows:
        for line in published.rows(row, run.benchmark.table):
            if line["tflops"] and x in row.config.facts:
                found.setdefault(line["chip"], []).append((row[x], float(line["tflops"])))
    return found
