"""A picture of the ratios: one row a comparison, the quartiles as a bar, the goal as a mark."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from .results import Comparison, Result
from .text import against

COLOURS = {"met": "tab:green", "within noise": "tab:olive", "missed": "tab:red", "": "tab:blue"}
ROW, MARGIN, WIDTH = 0.2, 1.4, 9.0  # inches


def drawn(results: Sequence[Result], *, goals_only: bool = False) -> list[tuple[str, list[tuple[str, Comparison]]]]:
    """What the picture has, from above: a title, and rows with their labels. Of goals only there is one group."""
    groups = []
    for result in results:
        found = [each for each in result.comparisons() if each.ratio and each.ratio.median > 0]
        if goals_only:
            groups += [(f"{result.case}: {each.peer} / {each.ours}", each) for each in found if each.goal is not None]
        elif found:
            title = f"{result.title} ({result.threads} thread{'s' * (result.threads > 1)})"
            groups.append((title, [(against(each, result.first), each) for each in found]))
    return [("", groups)] if goals_only else groups


def draw(results: Sequence[Result], path: Path, *, goals_only: bool = False) -> None:
    """Write a PNG (or what the name ends in); without any ratio, an empty picture that says so."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure
    from matplotlib.lines import Line2D

    groups = drawn(results, goals_only=goals_only)
    count = sum(len(rows) + 2 for _, rows in groups)
    figure = Figure((WIDTH, MARGIN + ROW * max(count, 1)), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    labels, places, at = [], [], 0
    for title, rows in groups:
        axes.text(0.0, at, title, transform=axes.get_yaxis_transform(), fontsize=8, weight="bold", va="center")
        at += 1
        for label, each in rows:
            assert each.ratio
            colour = COLOURS[each.verdict]
            axes.plot([each.ratio.low, each.ratio.high], [at, at], color=colour, linewidth=3, solid_capstyle="butt")
            axes.plot(each.ratio.median, at, "o", color=colour, markersize=4)
            if each.goal is not None:
                axes.plot(each.goal, at, "|", color="black", markersize=9)
            labels.append(label)
            places.append(at)
            at += 1
        at += 1
    axes.set_xscale("log")
    axes.set_yticks(places, labels, fontsize=7)
    axes.set_ylim(max(at, 1), -1)
    axes.axvline(1, color="grey", linewidth=1)
    axes.grid(axis="x", which="both", alpha=0.2)
    axes.xaxis.set_major_formatter(lambda value, _: f"{value:g}x")
    axes.set_xlabel("time / ours: median and quartiles of the rounds" if groups else "nothing was compared")
    marks = [Line2D([], [], color=colour, marker="o", label=name or "no goal") for name, colour in COLOURS.items()]
    marks.append(Line2D([], [], color="black", marker="|", linestyle="", markersize=9, label="goal"))
    figure.legend(handles=marks, loc="outside upper center", ncols=len(marks), fontsize=8, frameon=False)
    figure.savefig(path, dpi=110)
