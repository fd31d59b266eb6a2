"""Where float16 gives way: values past the documented limits, each with the op it happened in and the way out.

What the engine's rules say of values (``anex.ops``, ``Rule.cliff``) is done and counted by the CPU engine, in a run
with ``ane_numerics=True``. Beside it, the values themselves are looked at: what overflows any float16, what int8
clips, and constants that float16 does not hold.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from ..comparison.metrics import LARGEST, NORMAL
from ..comparison.runs import Side
from ..devices.numerics import Crossing
from ..devices.stepwise import is_static
from ..errors import AneWarning
from ..ops import dtype_name
from ..ops.record import size
from ..program import compile

if TYPE_CHECKING:
    from coremltools.converters.mil.mil import Operation

    from ..ops.rule import Finding

HEADROOM = 0.5  # of float16's range, above which a larger input is likely to overflow
TELLING = 0.01  # share of an op's values that is worth a line of its own
IEEE = ("IEEE 754: binary16",)
Q38 = ("Q38: clip(rint(x / scale), -128, 127) models the hardware",)


@dataclass(frozen=True)
class Cliff:
    """Values of one op past a limit. ``id``: of the rule, or of the detector here. ``count`` of ``elements`` values.

    ``minor``: true of most programs, and seldom of consequence.
    """

    id: str
    op: str
    name: str
    count: int
    elements: int
    found: str
    statement: str
    fix: str
    source: tuple[str, ...]
    minor: bool = False

    def __str__(self) -> str:
        sources = ", ".join(self.source)
        return f"[{self.id}] {self.op} {self.name!r}: {self.found}: {self.statement} ({sources}); {self.fix}"


def crossings(side: Side, given: Mapping[str, np.ndarray], chip: str) -> list[Cliff]:
    """What the engine's documented limits change in one run of a side's program."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", AneWarning)
        with compile(side.program, device="cpu", ane_numerics=True, chip=chip) as program:
            state = program.make_state() if program.states else None
            program(**{name: given[name] for name in program.inputs}, state=state)
    met = (each.message.crossing for each in caught if isinstance(each.message, AneWarning))
    sizes = {op.name: sum(map(size, op.outputs)) for op in side.ops if all(map(is_static, op.outputs))}
    return [_crossing(each, sizes.get(each.name, 0)) for each in met if isinstance(each, Crossing)]


def _crossing(each: Crossing, elements: int) -> Cliff:
    rule = each.rule
    minor = each.kernel == "anex_flush" and each.count < TELLING * max(1, elements)
    return Cliff(rule.id, each.op, each.name, each.count, elements, each.happened, rule.statement, rule.fix,
                 rule.source, minor)  # fmt: skip


class Values:
    """An observer (``anex.comparison.compare``) that looks at the values of each op."""

    def __init__(self) -> None:
        self.found: list[Cliff] = []

    def __call__(self, op: Operation, here: Mapping[str, Any], there: Mapping[str, Any]) -> None:
        self.found += _clipped(op, here)
        for var in op.outputs:
            if var.name in here and var.name in there and dtype_name(var) == "fp16":
                self.found += _overflow(op, here[var.name], there[var.name])


def _overflow(op: Operation, found: np.ndarray, exact: np.ndarray) -> Iterator[Cliff]:
    finite = np.isfinite(exact)
    sizes = np.abs(exact[finite])
    most, count = float(sizes.max(initial=0)), exact.size
    scale = "scale the values down before, and up after"
    if past := int(np.count_nonzero(sizes > LARGEST)):
        yield Cliff("fp16-overflow", op.op_type, op.name, past, count, f"{past} value(s) up to {most:.4g}",
                    f"float16 ends at {LARGEST:g}; larger values are infinite", scale, IEEE)  # fmt: skip
    elif lost := int(np.count_nonzero(finite & ~np.isfinite(found))):
        yield Cliff("not-finite", op.op_type, op.name, lost, count,
                    f"{lost} value(s) are infinite or NaN where the reference has at most {most:.4g}",
                    "an operand was infinite, or a limit below float16's own was passed",
                    "look at the first op that is named here", ("seen in this run",))  # fmt: skip
    elif near := int(np.count_nonzero(sizes > HEADROOM * LARGEST)):
        yield Cliff("fp16-headroom", op.op_type, op.name, near, count, f"values up to {most:.4g}",
                    f"float16 ends at {LARGEST:g}: a larger input overflows", scale, IEEE, minor=True)  # fmt: skip


def _clipped(op: Operation, here: Mapping[str, np.ndarray]) -> Iterator[Cliff]:
    """What ``quantize`` and casts to integers cut off."""
    kind = dtype_name(op.outputs[0]) if op.outputs and hasattr(op.outputs[0], "dtype") else ""
    if op.op_type not in ("quantize", "cast") or not kind.startswith(("int", "uint")):
        return
    x = here.get(op.inputs["input" if op.op_type == "quantize" else "x"].name)
    if x is None or x.dtype.kind != "f":
        return
    codes = x.astype(np.float64)
    fix = "clip, or scale, before the cast"
    if op.op_type == "quantize":
        scale, zero, axis = (op.inputs.get(name) for name in ("scale", "zero_point", "axis"))
        if scale.val is None or (zero is not None and zero.val is None):
            return
        with np.errstate(divide="ignore", invalid="ignore"):
            codes = codes / _along(scale.val, axis, x.ndim)
        codes = np.rint(codes) + (0 if zero is None else _along(zero.val, axis, x.ndim))
        fix = "calibrate on data that look like these, or leave the op in float16"
    info = np.iinfo(kind)
    if past := int(np.count_nonzero((np.trunc(codes) < info.min) | (np.trunc(codes) > info.max))):
        yield Cliff("saturation", op.op_type, op.name, past, codes.size, f"{past} value(s) lie outside {kind}",
                    f"{kind} holds {info.min} to {info.max}; the rest is clipped", fix, Q38,
                    minor=past < TELLING * codes.size)  # fmt: skip


def _along(value: Any, axis: Any, rank: int) -> np.ndarray:
    array = np.asarray(value, np.float64)
    if array.ndim == 0 or axis is None or axis.val is None:
        return array
    return array.reshape([-1 if i == int(axis.val) % rank else 1 for i in range(rank)])


def constants(side: Side) -> Iterator[Cliff]:
    """Numbers written in the program that the engine's float16 does not hold."""
    for op in side.ops:
        for name, var in op.inputs.items():
            value = getattr(var, "val", None)
            if value is None or isinstance(value, str) or np.asarray(value).dtype.kind != "f" or "scale" in name:
                continue
            array = np.abs(np.asarray(value, np.float64))
            if array.size == 1 and 0 < array.max() < NORMAL:
                yield Cliff("subnormal-constant", op.op_type, op.name, 1, 1, f"{name} is {float(array.max()):.3g}",
                            f"below {NORMAL:.3g}, float16's least normal number, it counts as zero on the engine",
                            "use 1e-4 or more", ("H3", "FRG", "TRN: epsilons from 1e-4 on"))  # fmt: skip
            elif count := int(np.count_nonzero(np.isinf(array))):
                yield Cliff("infinite-constant", op.op_type, op.name, count, array.size,
                            f"{name} has {count} infinite value(s)", "nobody has tried infinite constants",
                            "use -1e4 for masks", ("ORI: -1e4 and -65504 are right",))  # fmt: skip


def wrong_by_rule(findings: Iterable[Finding]) -> list[Cliff]:
    """Rules that say an op is silently wrong on the chip, whatever the values."""
    return [
        Cliff(each.rule.id, each.op_type, each.op_name, 0, 0, each.found, each.rule.statement, each.rule.fix,
              each.rule.source, minor=each.rule.confidence == "low")
        for each in findings
        if each.rule.severity == "W" and not each.cured and each.rule.cliff is None
    ]  # fmt: skip
