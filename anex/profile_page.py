"""A profile as one HTML page: everything inline, light or dark as the reader's system."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from html import escape

from .profile import HEADER, TOP_HEADER, Profile, Row, cells, headlines, top_cells

COLOURS = ("#4269d0", "#efb118", "#ff725c", "#6cc5b0", "#3ca951", "#ff8ab7", "#a463f2", "#97bbf5", "#9c6b4e")
OTHER = "#9498a0"
WIDTH = 960
STRIP = 56  # height of the timeline

STYLE = """
.anex-profile { font: 14px/1.45 system-ui, sans-serif; color: #1d2026; background: #fff; max-width: 1000px;
  margin: 0 auto; padding: 16px 20px }
.anex-profile h1 { font-size: 20px; margin: 0 0 4px } .anex-profile h2 { font-size: 15px; margin: 22px 0 6px }
.anex-profile p { margin: 2px 0; color: #5a606b } .anex-profile svg { display: block; width: 100%; height: auto }
.anex-profile svg text { fill: #5a606b; font: 11px system-ui, sans-serif }
.anex-profile .grid { stroke: #e3e5e9 } .anex-profile .roof { stroke: #1d2026; stroke-width: 1.5; fill: none }
.anex-profile rect.op { stroke: #fff; stroke-width: .4 }
.anex-profile rect.op:hover, .anex-profile circle:hover { stroke: #1d2026; stroke-width: 1.5 }
.anex-profile .scroll { overflow-x: auto }
.anex-profile table { border-collapse: collapse; font-variant-numeric: tabular-nums; white-space: nowrap }
.anex-profile th, .anex-profile td { text-align: right; padding: 2px 10px 2px 0; border-bottom: 1px solid #e3e5e9 }
.anex-profile th { color: #5a606b; font-weight: 600 }
.anex-profile .text { text-align: left } .anex-profile .bar { width: 180px }
.anex-profile .bar i { display: block; height: 10px; border-radius: 2px }
.anex-profile .key { display: inline-block; width: 10px; height: 10px; border-radius: 2px; margin-right: 6px }
@media (prefers-color-scheme: dark) {
.anex-profile { color: #e6e8ec; background: #16181d } .anex-profile rect.op { stroke: #16181d }
.anex-profile p, .anex-profile th, .anex-profile svg text { color: #a2a9b5; fill: #a2a9b5 }
.anex-profile .grid { stroke: #30343c } .anex-profile .roof { stroke: #e6e8ec }
.anex-profile th, .anex-profile td { border-color: #30343c }
.anex-profile rect.op:hover, .anex-profile circle:hover { stroke: #e6e8ec } }
"""


def page(profile: Profile) -> str:
    """The whole document."""
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1"><meta name="color-scheme" '
        f'content="light dark"><title>anex profile, device {escape(profile.device)}</title></head>\n'
        f'<body style="margin:0">{fragment(profile)}</body></html>\n'
    )


def fragment(profile: Profile) -> str:
    """The part a notebook shows."""
    types = profile.by_op
    colours = {each.op: colour for each, colour in zip(types, COLOURS, strict=False)}
    return "\n".join(
        [
            f'<div class="anex-profile"><style>{STYLE}</style>',
            f"<h1>anex profile, device {escape(profile.device)}</h1>",
            *(f"<p>{escape(line)}</p>" for line in headlines(profile)),
            f"<h2>Time in the order of the {len(profile.rows)} ops that ran</h2>",
            _timeline(profile.rows, colours),
            "<h2>By type of op</h2>",
            _table(HEADER, [(cells(t), t.op, t.share) for t in types], colours, text=1),
            "<h2>Roofline</h2>",
            _roofline(profile, colours),
            "<h2>Every op</h2>",
            _table(TOP_HEADER, [(top_cells(row), row.op, row.share) for row in profile.rows], colours, text=2),
            "</div>",
        ]
    )


def _tip(row: Row) -> str:
    labelled = (f"{label} {cell}" for label, cell in zip(TOP_HEADER[2:], top_cells(row)[2:], strict=True))
    return f"<title>{escape(f'{row.op} {row.name}: ' + ', '.join(labelled))}</title>"


def _timeline(rows: Sequence[Row], colours: dict[str, str]) -> str:
    """One bar per op, as wide as its share of the time."""
    bars, x, total = [], 0.0, sum(row.seconds for row in rows)
    for row in rows:
        width = row.share * WIDTH
        fill = colours.get(row.op, OTHER)
        bar = f'<rect class="op" x="{x:.3f}" y="0" width="{width:.3f}" height="{STRIP}" fill="{fill}">'
        bars.append(f"{bar}{_tip(row)}</rect>")
        x += width
    ticks = (
        f'<text x="{at * WIDTH:.0f}" y="{STRIP + 14}" text-anchor="{anchor}">{at * total * 1e3:.4g} ms</text>'
        for at, anchor in ((0, "start"), (0.25, "middle"), (0.5, "middle"), (0.75, "middle"), (1, "end"))
    )
    return f'<svg viewBox="0 0 {WIDTH} {STRIP + 20}" role="img" aria-label="timeline">{_join(bars)}{_join(ticks)}</svg>'


def _roofline(profile: Profile, colours: dict[str, str]) -> str:
    """FLOP/s over FLOP per byte, both logarithmic, under the two limits of the machine."""
    shown = [row for row in profile.rows if row.flops and row.bytes and row.seconds > 0]
    known = profile.limits
    ridge = known.flops_per_second / known.bytes_per_second
    left, right = _decades([row.flops / row.bytes for row in shown] + [ridge / 10, ridge * 10])
    low, high = _decades([row.gflops * 1e9 for row in shown] + [known.flops_per_second])
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
    slope = max(10.0**left, 10.0**low / known.bytes_per_second)  # where the roof enters the picture
    corners = (
        (slope, slope * known.bytes_per_second),
        (ridge, known.flops_per_second),
        (10.0**right, known.flops_per_second),
    )
    points = " ".join(f"{x(i):.1f},{y(rate):.1f}" for i, rate in corners)
    parts.append(f'<polyline class="roof" points="{points}"/>')
    for row in shown:
        centre = f'cx="{x(row.flops / row.bytes):.1f}" cy="{y(row.gflops * 1e9):.1f}"'
        radius = 3 + 9 * math.sqrt(row.share)
        fill = colours.get(row.op, OTHER)
        parts.append(f'<circle {centre} r="{radius:.1f}" fill="{fill}" fill-opacity=".75">{_tip(row)}</circle>')
    parts.append(f'<text x="{x0 + width}" y="{y0 + height + 31}" text-anchor="end">FLOP per byte</text>')
    parts.append(f'<text x="0" y="{y0 + height + 31}">GFLOP/s; {len(shown)} ops that compute, area by share</text>')
    return f'<svg viewBox="0 0 {WIDTH} {y0 + height + 38}" role="img" aria-label="roofline">{_join(parts)}</svg>'


def _decades(values: Sequence[float]) -> tuple[int, int]:
    """The powers of ten around them all."""
    return math.floor(math.log10(min(values))), math.ceil(math.log10(max(values)) + 1e-9)


def _table(
    header: Sequence[str], rows: Iterable[tuple[Sequence[str], str, float]], colours: dict[str, str], text: int
) -> str:
    """Rows of (cells, op, share); the first ``text`` and the last columns are words."""

    def row(tag: str, texts: Sequence[str], key: str, bar: str) -> str:
        marks = [' class="text"' if i < text or i == len(texts) - 1 else "" for i in range(len(texts))]
        inside = [escape(cell) for cell in texts]
        inside[0] = key + inside[0]
        filled = _join(f"<{tag}{mark}>{cell}</{tag}>" for mark, cell in zip(marks, inside, strict=True))
        return f'<tr>{filled}<{tag} class="bar">{bar}</{tag}></tr>'

    body = []
    for texts, op, share in rows:
        fill = colours.get(op, OTHER)
        key = f'<span class="key" style="background:{fill}"></span>'
        body.append(row("td", texts, key, f'<i style="width:{share:.2%};background:{fill}"></i>'))
    head = row("th", header, "", "")
    return f'<div class="scroll"><table><thead>{head}</thead><tbody>{_join(body)}</tbody></table></div>'


def _join(parts: Iterable[str]) -> str:
    return "\n".join(parts)
