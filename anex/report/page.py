"""The report as one HTML page."""

from __future__ import annotations

from ..cost.program import Estimate as Predicted
from ..placement.report import ON_ANE
from ..profiling import page as profile_page
from ..profiling import pictures
from ..profiling.pictures import Mark
from ..profiling.text import headlines
from . import text
from .report import Breakdown, Report


def page(found: Report) -> str:
    """The whole document."""
    return pictures.page(_title(found), fragment(found))


def fragment(found: Report) -> str:
    """The part a notebook shows."""
    parts = [pictures.paragraphs(text.header(found))]
    parts += _predicted(found)
    parts += _measured(found)
    parts.append(pictures.heading("One core, op after op: the published profiler's estimate"))
    parts.append(_breakdown(found.sequential))
    parts += [
        pictures.heading("Most expensive ops (one core)"),
        pictures.table(text.TOP_OPS, text.top_ops(found), text=2),
    ]
    if found.convs:
        parts += [pictures.heading("Convolutions"), pictures.table(text.CONV, text.conv_detail(found))]
    for unit in dict.fromkeys(op.unit for op in found.explanation.ops):
        parts += [pictures.heading(f"{text.NAMES.get(unit, unit)} op types"),
                  pictures.paragraphs([text.op_types(found, unit)])]  # fmt: skip
    if text.off_the_engine(found):
        parts.append(pictures.heading("Fallback: ops that leave the Neural Engine, and why"))
        parts.append(pictures.table(text.FALLBACK, text.fallback(found), text=3, wrap=True))
    parts.append(pictures.heading("Core ML's own plan"))
    if found.core_ml:
        parts.append(pictures.table(text.PLAN, text.plan_rows(found), text=3))
    else:
        parts.append(pictures.paragraphs([found.no_core_ml]))
    return pictures.fragment(_title(found), parts)


def _title(found: Report) -> str:
    return f"anex profile: {found.name}"


def _breakdown(found: Breakdown) -> str:
    colours = pictures.colours_of(line.op for line in found.lines)
    bars = [(line.op, line.share) for line in found.lines]
    return pictures.table(text.BREAKDOWN, map(text.cells, found.lines), bars=bars, colours=colours)


def _predicted(found: Report) -> list[str]:
    title = pictures.heading(f"Predicted for {found.chip}: nothing was run")
    if not found.costs or found.predicted is None:
        return [title, pictures.paragraphs(text.predicted(found))]
    cost, rates = found.costs[0], found.predicted_rates
    p = cost.prediction
    words = [
        f"{p.ms:.4g} ms per call, 80 % interval {p.low:.4g} .. {p.high:.4g} ms, bound by {p.bound}; "
        f"{p.chip_rows} measurements of this chip behind it"
    ]
    if rates is not None:
        words.append(f"{rates.gflops:.4g} GFLOP/s, {rates.utilisation:.0%} of 16 cores at fp16")
    colours = pictures.colours_of(line.op for line in found.predicted.lines)
    total = sum(op.ms for op in cost.ops)
    units = {op.name: op.unit for op in found.explanation.ops}
    words.append(f"Below, the ops alone: {total:.4g} ms of it; the rest is the start, and copies in and out.")
    marks = [_mark(op, total, units.get(op.name, ON_ANE)) for op in cost.ops]
    return [
        title,
        pictures.paragraphs(words),
        pictures.timeline(marks, colours),
        _breakdown(found.predicted),
        pictures.heading(f"Roofline of {found.chip}, fitted: 1x1 convolutions, and weights from memory"),
        pictures.paragraphs(["Ops above the slope find their data on the chip: what comes from memory is weights."]),
        pictures.roofline(marks, colours, *found.roofs),
    ]


def _mark(op: Predicted, total: float, unit: str) -> Mark:
    tip = f"{op.op} {op.name}: {op.ms:.4g} ms predicted on the ANE, bound by {op.bound}" + (
        "" if unit == ON_ANE else f"; expected on the {unit}"
    )
    return Mark(op.op, tip, op.ms / 1e3, op.ms / total if total else 0.0, op.flops, op.bytes)


def _measured(found: Report) -> list[str]:
    if found.profile is None:
        return [pictures.heading("Measured"), pictures.paragraphs([f"Not measured: {found.not_measured}"])]
    return [
        pictures.heading(f"Measured on this machine, device {found.profile.device}"),
        pictures.paragraphs(headlines(found.profile)),
        *profile_page.sections(found.profile),
    ]
