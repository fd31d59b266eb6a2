"""A profile as text."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from .profile import OpType, Profile, Row

TOP = 20  # ops that the text lists one by one


def headlines(profile: Profile) -> list[str]:
    """What a reader of any of the outputs should know first; the device among it."""
    p, known, memory = profile, profile.limits, profile.memory
    ms = f"{p.median * 1e3:.4g} ms per call (p10 {p.p10 * 1e3:.4g}, p90 {p.p90 * 1e3:.4g}, {p.repeat} calls)"
    how = "the stand-in: no hardware was run" if p.device == "double" else "measured"
    ceiling = (
        f"limits of {known.device} (measured): {known.flops_per_second / 1e9:.4g} GFLOP/s, "
        f"{known.bytes_per_second / 1e9:.4g} GB/s; {known.instruction_set}, {known.threads} thread(s)"
        if known.threads
        else f"limits of {known.device}: not measured"
    )
    return [
        f"device {p.device} ({how}): {ms}, {p.flops / 1e9:.4g} GFLOP, {p.tflops * 1e3:.4g} GFLOP/s",
        ceiling,
        f"memory: {mebibytes(memory.arena_bytes)} for intermediate tensors, {memory.ratio:.3g}x of its lower bound, "
        f"the {mebibytes(memory.live_bytes_peak)} alive at once; {mebibytes(memory.packed_bytes)} of packed constants",
        f"outside ops: {p.overhead * 1e3:.4g} ms of the call",
    ]


def mebibytes(bytes: int) -> str:
    return f"{bytes / 2**20:.3g} MiB"


def cropped(name: str, most: int = 44) -> str:
    """Its end, where names differ."""
    return name if len(name) <= most else ".." + name[2 - most :]


HEADER = ("op", "count", "ms/op", "total ms", "GFLOP", "GFLOP/s", "GB/s", "share", "bound")


def cells(t: OpType) -> tuple[str, ...]:
    """One type of op under ``HEADER``."""
    ms = t.seconds * 1e3
    rates = (f"{t.flops / 1e9:.4g}", f"{t.gflops:.4g}", f"{t.gbytes_per_s:.4g}")
    return (t.op, str(t.count), f"{ms / t.count:.4f}", f"{ms:.4f}", *rates, f"{t.share:.1%}", t.bound)


TOP_HEADER = ("name", "op", "ms", "p10", "p90", "GFLOP", "GFLOP/s", "MiB", "GB/s", "share", "bound")


def top_cells(row: Row) -> tuple[str, ...]:
    """One op under ``TOP_HEADER``."""
    ms = (f"{s * 1e3:.4f}" for s in (row.seconds, row.p10, row.p90))
    work = (f"{row.flops / 1e9:.4g}", f"{row.gflops:.4g}", f"{row.bytes / 2**20:.3g}", f"{row.gbytes_per_s:.4g}")
    return (row.name, row.op, *ms, *work, f"{row.share:.1%}", row.bound)


def lines(profile: Profile) -> Iterable[str]:
    yield from headlines(profile)
    if not profile.rows:
        return
    types = profile.by_op
    yield ""
    yield from table([HEADER, *map(cells, types), cells(profile.total)], left=1)
    slowest = sorted(profile.rows, key=lambda row: -row.seconds)[:TOP]
    yield ""
    yield f"the {len(slowest)} ops with the most time, of {len(profile.rows)}"
    yield from table([TOP_HEADER, *((cropped(name), *rest) for name, *rest in map(top_cells, slowest))], left=2)


def table(rows: Sequence[Sequence[str]], left: int) -> Iterable[str]:
    """Columns of their own width; the first ``left`` and the last one begin where their header does."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for row in rows:
        aligned = [
            cell.ljust(width) if i < left or i == len(row) - 1 else cell.rjust(width)
            for i, (cell, width) in enumerate(zip(row, widths, strict=True))
        ]
        yield "  ".join(aligned).rstrip()
