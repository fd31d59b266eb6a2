"""The report as text, in the published profiler's order and columns."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

from ..cost.text import summary
from ..placement.report import ON_ANE, OpPlacement
from ..placement.text import table as placement_table
from ..profiling.text import cropped, headlines
from ..profiling.text import table as aligned
from .core_ml import PlannedOp
from .report import Breakdown, Counts, Line, Rates, Report
from .sequential import Conv, Estimate

TOP, CONVS, COSTLY, FALLBACKS = 20, 15, 20, 100  # rows
RULE = "═" * 63
NAMES = {"ane": "ANE", "cpu": "CPU", "gpu": "GPU"}

BREAKDOWN = ("Op Type", "Count", "ms/op", "Total ms", "GFLOP", "GB/s", "Share", "Bound")
TOP_OPS = ("Op Name", "Type", "one-core ms", "MB", "GB/s", "Bound")
CONV = ("Name", "one-core ms", "GFLOP/s", "MB", "GB/s", "InCh", "OutCh", "WU%")
FALLBACK = ("Output Name", "Op Type", "Dev", "Reason")
PLAN = ("Index", "Output Name", "Op Type", "Cost", "Core ML", "anex", "Supported")


def lines(found: Report, verbose: bool = False) -> Iterator[str]:
    yield from _title(f"ANE CostModel Report: {found.name}")
    yield from header(found)
    yield from _title("Op-Type Runtime Breakdown: one core, op after op (the published profiler's estimate)")
    yield from aligned([BREAKDOWN, *map(cells, found.sequential.lines), total(found.sequential)], left=1)
    yield f"Weights:   {found.weight_mib:.1f} MB"
    yield from _title(f"Predicted for {found.chip}, nothing was run")
    yield from predicted(found)
    yield from _title("Measured")
    yield from measured(found)
    yield from _title(f"Top {min(TOP, len(found.estimates))} Most Expensive Operations (one core)")
    yield from aligned([TOP_OPS, *top_ops(found)], left=2)
    if found.convs:
        yield from _title(f"Conv Detail (top {CONVS})")
        yield from aligned([CONV, *conv_detail(found)], left=1)
    yield from _title(f"Ops of more than {found.threshold:.1%} of the cost (predicted)")
    yield from _costly(found)
    for unit in dict.fromkeys(op.unit for op in found.explanation.ops):
        yield from _title(f"{NAMES.get(unit, unit)} Op Types")
        yield op_types(found, unit)
    off = off_the_engine(found)
    if off:
        yield from _title(f"CPU/GPU Fallback Ops ({len(off)} ops not on ANE)")
        yield from aligned([FALLBACK, *fallback(found)], left=3)
        if len(off) > FALLBACKS:
            yield f"... and {len(off) - FALLBACKS} more"
    yield from _title("Core ML's own plan")
    yield from core_ml(found)
    if verbose:
        yield from _title("Every op")
        yield from placement_table(found.explanation.ops)


def _title(text: str) -> Iterator[str]:
    yield from ("", RULE, text, RULE)


def header(found: Report) -> Iterator[str]:
    size = "in memory" if found.size_bytes is None else f"{found.size_bytes / 2**20:.1f} MB"
    counts = found.counts
    facts = {
        "Model size": size,
        "Format": "ML Program" + (f" ({found.opset})" if found.opset else ""),
        "Compute": f"{found.units}, placed for {found.chip} (simulated)",
        "Total ops": str(counts.total),
        **{f"{NAMES[unit]} ops": _share(counts, unit) for unit in NAMES if unit != "gpu" or unit in counts.by_unit},
        "Const ops": f"{counts.const} (no cost)",
        "CostModel": f"{counts.entries} entries, {counts.unique} unique ops",
        "Weights": f"{found.weight_mib:.1f} MB",
    }  # fmt: skip
    yield from (f"{name + ':':<13} {value}" for name, value in facts.items())
    crossing = found.explanation.transfers
    yield (
        f"{'Segments:':<13} {len(found.explanation.segments)}, {crossing.count} transfer(s) of "
        f"{crossing.bytes / 2**20:.3g} MB between units"
    )
    yield "MB are 2^20 bytes, GB/s are MB per ms, as in the published profiler."


def _share(counts: Counts, unit: str) -> str:
    return f"{counts.by_unit.get(unit, 0)} ({counts.cost_by_unit.get(unit, 0.0):.1%} of cost)"


# ---- tables, also for the page --------------------------------------------------------------------------------


def cells(line: Line) -> tuple[str, ...]:
    """Under ``BREAKDOWN``."""
    speed = "-" if line.bound == "dispatch" else f"{line.gb_per_s:.2f}"  # it is done as part of another op
    return (
        line.op, str(line.count), f"{line.ms / line.count:.6f}", f"{line.ms:.3f}", f"{line.gflop:.4f}",
        speed, f"{line.share:.1%}", line.bound,
    )  # fmt: skip


def total(found: Breakdown) -> tuple[str, ...]:
    speed = found.mib / found.ms if found.ms else 0.0
    count = sum(line.count for line in found.lines)
    return ("TOTAL", str(count), "", f"{found.ms:.3f}", f"{found.gflop:.4f}", f"{speed:.2f}", "100.0%", "")


def predicted(found: Report) -> Iterator[str]:
    if not found.costs or found.predicted is None:
        yield "No op has fixed shapes and a known cost, so there is nothing to predict."
        return
    yield from summary(found.costs)
    for note in dict.fromkeys(note for each in found.costs for note in each.notes):
        yield f"note: {note}"
    if found.explanation.residency < 1:
        yield "note: the time is that of the whole program on the engine; see the fallback ops."
    yield ""
    yield from aligned([BREAKDOWN, *map(cells, found.predicted.lines), total(found.predicted)], left=1)
    yield ""
    rates = found.predicted_rates
    if rates is not None:
        p = found.costs[0].prediction
        yield (
            f"Predicted: {p.ms:.3f} ms/prediction ({rates.iterations_per_s:.1f} iter/s; {found.chip}, 80 % interval "
            + (f"{p.low:.4g} .. {p.high:.4g})")
        )
        yield from _derived(rates, found.weight_mib)


def measured(found: Report) -> Iterator[str]:
    rates = found.measured_rates
    if found.profile is None or found.measured is None or rates is None:
        yield f"Not measured: {found.not_measured}"
        return
    device, runs = found.profile.device, found.profile.repeat
    yield from aligned([BREAKDOWN, *map(cells, found.measured.lines), total(found.measured)], left=1)
    yield ""
    yield f"Measured:  {rates.ms:.3f} ms/prediction ({rates.iterations_per_s:.1f} iter/s, {runs} runs; device {device})"
    yield from _derived(rates, found.weight_mib, of_cores=device == ON_ANE)
    yield from headlines(found.profile)


def _derived(rates: Rates, weight_mib: float, of_cores: bool = True) -> Iterator[str]:
    yield f"Compute:   {rates.gflops:.2f} GFLOP/s ({rates.tops:.4f} TOPS)"
    if weight_mib:
        yield f"Weight BW: {rates.weight_gb_per_s:.2f} GB/s ({weight_mib:.1f} MB weights streamed/iter)"
    cores = f" ({rates.utilisation:.0%} of 16 cores at fp16)" if of_cores else ""
    yield f"Speedup:   {rates.speedup:.1f}x vs sequential estimate{cores}"


def top_ops(found: Report) -> list[tuple[str, ...]]:
    slowest = sorted(found.estimates, key=lambda each: -each.ms)[:TOP]
    return [(cropped(each.name), each.op, f"{each.ms:.6f}", f"{each.mib:.2f}", _speed(each), each.bound)
            for each in slowest]  # fmt: skip


def conv_detail(found: Report) -> list[tuple[str, ...]]:
    def row(each: Conv) -> tuple[str, ...]:
        gflops = each.gflop / each.ms * 1e3 if each.ms else 0.0
        return (
            cropped(each.name), f"{each.ms:.6f}", f"{gflops:.2f}", f"{each.mib:.2f}", _speed(each), str(each.into),
            str(each.out), f"{each.efficiency:.1%}",
        )  # fmt: skip

    return [row(each) for each in found.convs[:CONVS]]


def _speed(each: Estimate) -> str:
    return f"{each.mib / each.ms:.2f}" if each.ms else "0.00"


def _costly(found: Report) -> Iterator[str]:
    ops = found.explanation.ops
    whole = sum(op.ms for op in ops)
    rows = [(str(i), op.op, f"{op.ms / whole:.4f}", NAMES.get(op.unit, op.unit))
            for i, op in enumerate(ops) if whole and op.ms > found.threshold * whole]  # fmt: skip
    yield from aligned([("Index", "Op Type", "Cost", "Dev"), *rows[:COSTLY]], left=0)
    if len(rows) > COSTLY:
        yield f"... and {len(rows) - COSTLY} more"


def op_types(found: Report, unit: str) -> str:
    """Such as "ios18.conv (128), ios18.quantize (127)", the most first."""
    counts = Counter(op.op for op in found.explanation.ops if op.unit == unit)
    prefix = f"{found.opset}." if found.opset else ""
    return ", ".join(f"{prefix}{op} ({count})" for op, count in counts.most_common())


def off_the_engine(found: Report) -> list[OpPlacement]:
    return sorted((op for op in found.explanation.ops if op.unit != ON_ANE), key=lambda op: -op.ms)


def fallback(found: Report, width: int = 40) -> list[tuple[str, ...]]:
    """(op, type, device, why), the costliest first."""
    return [(cropped(op.name, width), op.op, NAMES.get(op.unit, op.unit), "; ".join(op.reasons))
            for op in off_the_engine(found)[:FALLBACKS]]  # fmt: skip


def core_ml(found: Report) -> Iterator[str]:
    if not found.core_ml:
        yield found.no_core_ml
        return
    units = Counter(op.unit for op in found.core_ml if op.unit)
    yield ", ".join(f"{NAMES.get(unit, unit)} ops: {count}" for unit, count in units.most_common())
    mine = {op.name: op.unit for op in found.explanation.ops}
    both = [(op, mine[op.name]) for op in found.core_ml if op.unit and op.name in mine]
    same = sum(op.unit == unit for op, unit in both)
    yield f"Core ML and anex agree on {same} of the {len(both)} ops that both know by name."
    yield from aligned([PLAN, *plan_rows(found)], left=0)


def plan_rows(found: Report) -> list[tuple[str, ...]]:
    """Ops whose cost is above the threshold, or whose unit is not the one expected."""
    mine = {op.name: op.unit for op in found.explanation.ops}

    def is_shown(op: PlannedOp) -> bool:
        return bool(op.unit) and ((op.weight or 0.0) > found.threshold or mine.get(op.name, op.unit) != op.unit)

    def row(op: PlannedOp) -> tuple[str, ...]:
        return (
            str(op.index), cropped(op.name), op.op, f"{op.weight or 0.0:.4f}", NAMES.get(op.unit, op.unit),
            NAMES.get(mine.get(op.name, ""), "?"), ",".join(NAMES.get(unit, unit) for unit in op.supported),
        )  # fmt: skip

    return [row(op) for op in found.core_ml if is_shown(op)][:FALLBACKS]
