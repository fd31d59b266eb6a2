"""What makes a program slow on the Neural Engine though it runs there: warnings with numbers and who found them.

What it does not run at all, ``anex.explain`` says.
"""

from __future__ import annotations

import math
import os
import re
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from .._coremltools import coremltools
from ..cost.chips import Chip
from ..cost.chips import chip as chip_named
from ..cost.model import Model, shipped
from ..cost.program import CONVOLUTIONS, PRODUCTS, Cost, cost, operations
from ..errors import ArgumentError, UnsupportedError
from ..ops import OPS
from ..ops.record import shape, value
from ..ops.rules import is_weight
from .stats import depth, program_of

if TYPE_CHECKING:
    from coremltools.converters.mil.mil import Function, Operation

DEEP = 16  # products in a chain, from which the engine is kept busy
FITS = 32 * 2**20  # bytes of one op's operands
WORTH_A_START = 1.0  # ms
SHOWN = 3  # ops that a warning names
# Names that converters and builders make up: what a caller of the model sees of it.
MADE_UP = re.compile(
    r"(?:var|op|input|output|x|y|tensor|node|identity)?_?\d+(?:_cast_(?:fp|int|uint)\d+)?|.*_cast_fp(?:16|32)"
)


@dataclass(frozen=True)
class Warned:
    """``rule``: W-DEPTH, W-MATMUL, W-SRAM, W-DISPATCH or W-NAME. ``ops``: those it is about, by name; of all of the
    program where there are none. ``found`` and ``limit`` have the numbers, ``sources`` who measured them."""

    rule: str
    ops: tuple[str, ...]
    found: str
    limit: str
    sources: tuple[str, ...]
    confidence: str
    fix: str

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)

    def __str__(self) -> str:
        some = ", ".join(self.ops[:SHOWN]) + (f" and {len(self.ops) - SHOWN} more" if len(self.ops) > SHOWN else "")
        where = f" ({some})" if some else ""
        return (
            f"{self.rule}: {self.found}{where}\n    limit: {self.limit}; {', '.join(self.sources)}; confidence "
            f"{self.confidence}\n    fix: {self.fix}"
        )


def lint(
    model: Any, *, chip: str = "M4", function: str = "", weights: str | os.PathLike[str] | None = None,
    fitted: Model | None = None,
) -> list[Warned]:  # fmt: skip
    """What to mend in a MIL program, or that of a file, for the sake of its speed; predicted times are of ``chip``.

    >>> @anex.graph(x=(1, 256, 768))
    ... def program(x):
    ...     return mb.linear(x=x, weight=np.zeros((768, 768), np.float16), name="y")
    >>> [each.rule for each in anex.miltools.lint(program)]
    ['W-DEPTH', 'W-MATMUL', 'W-DISPATCH']
    """
    where = chip_named(chip)
    if not where.known:
        raise ArgumentError(f"chip {chip!r} is no Apple chip; such as 'M4', 'M5 Max', 'A18 Pro' or 'h16g'")
    program = program_of(model, weights, function or None)
    known = fitted or shipped()
    with coremltools():
        chosen = program.functions.get(function or "main") or next(iter(program.functions.values()))
        try:
            predicted = cost(program, where, model=known, function=function)
        except UnsupportedError:
            predicted = None
        ops = list(operations(chosen))
        return [
            *_depth(ops, predicted, where), *_matmul(ops, predicted, where, known), *_sram(ops),
            *_dispatch(predicted), *_names(chosen),
        ]  # fmt: skip


def _depth(ops: list[Operation], predicted: Cost | None, chip: Chip) -> Iterator[Warned]:
    deep = depth(ops, CONVOLUTIONS | PRODUCTS)
    if not 0 < deep < DEEP:
        return
    used = f"; predicted: {100 * predicted.prediction.utilisation:.2g} % of {chip.name}'s peak" if predicted else ""
    yield Warned(
        "W-DEPTH", (), f"{deep} product(s) follow from each other{used}",
        f"{DEEP} to 64: a single one reached 30 % of the peak, 32 and more 94 %", ("S01 (maderix, M4)",), "medium",
        "put more of the model into one program: every start of one costs as much as the work of a small one",
    )  # fmt: skip


def _matmul(ops: list[Operation], predicted: Cost | None, chip: Chip, known: Model) -> Iterator[Warned]:
    """The products that a 1x1 convolution can do, by their sizes."""
    ms = {id(op): each.ms for op, each in zip(ops, predicted.ops, strict=True)} if predicted else {}
    alike: dict[tuple[str, int, int, int], list[Operation]] = {}
    for op in ops:
        sizes = _as_convolution(op)
        if sizes:
            alike.setdefault((op.op_type, *sizes), []).append(op)
    for (kind, m, k, n), some in alike.items():
        now = sum(ms.get(id(op), 0.0) for op in some)
        flops = sum(OPS[op.op_type].flops(op) for op in some)
        best = flops / known.parameters.value(chip, "rate")
        stored = predicted is not None and now <= best * 1.05
        if stored:
            continue  # bound by its weights, which a convolution streams too
        times = f", predicted {now:.3g} ms on {chip.name}; {best:.3g} ms at the rate of 1x1 convolutions" if now else ""
        yield Warned(
            "W-MATMUL", tuple(op.name for op in some), f"{len(some)} {kind} of {m} x {k} by {k} x {n}{times}",
            "a matmul takes up to 3 times as long as the same 1x1 conv by S01, 1.2 to 2.4 times in all measurements",
            ("S01 (maderix, M4)", "FIT (716 measurements)"), "medium",
            f"conv: x [1, {k}, 1, {m}], weight [{n}, {k}, 1, 1], result [1, {n}, 1, {m}]",
        )  # fmt: skip


def _as_convolution(op: Operation) -> tuple[int, int, int] | None:
    """(rows, inner, columns) of a product of anything by a constant matrix."""
    try:
        if op.op_type == "linear" and is_weight(op.inputs["weight"]):
            n, k = shape(op.inputs["weight"])
        elif op.op_type == "matmul" and is_weight(op.inputs["y"]) and not value(op, "transpose_x", False):
            matrix = shape(op.inputs["y"])
            if len(matrix) < 2 or math.prod(matrix[:-2]) != 1:
                return None
            k, n = matrix[-2:][::-1] if value(op, "transpose_y", False) else matrix[-2:]
        else:
            return None
        return math.prod(shape(op.outputs[0])) // max(1, n), k, n
    except (TypeError, ValueError):  # symbolic
        return None


def _sram(ops: list[Operation]) -> Iterator[Warned]:
    large: dict[str, int] = {}
    for op in ops:
        try:
            touched = OPS[op.op_type].bytes(op)
        except (TypeError, ValueError, KeyError, IndexError, AttributeError, OverflowError):  # symbolic, absent
            continue
        if touched > FITS:
            large[op.name] = touched
    if large:
        most = max(large, key=lambda name: large[name])
        names = (most, *(name for name in large if name != most))
        yield Warned(
            "W-SRAM", names, f"{len(large)} op(s) with a working set above {FITS >> 20} MB, up to "
            f"{large[most] / 2**20:.0f} MB of inputs, weights and results",
            "no capacity is published: 16 MB (S04), 24 to 32 (S02), 32 (S01: 5.7 TFLOPS at 24 MB, 4.0 at 96)",
            ("S01 (maderix, M4)", "S02 (M4 Max)", "S04 (field guide)"), "low",
            "split the op over channels or positions; attend in chunks",
        )  # fmt: skip


def _dispatch(predicted: Cost | None) -> Iterator[Warned]:
    if predicted is None or predicted.prediction.ms >= WORTH_A_START:
        return
    p = predicted.prediction
    yield Warned(
        "W-DISPATCH", (), f"one call takes {p.ms:.3g} ms on {predicted.chip} as predicted ({p.low:.2g} .. "
        f"{p.high:.2g}), {p.bounds['dispatch']:.2g} of it to start the program",
        f"{WORTH_A_START:g} ms: a start takes 0.095 ms by S01, 0.05 to 0.3 in all measurements",
        ("S01 (maderix, M4)", "FIT (716 measurements)"), "high",
        "give one call more to do: fuse programs, or send batches",
    )  # fmt: skip


def _names(function: Function) -> Iterator[Warned]:
    made_up = [var.name for var in (*function.inputs.values(), *function.outputs) if _is_made_up(var)]
    if made_up:
        yield Warned(
            "W-NAME", tuple(made_up), f"{len(made_up)} input(s) or output(s) have a name that a converter made up",
            "names of inputs and outputs are how a model is called, and change when it is converted again",
            ("Core ML's interface",), "high", "name them: the arguments of the function, name= of the last ops",
        )  # fmt: skip


def _is_made_up(var: Any) -> bool:
    """Such as var_12, or relu_0 for the result of a relu."""
    own = var.op.op_type if var.op is not None else ""
    return bool(MADE_UP.fullmatch(var.name) or (own and re.fullmatch(rf"{re.escape(own)}_\d+(?:_\d+)?", var.name)))
