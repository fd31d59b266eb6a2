"""What ``Program.profile`` measured, as values; ``text`` and ``page`` show them."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from ..errors import FormatError

EXPLAINED = 0.1  # a limit that accounts for less of an op's time than this does not bound it


@dataclass(frozen=True)
class Limits:
    """The most the processor can do with ``threads`` threads, measured: FLOP/s of float32, bytes/s of a large copy.

    Of the Neural Engine nothing is measured: its limits are 0, and its programs one row, as it runs them in one.
    Data that a cache holds moves faster than ``bytes_per_second``, and int8 products exceed ``flops_per_second``.
    """

    device: str
    instruction_set: str
    threads: int
    flops_per_second: float
    bytes_per_second: float

    def bound(self, flops: int, bytes: int, seconds: float) -> str:
        """What keeps work of so many FLOP and bytes from taking less: "compute", "memory", or "overhead".

        The limit that alone would take longer, unless that is less than a tenth of the ``seconds``
        it took: then it is what a cost in FLOP and bytes does not see, such as starting the work.
        "unknown" where the limits are.
        """
        if not self.flops_per_second or not self.bytes_per_second:
            return "unknown"
        computing, moving = flops / self.flops_per_second, bytes / self.bytes_per_second
        if max(computing, moving) < EXPLAINED * seconds:
            return "overhead"
        return "compute" if computing > moving else "memory"


@dataclass(frozen=True)
class Memory:
    """Bytes of a compiled program: intermediate tensors, the least any placement of them needs, packed constants."""

    arena_bytes: int
    live_bytes_peak: int
    packed_bytes: int

    @property
    def ratio(self) -> float:
        """The arena over the least it could be; 1 is the best."""
        return self.arena_bytes / self.live_bytes_peak if self.live_bytes_peak else 1.0


@dataclass(frozen=True, kw_only=True)
class Work:
    """What ran, what it took and what it did: ``seconds``, and its ``share`` of the sum over all ops.

    ``gflops`` is in 1e9 FLOP/s, ``gbytes_per_s`` in 1e9 bytes/s, ``flops`` in FLOP, ``bytes`` counts inputs, weights
    and outputs.
    """

    op: str
    seconds: float
    share: float
    flops: int
    bytes: int
    gflops: float
    gbytes_per_s: float
    bound: str


@dataclass(frozen=True, kw_only=True)
class Row(Work):
    """One op that ran, by ``name``: the median, 10th and 90th percentile of its seconds, its cost by ``anex.ops``."""

    name: str
    p10: float
    p90: float


@dataclass(frozen=True, kw_only=True)
class OpType(Work):
    """All ``count`` ops of one type together."""

    count: int


@dataclass(frozen=True)
class Profile:
    """What ``Program.profile`` measured: ``print`` it, look at it in a notebook, or keep ``to_json`` or ``to_html``.

    ``median``, ``p10`` and ``p90`` are seconds of a whole call from Python; ``overhead`` is the median of
    what of them lies outside all ops: Python, binding the tensors, repacking those that are not packed.
    ``device`` is "double" where the tests' stand-in took the Neural Engine's place: that is no measurement of hardware.
    ``rows`` are the ops in the order they ran, and their medians need not add up to that of the call. Ops
    that only rename memory, or were computed while compiling, have no row.
    """

    device: str
    repeat: int
    median: float
    p10: float
    p90: float
    overhead: float
    rows: tuple[Row, ...]
    memory: Memory
    limits: Limits

    @property
    def flops(self) -> int:
        """FLOP of one call."""
        return sum(row.flops for row in self.rows)

    @property
    def tflops(self) -> float:
        """1e12 FLOP/s of the whole call."""
        return self.flops / self.median / 1e12 if self.median else 0.0

    @property
    def by_op(self) -> tuple[OpType, ...]:
        """The rows by type of op, the type with the most time first."""
        groups: dict[str, list[Row]] = {}
        for row in self.rows:
            groups.setdefault(row.op, []).append(row)
        types = (self._together(op, rows) for op, rows in groups.items())
        return tuple(sorted(types, key=lambda each: -each.seconds))

    @property
    def total(self) -> OpType:
        """All rows together."""
        return self._together("TOTAL", self.rows)

    def _together(self, op: str, rows: Sequence[Row]) -> OpType:
        seconds, flops, bytes = (sum(getattr(row, k) for row in rows) for k in ("seconds", "flops", "bytes"))
        gflops, gbytes, bound = rates(self.limits, flops, bytes, seconds)
        return OpType(
            op=op, count=len(rows), seconds=seconds, share=sum(row.share for row in rows), flops=flops, bytes=bytes,
            gflops=gflops, gbytes_per_s=gbytes, bound=bound,
        )  # fmt: skip

    def __str__(self) -> str:
        from .text import lines

        return "\n".join(lines(self))

    def to_json(self) -> str:
        """Everything above as JSON, in the same plain units; ``Profile.from_json`` reads it."""
        return json.dumps(self.as_dict(), indent=1)

    def as_dict(self) -> dict[str, Any]:
        """The same in plain values."""
        derived = {"tflops": self.tflops, "flops": self.flops}
        return {"format": "anex.profile", "version": 1} | dataclasses.asdict(self) | derived

    @classmethod
    def from_json(cls, text: str) -> Profile:
        """The profile that ``to_json`` wrote."""
        try:
            found = json.loads(text)
            return cls(
                **{key: found[key] for key in ("device", "repeat", "median", "p10", "p90", "overhead")},
                rows=tuple(Row(**row) for row in found["rows"]),
                memory=Memory(**found["memory"]),
                limits=Limits(**found["limits"]),
            )
        except (ValueError, KeyError, TypeError) as error:
            raise FormatError(f"this is no profile in JSON: {error!r}") from error

    def to_html(self) -> str:
        """A page with pictures that needs no other file: write it to ``profile.html``."""
        from .page import page

        return page(self)

    def _repr_html_(self) -> str:
        from .page import fragment

        return fragment(self)


def rates(known: Limits, flops: int, bytes: int, seconds: float) -> tuple[float, float, str]:
    """1e9 FLOP/s, 1e9 bytes/s, bound."""
    tick = max(seconds, 1e-9)  # a clock of nanoseconds shows 0 for less
    return flops / tick / 1e9, bytes / tick / 1e9, known.bound(flops, bytes, tick)
