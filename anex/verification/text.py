"""A verification as text."""

from __future__ import annotations

from collections.abc import Iterator

from ..comparison.compare import OpDifference
from ..comparison.metrics import Difference
from .report import Verification

SHOWN = 20
NAME = 34


def lines(found: Verification, every_op: bool = False) -> Iterator[str]:
    if found.quantized is not None:
        yield str(found.quantized)
        yield ""
    yield f"device={found.device!r} against {found.against!r}" + (
        f", random inputs of seed {found.seed}" if found.seed is not None else ", given inputs")  # fmt: skip
    if found.not_run:
        yield f"not run: {found.not_run}"
    for name, each in found.outputs.items():
        verdict = "DIFFERS" if not each.relative <= found.max_error else "ok"
        yield f"output {name!r}: {verdict}, {_said(each)} (limit {found.max_error:g})"
    yield from _first(found)
    yield (
        f"residency {found.residency:.1%} of {len(found.explanation.ops)} ops on {found.chip}, simulated"
        + ("" if found.min_residency is None else f" (least {found.min_residency:.1%})")
        + ("" if found.resident else ": NOT RESIDENT ENOUGH")
    )
    if (off := found.explanation.first_off) is not None:
        yield f"first op to leave: {off.op} {off.name!r}: {off.reasons[0]}"
    yield from _cliffs(found)
    if found.modules:
        yield ""
        yield f"{'submodule':<{NAME}} {'relative':>9} {'max abs':>9} {'cosine':>10}   torch against {found.device}"
        for name, each in list(found.modules.items())[: None if every_op else SHOWN]:
            yield f"{name[:NAME]:<{NAME}} {each.relative:>9.2e} {each.max_abs:>9.2e} {each.cosine:>10.7f}"
        yield from _more(len(found.modules), every_op)
    if found.ops:
        chosen = found.ops if every_op else sorted(found.ops, key=lambda op: -_weight(op))[:SHOWN]
        yield ""
        yield "every op" if every_op else "the ops that add the most error of their own"
        yield from table(chosen)
        yield from _more(len(found.ops), every_op)


def table(ops: tuple[OpDifference, ...] | list[OpDifference]) -> Iterator[str]:
    yield (
        f"{'op':<22} {'name':<{NAME}} {'dtype':<6} {'own':>9} {'total':>9} {'max abs':>9} {'mean abs':>9} "
        f"{'max ulp':>8} {'cosine':>10}"
    )
    for op in ops:
        own = "-" if op.own is None else f"{op.own.relative:.2e}"
        t = op.total
        yield (
            f"{op.op[:22]:<22} {op.name[:NAME]:<{NAME}} {op.dtype:<6} {own:>9} {t.relative:>9.2e} {t.max_abs:>9.2e} "
            f"{t.mean_abs:>9.2e} {t.max_ulp:>8.3g} {t.cosine:>10.7f}"
        )


def _weight(op: OpDifference) -> float:
    return op.total.relative if op.own is None else op.own.relative


def _said(each: Difference) -> str:
    odd = f", {each.nonfinite} not finite where the other is" if each.nonfinite else ""
    return (
        f"relative error {each.relative:.2e}, max abs {each.max_abs:.2e}, mean abs {each.mean_abs:.2e}, "
        f"max ulp {each.max_ulp:.3g}, cosine {each.cosine:.7f}{odd}"
    )


def _first(found: Verification) -> Iterator[str]:
    first, culprit = found.first, found.culprit
    if first is None or culprit is None:
        return
    count = len(found.diverging)
    yield f"first op that diverges: {first.op} {first.name!r}, {_said(first.total)}; {count} op(s) in all"
    if first.own is None:
        yield "  the reference has no such op on the same operands, so its own part is not known"
    elif first.makes:
        yield f"  it makes that error: {first.own.relative:.2e} for exact operands"
    else:
        own = culprit.own.relative if culprit.own else 0.0
        yield (
            f"  it inherits that error, its own is {first.own.relative:.2e}; most was added by {culprit.op} "
            f"{culprit.name!r}, {own:.2e}"
        )


def _cliffs(found: Verification) -> Iterator[str]:
    if found.cliffs:
        yield ""
        yield f"limits of float16 and of the engine ({found.chip}):"
    telling = [each for each in found.cliffs if not each.minor]
    minor = [each for each in found.cliffs if each.minor]
    yield from (f"  {each}" for each in telling[:SHOWN])
    yield from _more(len(telling), False)
    for kind in dict.fromkeys(each.id for each in minor):
        of_kind = [each for each in minor if each.id == kind]
        first = of_kind[0]
        yield f"  minor: {len(of_kind)} op(s) with [{kind}], such as {first.op} {first.name!r}: {first.found}"


def _more(count: int, every: bool) -> Iterator[str]:
    if not every and count > SHOWN:
        yield f"... and {count - SHOWN} more"
