"""What ``anex cost`` prints: tables, CSV and JSON of predictions."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from typing import Any

from . import rows as published
from .chips import chip
from .model import Model, Prediction
from .program import Cost

ADDED = ("predicted_ms", "low_ms", "high_ms", "bound", "error", "data", "why_not")
TOP = 20


def priced(lines: Sequence[Mapping[str, str]], model: Model) -> list[dict[str, str]]:
    """Each line with what the model says of it; ``why_not`` where it says nothing."""
    rows = published.rows(lines)
    can = [i for i, row in enumerate(rows) if row.load is not None]
    found: dict[int, Prediction] = {}
    if can:
        predictions = model.predict(
            [load for i in can if (load := rows[i].load)], [chip(rows[i].chip) for i in can],
            [rows[i].path for i in can],
            ops=[rows[i].op for i in can], sources=[rows[i].source for i in can],
            beyond=[rows[i].beyond for i in can],
        )  # fmt: skip
        found = dict(zip(can, predictions, strict=True))
    return [dict(line) | _added(rows[i], found.get(i)) for i, line in enumerate(lines)]


def _added(row: published.Row, prediction: Prediction | None) -> dict[str, str]:
    if prediction is None:
        return dict.fromkeys(ADDED, "") | {"why_not": row.why}
    p = prediction
    known = chip(row.chip)
    note = (
        ""
        if p.chip_rows
        else f"no measurement of {known.name}: "
        + (f"as M{known.generation}" if known.known else "as the middle of all chips")
    )
    return {
        "predicted_ms": f"{p.ms:.5g}", "low_ms": f"{p.low:.5g}", "high_ms": f"{p.high:.5g}", "bound": p.bound,
        "error": f"{p.ms / row.ms - 1:+.1%}" if row.ms else "", "data": f"{p.rows}/{p.chip_rows}",
        "why_not": "; ".join(filter(None, (row.note, note))),
    }  # fmt: skip


def as_csv(lines: Sequence[Mapping[str, str]]) -> str:
    out = io.StringIO()
    names = list(dict.fromkeys(name for line in lines for name in line)) or list(ADDED)
    table = csv.DictWriter(out, names, restval="", lineterminator="\n")
    table.writeheader()
    table.writerows(lines)
    return out.getvalue()


def beside(lines: Sequence[Mapping[str, str]]) -> Iterator[str]:
    """Published rows with what is predicted of them, a table of each source document's tables."""
    heading = None
    for line in lines:
        if (found := (line["source"], line.get("table", ""))) != heading:
            heading = found
            yield ""
            yield f"{line['source']}" + (f": {line['table']}" if line.get("table") else "")
            yield (f"{'row':<6} {'chip':<8} {'what':<40} {'measured ms':>12} {'predicted ms':>13} "
                   f"{'80 % interval':>20} {'error':>8} bound")  # fmt: skip
        interval = f"{line['low_ms']} .. {line['high_ms']}" if line["predicted_ms"] else ""
        rate = f"{line['tflops']} T/s" if line.get("tflops") and not line["ms"] else line["ms"]
        yield (
            f"{line['row_id']:<6} {line['chip']:<8} {what(line)[:40]:<40} {rate:>12} {line['predicted_ms']:>13} "
            f"{interval:>20} {line['error']:>8} {line['bound'] or '-- ' + line['why_not']}"
            + (f"  [{line['defect']}]" if line.get("defect") else "")
        )


def what(line: Mapping[str, str]) -> str:
    """A row's configuration in few words: "128x conv 512ch 64x64 w8a8"."""
    sizes = f"{line['in_ch']}ch {line['height'] or 1}x{line['width']}" if line["in_ch"] else line["note"].split(";")[0]
    depth = f"{line['depth']}x " if line["depth"] not in ("", "1") else ""
    out = f" to {line['out_ch']}" if line["out_ch"] not in ("", line["in_ch"]) else ""
    kind = "conv" if line["workload"].startswith("conv") else line["workload"]
    op = f" {line['op']}" if line["op"] and line["op"] not in kind else ""
    batch = f" batch {line['batch']}" if line["batch"] not in ("", "1") else ""
    return f"{depth}{kind}{op} {sizes}{out}{batch} {line['dtype']}"


def accuracy(lines: Sequence[Mapping[str, str]]) -> str:
    """One sentence over the lines that have a measured time."""
    measured = [(float(line["predicted_ms"]), float(line["low_ms"]), float(line["high_ms"]), float(line["ms"]))
                for line in lines if line["predicted_ms"] and line["error"]]  # fmt: skip
    rest = sum(not line["predicted_ms"] for line in lines)
    if not measured:
        return f"{len(lines)} rows, none of them with both a measured and a predicted time."
    off = sorted(abs(ms / real - 1) for ms, _, _, real in measured)
    inside = sum(low <= real <= high for _, low, high, real in measured) / len(measured)
    return (
        f"{len(lines)} rows: {len(measured)} measured and predicted, median error {off[len(off) // 2]:.1%}, 90th "
        f"percentile {off[int(0.9 * (len(off) - 1))]:.1%}, {inside:.0%} inside the 80 % interval; "
        f"{rest} not predicted, see why_not."
    )


# ---- programs ----------------------------------------------------------------------------------------------------


def as_json(costs: Sequence[Cost]) -> list[dict[str, Any]]:
    return [
        {"chip": c.chip, "path": c.path, "measured": False, "ms": c.prediction.ms, "low_ms": c.prediction.low,
         "high_ms": c.prediction.high, "bound": c.prediction.bound, "bounds_ms": dict(c.prediction.bounds),
         "tflops": c.prediction.tflops, "utilisation": c.prediction.utilisation,
         "rows_of_chip_and_kind": c.prediction.rows, "rows_of_chip": c.prediction.chip_rows, "notes": list(c.notes),
         "ops": [asdict(op) for op in c.ops]}
        for c in costs
    ]  # fmt: skip


def summary(costs: Sequence[Cost]) -> Iterator[str]:
    """A line a chip."""
    yield f"{'chip':<10} {'ms':>10} {'80 % interval':>23} {'bound':<9} {'TFLOPS':>8} {'util.':>6} {'rows':>5}  parts"
    for c in costs:
        p = c.prediction
        parts = ", ".join(f"{name} {ms / p.ms:.0%}" for name, ms in p.bounds.items() if ms >= 0.005 * p.ms)
        interval = f"{p.low:.4g} .. {p.high:.4g}"
        yield (
            f"{c.chip:<10} {p.ms:>10.4g} {interval:>23} {p.bound:<9} {p.tflops:>8.3g} {p.utilisation:>6.1%} "
            f"{p.chip_rows:>5}  {parts}"
        )


def by_op(cost: Cost) -> Iterator[str]:
    """The ops that take the most."""
    yield (f"{'op':<24} {'name':<32} {'ms':>9} {'80 % interval':>21} {'share':>6} {'GFLOP':>8} {'MiB':>7} "
           f"{'TFLOPS':>7} {'util.':>6} {'rows':>4} bound")  # fmt: skip
    for op in sorted(cost.ops, key=lambda op: -op.ms)[:TOP]:
        yield (
            f"{op.op[:24]:<24} {op.name[:32]:<32} {op.ms:>9.4g} {f'{op.low:.3g} .. {op.high:.3g}':>21} "
            f"{op.ms / cost.prediction.ms:>6.1%} {op.flops / 1e9:>8.4g} {op.bytes / 2**20:>7.3g} {op.tflops:>7.3g} "
            f"{op.utilisation:>6.1%} {op.rows:>4} {op.bound}"
        )
    rest = len(cost.ops) - TOP
    if rest > 0:
        yield f"... and {rest} more"
