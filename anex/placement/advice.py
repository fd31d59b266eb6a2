"""What a residency means and what to do about it, in the terms of the field guide (S04)."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

from .report import ON_ANE, Explanation

MOSTLY, STILL_FINE, PARTLY = 0.999, 0.9, 0.3
ALTERNATING = 4  # segments from which units take turns
SLOW = 0.2  # of the chip's peak, below which a resident program is called slow
LARGE_WEIGHTS = 2e9


def advice(found: Explanation) -> Iterator[str]:
    if found.device != ON_ANE:
        return
    residency, off = found.residency, [op for op in found.ops if op.unit != ON_ANE]
    rules = Counter(finding.rule.id for op in off for finding in op.findings if finding.refuses)
    if residency >= MOSTLY:
        yield "100 % on the engine: ship it, and check once on a Mac that it is so."
    elif residency >= STILL_FINE:
        yield "95/5: a few ops fall back; if the model is fast enough, leave it, else rewrite the ops below."
    elif residency > PARTLY:
        turns = ", taking turns" if len(found.segments) >= ALTERNATING else ""
        yield f"70/30: attention or another structure leaves the engine{turns}; every change of unit costs a transfer."
    else:
        yield "0 %: next to nothing is left on the engine; convert to fp16 with fixed shapes first."
    if rules & Counter({"axis-extent": 1}) and any(op.op in ("softmax", "matmul") for op in off):
        yield (
            "An axis of the scores is above the limit: attend in chunks of 256 or 512 (anex.attention.chunked), or "
            "shorten the context."
        )
    if residency >= MOSTLY and found.residency_if_contested < STILL_FINE:
        yield (
            f"The field guide would leave {found.residency_if_contested:.0%} on the engine, measurements all of it: "
            "profile on a Mac before you rely on either."
        )
    if "static-shape" in rules:
        yield "Dynamic shapes: give every input a fixed shape, and make one program per size."
    if "fp16-only" in rules:
        yield "fp32: convert with compute_precision=FLOAT16."
    if 0 < len(off) <= 3:
        yield f"{len(off)} op(s) sink it: {', '.join(f'{op.op} {op.name!r}' for op in off)}."
    yield from _speed(found)


def _speed(found: Explanation) -> Iterator[str]:
    if found.cost is None:
        return
    prediction = found.cost.prediction
    if found.residency < STILL_FINE:
        yield "The predicted time is that of the whole program on the engine, which this one is not."
    elif prediction.bound == "dispatch":
        yield "Slow though resident: starting the program takes longer than its work; fuse programs, or send batches."
    elif prediction.bound in ("DRAM", "SRAM") and prediction.utilisation < SLOW:
        what = "streaming weights; quantise them" if prediction.bound == "DRAM" else "passing over data between ops"
        yield f"Slow though resident: it is bound by {what}. Products reach {prediction.utilisation:.0%} of the peak."
    layers = [op for op in found.ops if op.op == "layer_norm" and op.unit == ON_ANE]
    if layers and sum(op.ms for op in layers) > 0.2 * prediction.ms:
        share = sum(op.ms for op in layers) / prediction.ms
        yield f"{len(layers)} layer_norm take {share:.0%} of the time: norm over channels."
    weights = sum(op.weight_bytes for op in found.cost.ops)
    if found.units == "ALL" and weights > LARGE_WEIGHTS:
        yield (
            f"{weights / 1e9:.2g} GB of weights: with units='ALL' Core ML may send the whole model to the GPU (seen at "
            "1.5 B parameters in fp16 on M4; int8 went to the engine by a third; medium confidence)."
        )  # fmt: skip
