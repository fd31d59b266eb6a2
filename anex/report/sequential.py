"""The published profiler's estimate: each op alone on one core of 16, one after the other.

anemll-profile prints what Espresso's cost model logs while Core ML compiles a model. Its reports of the two int8
bench models (M5, h17g) fix two rates to six digits, and with them everything else that those reports print: times,
GB/s, shares, totals, speedups. It is no prediction: programs use all cores, which is what "Speedup" counts.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from ..cost.program import runs
from ..ops import OPS
from ..ops.record import shape, size

if TYPE_CHECKING:
    from coremltools.converters.mil.mil import Block, Operation

CORES = 16
MIB = 2**20
COMPUTE = 2.147483648 / 1.800458  # GFLOP/ms: a 1x1 convolution of 512 channels to 512 on 64 x 64 pixels
MEMORY = 6 / 0.103401  # MiB/ms: quantize of 512 x 64 x 64 values, 4 MiB in and 2 MiB out
DIGITS = 4  # to which the log rounds an op's GFLOP: 128 x 2.147 are the 274.816 of its total
# FLOP per element of an unpacked weight, which the report leaves out of its rows but not of its totals: only with
# 4, and their 0.75 MiB each, 128 of them give its 33862.37 GFLOP/s, its speedup of 31.7 and its 89.2 % for conv.
UNPACKING = 4


@dataclass(frozen=True)
class Estimate:
    """One op on one core: exact GFLOP, MiB of inputs, weights and outputs, ms, and "Comp" or "Mem"."""

    op: str
    name: str
    gflop: float
    mib: float

    @property
    def ms(self) -> float:
        return max(self.gflop / COMPUTE, self.mib / MEMORY)

    @property
    def bound(self) -> str:
        return "Comp" if self.gflop / COMPUTE >= self.mib / MEMORY else "Mem"

    @property
    def logged(self) -> float:
        """GFLOP as the log rounds them."""
        return float(f"{self.gflop:.{DIGITS}g}")


@dataclass(frozen=True)
class Conv(Estimate):
    """A convolution, with its channels; ``efficiency``: of 16 cores that share its output channels, those at work."""

    into: int
    out: int

    @property
    def efficiency(self) -> float:
        return self.out / (-(-self.out // CORES) * CORES)


def entries(block: Block) -> Iterator[Operation]:
    """The ops that the cost model has an entry for: those that run, and those that unpack weights."""
    for op in block.operations:
        if runs(op) or is_unpacking(op):
            yield op
        for inner in op.blocks:
            yield from entries(inner)


def is_unpacking(op: Operation) -> bool:
    return str(op.op_type).startswith("constexpr_")


def estimates(ops: Sequence[Operation]) -> list[Estimate | None]:
    """Of each op; None where its shapes are not fixed or its cost is unknown."""
    return [_estimate(op) for op in ops]


def _estimate(op: Operation) -> Estimate | None:
    known = OPS.get(op.op_type)
    if known is None:
        return None
    try:
        flops = UNPACKING * size(op.outputs[0]) if is_unpacking(op) else known.flops(op)
        common = (op.op_type, op.name, flops / 1e9, known.bytes(op) / MIB)
        if op.op_type not in ("conv", "conv_transpose"):
            return Estimate(*common)
        return Conv(*common, shape(op.inputs["x"])[1], shape(op.outputs[0])[1])
    except (TypeError, ValueError, KeyError, IndexError, AttributeError, OverflowError):  # symbolic, absent, absurd
        return None
