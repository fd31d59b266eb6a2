"""Parts of HTML pages about time: a timeline, a roofline, tables. All inline, light or dark as the reader's system."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from html import escape

COLOURS = ("#4269d0", "#efb118", "#ff725c", "#6cc5b0", "#3ca951", "#ff8ab7", "#a463f2", "#97bbf5", "#9c6b4e")
OTHER = "#9498a0"
WIDTH = 960
LONG = 40  # characters of a cell that may not all be seen
STRIP = 56  # height of the timeline

STYLE = """
.anex-profile { font: 14px/1.45 system-ui, sans-serif; color: #1d2026; background: #fff; max-width: 1240px;
  margin: 0 auto; padding: 16px 20px }
.anex-profile h1 { font-size: 20px; margin: 0 0 4px; overflow-wrap: anywhere }
.anex-profile h2 { font-size: 15px; margin: 22px 0 6px }
.anex-profile p { margin: 2px 0; color: #5a606b } .anex-profile svg { display: block; width: 100%; height: auto }
.anex-profile svg text { fill: #5a606b; font: 11px system-ui, sans-serif }
.anex-profile .grid { stroke: #e3e5e9 } .anex-profile .roof { stroke: #1d2026; stroke-width: 1.5; fill: none }
.anex-profile rect.op { stroke: #fff; stroke-width: .4 }
.anex-profile rect.op:hover, .anex-profile circle:hover { stroke: #1d2026; stroke-width: 1.5 }
.anex-profile .scroll { overflow-x: auto }
.anex-profile table { border-collapse: collapse; font-variant-numeric: tabular-nums; white-space: nowrap }
.anex-profile th, .anex-profile td { text-align: right; padding: 2px 10px 2px 0; border-bottom: 1px solid #e3e5e9 }
.anex-profile th { color: #5a606b; font-weight: 600 }
.anex-profile .text { text-align: left; max-width: 360px; overflow: hidden; text-overflow: ellipsis }
.anex-profile .bar { width: 180px }
.anex-profile .wrap { white-space: normal; min-width: 420px; max-width: none }
.anex-profile .bar i { display: block; height: 10px; border-radius: 2px }
.anex-profile .key { display: inline-block; width: 10px; height: 10px; border-radius: 2px; margin-right: 6px }
@media (prefers-color-scheme: dark) {
.anex-profile { color: #e6e8ec; background: #16181d } .anex-profile rect.op { stroke: #16181d }
.anex-profile p, .anex-profile th, .anex-profile svg text { color: #a2a9b5; fill: #a2a9b5 }
.anex-profile .grid { stroke: #30343c } .anex-profile .roof { stroke: #e6e8ec }
.anex-profile th, .anex-profile td { border-color: #30343c }
.anex-profile rect.op:hover, .anex-profile circle:hover { stroke: #e6e8ec } }
"""


@dataclass(frozen=True)
class Mark:
    """One op in a picture: ``key`` chooses its colour, ``tip`` is shown under the pointer; FLOP, bytes, seconds."""

    key: str
    tip: str
    seconds: float
    share: float
    flops: float = 0.0
    bytes: float = 0.0

    @property
    def rate(self) -> float:
        """FLOP/s."""
        return self.flops / self.seconds if self.seconds else 0.0


def page(title: str, inside: str) -> str:
    """The whole document."""
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1"><meta name="color-scheme" '
        f'content="light dark"><title>{escape(title)}</title></head>\n<body style="margin:0">{inside}</body></html>\n'
    )


def fragment(title: str, parts: Iterable[str]) -> str:
    """The part a notebook shows."""
    return _join([f'<div class="anex-profile"><style>{STYLE}</style>', f"<h1>{escape(title)}</h1>", *parts, "</div>"])


def heading(text: str) -> str:
    return f"<h2>{escape(text)}</h2>"


def paragraphs(texts: Iterable[str]) -> str:
    return _join(f"<p>{escape(text)}</p>" for text in texts)


def colours_of(keys: Iterable[str]) -> dict[str, str]:
    """A colour for each of the first keys; those after it share ``OTHER``."""
    return dict(zip(dict.fromkeys(keys), COLOURS, strict=False))


def timeline(marks: Sequence[Mark], colours: Mapping[str, str]) -> str:
    """One bar per op, as wide as its share of the time."""
    bars, x, total = [], 0.0, sum(mark.seconds for mark in marks)
    for mark in marks:
        width, fill = mark.share * WIDTH, colours.get(mark.key, OTHER)
        bar = f'<rect class="op" x="{x:.3f}" y="0" width="{width:.3f}" height="{STRIP}" fill="{fill}">'
        bars.append(f"{bar}{_tip(mark)}</rect>")
        x += width
    ticks = (
        f'<text x="{at * WIDTH:.0f}" y="{STRIP + 14}" text-anchor="{anchor}">{at * total * 1e3:.4g} ms</text>'
        for at, anchor in ((0, "start"), (0.25, "middle"), (0.5, "middle"), (0.75, "middle"), (1, "end"))
    )
    return f'<svg viewBox="0 0 {WIDTH} {STRIP + 20}" role="img" aria-label="timeline">{_join(bars)}{_join(ticks)}</svg>'


def roofline(
    marks: Sequence[Mark], colours: Mapping[str, str], flops_per_second: float, bytes_per_second: float
) -> str:
    """FLOP/s over FLOP per byte, both logarithmic, under the two limits: nothing where those are unknown, 0."""
    if not flops_per_second or not bytes_per_second:
        return paragraphs(["The limits of this device were not measured."])
    shown = [mark for mark in marks if mark.flops and mark.bytes and mark.rate]
    ridge = flops_per_second / bytes_per_second
    left, right = _decades([mark.flops / mark.bytes for mark in shown] + [ridge / 10, ridge * 10])
    low, high = _decades([mark.rate for mark in shown] + [flops_per_second / 10, flops_per_second])
    x0, y0, width, height = 64, 10, WIDTH - 84, 330

    def x(intensity: float) -> float:
        return x0 + width * (math.log10(intensity) - left) / (right - left)

    def y(rate: float) -> float:
        return y0 + height * (high - math.log10(rate)) / (high - low)

    parts = []
    for decade in range(left, right + 1):
        at = x(10.0**decade)
        parts.append(f'<line class="grid" x1="{at:.1f}" y1="{y0}" x2="{at:.1f}" y2="{y0 + height}"/>')
        parts.append(f'<text x="{at:.1f}" y="{y0 + height + 15}" text-anchor="middle">{10.0**decade:g}</text>')
    for decade in range(low, high + 1):
        at = y(10.0**decade)
        parts.append(f'<line class="grid" x1="{x0}" y1="{at:.1f}" x2="{x0 + width}" y2="{at:.1f}"/>')
        parts.append(f'<text x="{x0 - 6}" y="{at + 4:.1f}" text-anchor="end">{10.0 ** (decade - 9):g}</text>')
    slope = max(10.0**left, 10.0**low / bytes_per_second)  # where the roof enters the picture
    corners = ((slope, slope * bytes_per_second), (ridge, flops_per_second), (10.0**right, flops_per_second))
    points = " ".join(f"{x(i):.1f},{y(rate):.1f}" for i, rate in corners)
    parts.append(f'<polyline class="roof" points="{points}"/>')
    for mark in shown:
        centre = f'cx="{x(mark.flops / mark.bytes):.1f}" cy="{y(mark.rate):.1f}"'
        radius, fill = 3 + 9 * math.sqrt(mark.share), colours.get(mark.key, OTHER)
        parts.append(f'<circle {centre} r="{radius:.1f}" fill="{fill}" fill-opacity=".75">{_tip(mark)}</circle>')
    parts.append(f'<text x="{x0 + width}" y="{y0 + height + 31}" text-anchor="end">FLOP per byte</text>')
    parts.append(f'<text x="0" y="{y0 + height + 31}">GFLOP/s; {len(shown)} ops that compute, area by share</text>')
    return f'<svg viewBox="0 0 {WIDTH} {y0 + height + 38}" role="img" aria-label="roofline">{_join(parts)}</svg>'


def table(
    header: Sequence[str], rows: Iterable[Sequence[str]], *, text: int = 1, wrap: bool = False,
    bars: Sequence[tuple[str, float]] = (), colours: Mapping[str, str] | None = None,
) -> str:  # fmt: skip
    """The first ``text`` and the last columns are words. ``bars``: (colour key, share) of each row; ``wrap``: the last
    column is a sentence."""

    def row(tag: str, texts: Sequence[str], key: str, bar: str | None) -> str:
        words = [i < text or i == len(texts) - 1 for i in range(len(texts))]
        kinds = [" ".join(["text"] * word + ["wrap"] * (wrap and i == len(texts) - 1)) for i, word in enumerate(words)]
        inside = [escape(cell) for cell in texts]
        inside[0] = key + inside[0]
        whole = (f' title="{escape(cell)}"' if len(cell) > LONG and not wrap else "" for cell in texts)
        marks = ((f' class="{kind}"' if kind else "") + tip for kind, tip in zip(kinds, whole, strict=True))
        filled = _join(f"<{tag}{mark}>{cell}</{tag}>" for mark, cell in zip(marks, inside, strict=True))
        last = "" if bar is None else f'<{tag} class="bar">{bar}</{tag}>'
        return f"<tr>{filled}{last}</tr>"

    body = []
    for i, texts in enumerate(rows):
        key, bar = "", None
        if bars:
            name, share = bars[i]
            fill = (colours or {}).get(name, OTHER)
            key = f'<span class="key" style="background:{fill}"></span>'
            bar = f'<i style="width:{share:.2%};background:{fill}"></i>'
        body.append(row("td", texts, key, bar))
    head = row("th", header, "", "" if bars else None)
    return f'<div class="scroll"><table><thead>{head}</thead><tbody>{_join(body)}</tbody></table></div>'


def _tip(mark: Mark) -> str:
    return f"<title>{escape(mark.tip)}</title>"


def _decades(values: Sequence[float]) -> tuple[int, int]:
    """The powers of ten around them all."""
    return math.floor(math.log10(min(values))), math.ceil(math.log10(max(values)) + 1e-9)


def _join(parts: Iterable[str]) -> str:
    return "\n".join(parts)
