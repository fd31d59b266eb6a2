"""A profile as one HTML page."""

from __future__ import annotations

from . import pictures
from .pictures import Mark
from .profile import Profile, Row
from .text import HEADER, TOP_HEADER, cells, headlines, top_cells


def page(profile: Profile) -> str:
    """The whole document."""
    return pictures.page(_title(profile), fragment(profile))


def fragment(profile: Profile) -> str:
    """The part a notebook shows."""
    title = _title(profile)
    return pictures.fragment(title, [pictures.paragraphs(headlines(profile)), *sections(profile)])


def sections(profile: Profile) -> list[str]:
    """The pictures and tables."""
    types, rows, known = profile.by_op, profile.rows, profile.limits
    colours = pictures.colours_of(each.op for each in types)
    marks = [mark_of(row) for row in rows]
    return [
        pictures.heading(f"Time in the order of the {len(rows)} ops that ran"),
        pictures.timeline(marks, colours),
        pictures.heading("By type of op"),
        pictures.table(HEADER, map(cells, types), bars=[(t.op, t.share) for t in types], colours=colours),
        pictures.heading("Roofline"),
        pictures.roofline(marks, colours, known.flops_per_second, known.bytes_per_second),
        pictures.heading("Every op"),
        pictures.table(
            TOP_HEADER, map(top_cells, rows), text=2, bars=[(row.op, row.share) for row in rows], colours=colours
        ),
    ]


def mark_of(row: Row) -> Mark:
    labelled = (f"{label} {cell}" for label, cell in zip(TOP_HEADER[2:], top_cells(row)[2:], strict=True))
    tip = f"{row.op} {row.name}: " + ", ".join(labelled)
    return Mark(row.op, tip, row.seconds, row.share, row.flops, row.bytes)


def _title(profile: Profile) -> str:
    return f"anex profile, device {profile.device}"
