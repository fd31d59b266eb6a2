"""Pictures of a whole run, and a page that shows them: rates by depth, size and working set, dispatch, roofline."""

from __future__ import annotations

import html
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path

from ..bench import plots
from ..bench.columns import MIB
from ..bench.machine import header
from ..bench.record import Row
from ..bench.running import Run
from ..cost.chips import chip as chip_named
from ..cost.model import shipped
from ..devices.info import label

Runs = Mapping[str, Run]
# Title, and of which benchmarks a panel is drawn, by which fact.
RATES: Mapping[str, tuple[str, Mapping[str, str]]] = {
    "depth": ("TFLOPS by depth", {"depth": "depth", "peak": "depth", "int8": "depth"}),
    "size": ("TFLOPS by size", {"matmul": "n", "conv-vs-matmul": "n", "inmem": "channels", "fused-2": "channels"}),
    "working-set": ("TFLOPS by working set", {
        "matmul": "working_set_mb", "sram": "total_mb", "sram-fine": "total_mb", "depth": "total_mb",
    }),
}  # fmt: skip


def draw(runs: Sequence[Run], folder: Path, device: str) -> list[Path]:
    """The pictures that these runs have figures for, and ``index.html``; what is missing is said there."""
    plots.figure()  # says at once if it cannot be drawn
    folder.mkdir(parents=True, exist_ok=True)
    by_name = {run.benchmark.name: run for run in runs if any(row.timings for row in run.rows)}
    drawn: dict[str, Path | None] = {}
    for name, title, make in pictures():
        path = folder / f"{name}.svg"
        drawn[title] = path if make(by_name, path) else None
    index = folder / "index.html"
    index.write_text(page(drawn, device), encoding="utf-8")
    return [*filter(None, drawn.values()), index]


def pictures() -> Iterator[tuple[str, str, Callable[[Runs, Path], bool]]]:
    """File name, title, and what draws it, False where there is nothing to draw."""
    for name, (title, panels) in RATES.items():
        yield name, title, lambda runs, path, panels=panels: rates(runs, path, panels)  # type: ignore[misc]
    yield "dispatch", "What a call costs by itself", dispatch
    yield "roofline", "Roofline", roofline


def rates(runs: Runs, path: Path, panels: Mapping[str, str]) -> bool:
    wanted = [(runs[name], x) for name, x in panels.items() if name in runs]
    if not wanted:
        return False
    made, several = plots.figure(len(wanted))
    for axes, (run, x) in zip(several, wanted, strict=True):
        plots.panel(axes, run, x)
    plots.save(made, path)
    return True


def dispatch(runs: Runs, path: Path) -> bool:
    """Microseconds of a small call by the way it is sent, and what each dispatch costs that fusing saves."""
    wanted = [(runs[name], key) for name, key in (("dispatch", "us"), ("fused-1", "overhead_us")) if name in runs]
    if not wanted:
        return False
    made, several = plots.figure(len(wanted))
    for axes, (run, key) in zip(several, wanted, strict=True):
        column = next(c for c in run.benchmark.columns if c.key == key)
        bars = [(row.config.label, column.of(row)) for row in run.rows]
        axes.bar([name for name, us in bars if us is not None], [us for _, us in bars if us is not None],
                 label=f"{label(run.device)}: measured here")  # fmt: skip
        axes.set(title=run.benchmark.title, xlabel=run.benchmark.columns[0].title, ylabel=column.title)
        plots.finish(axes)
    plots.save(made, path)
    return True


def moved(row: Row) -> float:
    """Bytes in, out and of weights: KeyError where the sizes do not tell."""
    return MIB * (row["total_mb"] if "total_mb" in row.config.facts else row["working_set_mb"])


def roofline(runs: Runs, path: Path) -> bool:
    """Rates by FLOP a byte, of rows whose bytes are known, under the roofs that the cost model has of the chip.

    Bytes count inputs, outputs and weights once: a chain that spills moves more and lies lower.
    """
    found: dict[str, plots.Points] = {}
    for name, run in runs.items():
        for row in run.rows:
            with suppress(KeyError):
                found.setdefault(name, []).append((1e9 * row["gflop"] / moved(row), row["gflop"] / row.ms()))
    if not found:
        return False
    made, (axes,) = plots.figure()
    for name, points in found.items():
        axes.plot(*zip(*sorted(points), strict=True), marker="o", linestyle="", label=name)
    run = next(iter(runs.values()))
    rate, stream = shipped().parameters.roofs(chip_named(run.chip))
    xs = sorted({x for points in found.values() for x, _ in points} | {rate / stream})
    axes.plot(xs, [min(rate, x * stream) / 1e12 for x in xs], color="grey", label=f"roof, predicted for {run.chip}")
    axes.set(title=f"Roofline, {label(run.device)}: measured here", xlabel="FLOP a byte of operands", ylabel="TFLOPS",
             xscale="log", yscale="log")  # fmt: skip
    plots.finish(axes)
    plots.save(made, path)
    return True


PAGE = """<!doctype html>
<html lang="en"><meta charset="utf-8"><title>anex benchmarks</title>
<style>body {{ font: 16px system-ui; max-width: 60em; margin: 2em auto; padding: 0 1em }} img {{ max-width: 100%; \
background: white }}</style>
<h1>anex benchmarks</h1>
<p>{head}</p>
<p>Points measured here, predictions of the cost model and published figures are told apart in each legend.</p>
{body}
</html>
"""


def page(drawn: Mapping[str, Path | None], device: str) -> str:
    body = [
        f"<h2>{html.escape(title)}</h2>\n"
        + (f'<img src="{path.name}" alt="{html.escape(title)}">' if path else "<p>No row of this run shows it.</p>")
        for title, path in drawn.items()
    ]
    return PAGE.format(head="<br>".join(map(html.escape, header(device))), body="\n".join(body))
