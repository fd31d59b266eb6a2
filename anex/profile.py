"""What a program's calls spend their time on: measured, never predicted. ``Program.profile`` makes a ``Profile``."""

from __future__ import annotations

import dataclasses
import functools
import json
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from . import _native
from ._coremltools import coremltools
from .errors import ArgumentError, FormatError
from .ops import OPS
from .ops.record import nbytes

if TYPE_CHECKING:
    from coremltools.converters.mil import mil

    from .devices import Executable

WARM_UP = 2
TOP = 20  # ops that the text lists one by one
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


@functools.cache
def limits(threads: int) -> Limits:
    """Measured once per process and number of threads, which must be the number set now."""
    return Limits("cpu", _native.instruction_sets()[0], threads, *_native.measure_limits())


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


@dataclass(frozen=True)
class Row:
    """One op that ran: the median, 10th and 90th percentile of its seconds, and its cost by ``anex.ops``.

    ``share`` is that of the sum over all ops; ``gflops`` is in 1e9 FLOP/s, ``gbytes_per_s`` in 1e9 bytes/s,
    ``flops`` in FLOP, ``bytes`` counts inputs, weights and outputs.
    """

    op: str
    name: str
    seconds: float
    p10: float
    p90: float
    share: float
    flops: int
    bytes: int
    gflops: float
    gbytes_per_s: float
    bound: str


@dataclass(frozen=True)
class OpType:
    """All ops of one type together; units as in ``Row``, ``seconds`` of them all."""

    op: str
    count: int
    seconds: float
    share: float
    flops: int
    bytes: int
    gflops: float
    gbytes_per_s: float
    bound: str


@dataclass(frozen=True)
class Profile:
    """What ``Program.profile`` measured: ``print`` it, look at it in a notebook, or keep ``to_json`` or ``to_html``.

    ``median``, ``p10`` and ``p90`` are seconds of a whole call from Python; ``overhead`` is the median of
    what of them lies outside all ops: Python, binding the tensors, repacking those that are not packed.
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

    def _together(self, op: str, rows: Sequence[Row]) -> OpType:
        seconds, flops, bytes = (sum(getattr(row, k) for row in rows) for k in ("seconds", "flops", "bytes"))
        gflops, gbytes, bound = _rates(self.limits, flops, bytes, seconds)
        return OpType(op, len(rows), seconds, sum(row.share for row in rows), flops, bytes, gflops, gbytes, bound)

    def __str__(self) -> str:
        return "\n".join(_lines(self))

    def to_json(self) -> str:
        """Everything above as JSON, in the same plain units; ``Profile.from_json`` reads it."""
        derived = {"tflops": self.tflops, "flops": self.flops}
        return json.dumps({"format": "anex.profile", "version": 1} | dataclasses.asdict(self) | derived, indent=1)

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
        from .profile_page import page

        return page(self)

    def _repr_html_(self) -> str:
        from .profile_page import fragment

        return fragment(self)


# ---- measuring ----------------------------------------------------------------------------------


def measure(
    function: mil.Function, device: str, executable: Executable, arguments: tuple[Any, ...], repeat: int
) -> Profile:
    """Call ``repeat`` times after a warm-up, into the same outputs."""
    if isinstance(repeat, bool) or not isinstance(repeat, int) or repeat < 1:
        raise ArgumentError(f"repeat={repeat!r}: the number of timed calls is an int from 1 on")
    known = limits(_native.get_num_threads()) if device == "cpu" else Limits(device, "", 0, 0.0, 0.0)
    out = executable.run(arguments)
    for _ in range(WARM_UP):
        executable.profile(arguments, out)
    calls, nodes = [], []
    for _ in range(repeat):
        begin = time.perf_counter()
        seconds = executable.profile(arguments, out)
        calls.append(time.perf_counter() - begin)
        nodes.append(seconds)
    stats = executable.stats()
    memory = Memory(**{field.name: int(stats.get(field.name, 0)) for field in dataclasses.fields(Memory)})
    rows = _rows(function, executable.nodes(), nodes, known)
    outside = (call - sum(times) for call, times in zip(calls, nodes, strict=True))
    return Profile(device, repeat, *_percentiles(calls), _percentiles(outside)[0], rows, memory, known)


def _rows(
    function: mil.Function, nodes: Sequence[tuple[str, str, int]], seconds: Sequence[Sequence[float]], known: Limits
) -> tuple[Row, ...]:
    spread = [_percentiles(times) for times in zip(*seconds, strict=True)]
    total = sum(median for median, _, _ in spread)
    rows = []
    for (op, name, _), times, (flops, bytes) in zip(nodes, spread, _costs(function, nodes), strict=True):
        share = times[0] / total if total else 1 / len(nodes)
        gflops, gbytes, bound = _rates(known, flops, bytes, times[0])
        rows.append(Row(op, name, *times, share, flops, bytes, gflops, gbytes, bound))
    return tuple(rows)


def _costs(function: mil.Function, nodes: Sequence[tuple[str, str, int]]) -> list[tuple[int, int]]:
    """FLOP and bytes of each node; what no MIL op stands behind is a copy."""
    with coremltools():
        ops: dict[tuple[str, str], list[Any]] = {}
        for op in function.operations:
            ops.setdefault((op.op_type, op.name), []).append(op)
        costs = []
        by_name = {op.name: op for op in function.operations}
        for type_, names, output_bytes in nodes:
            name, *joined = names.split(" + ")  # the ops that run as part of it
            if type_ == "ane":
                known = [op for op in function.operations if op.op_type in OPS]
                costs.append(
                    (sum(OPS[op.op_type].flops(op) for op in known), sum(OPS[op.op_type].bytes(op) for op in known))
                )
                continue
            same = ops.get((type_, name), [])
            op = same.pop(0) if len(same) > 1 else same[0] if same else None
            if op is None and type_.startswith("anex_") and type_ != "anex_copy":  # the engine's way to do the op
                op = by_name.get(name)
            if op is None or op.op_type not in OPS:
                costs.append((0, 2 * output_bytes))
                continue
            chain = [op, *(by_name[part] for part in joined if part in by_name)]
            between = sum(nbytes(op.outputs[0]) for op in chain[:-1])  # neither written nor read
            flops = sum(OPS[op.op_type].flops(op) for op in chain)
            costs.append((flops, sum(OPS[op.op_type].bytes(op) for op in chain) - 2 * between))
        return costs


def _rates(known: Limits, flops: int, bytes: int, seconds: float) -> tuple[float, float, str]:
    """1e9 FLOP/s, 1e9 bytes/s, bound."""
    tick = max(seconds, 1e-9)  # a clock of nanoseconds shows 0 for less
    return flops / tick / 1e9, bytes / tick / 1e9, known.bound(flops, bytes, tick)


def _percentiles(seconds: Iterable[float]) -> tuple[float, float, float]:
    """The median, the 10th and the 90th."""
    import numpy as np

    median, p10, p90 = np.percentile(list(seconds), (50, 10, 90))
    return float(median), float(p10), float(p90)


# ---- text ---------------------------------------------------------------------------------------


def headlines(profile: Profile) -> list[str]:
    """What a reader of any of the outputs should know first; the device among it."""
    p, known, memory = profile, profile.limits, profile.memory
    ms = f"{p.median * 1e3:.4g} ms per call (p10 {p.p10 * 1e3:.4g}, p90 {p.p90 * 1e3:.4g}, {p.repeat} calls)"
    ceiling = (
        f"limits of {known.device} (measured): {known.flops_per_second / 1e9:.4g} GFLOP/s, "
        f"{known.bytes_per_second / 1e9:.4g} GB/s; {known.instruction_set}, {known.threads} thread(s)"
        if known.threads
        else f"limits of {known.device}: not measured"
    )
    return [
        f"device {p.device} (measured): {ms}, {p.flops / 1e9:.4g} GFLOP, {p.tflops * 1e3:.4g} GFLOP/s",
        ceiling,
        f"memory: {mebibytes(memory.arena_bytes)} for intermediate tensors, {memory.ratio:.2f}x of the largest sum "
        f"alive at once; {mebibytes(memory.packed_bytes)} of packed constants",
        f"outside ops: {p.overhead * 1e3:.4g} ms of the call",
    ]


def mebibytes(bytes: int) -> str:
    return f"{bytes / 2**20:.3g} MiB"


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


def _lines(profile: Profile) -> Iterable[str]:
    yield from headlines(profile)
    if not profile.rows:
        return
    types = profile.by_op
    total = profile._together("TOTAL", profile.rows)
    yield ""
    yield from _table([HEADER, *map(cells, types), cells(total)], left=1)
    slowest = sorted(profile.rows, key=lambda row: -row.seconds)[:TOP]
    yield ""
    yield f"the {len(slowest)} ops with the most time, of {len(profile.rows)}"
    yield from _table([TOP_HEADER, *map(top_cells, slowest)], left=2)


def _table(rows: Sequence[Sequence[str]], left: int) -> Iterable[str]:
    """Columns of their own width; the first ``left`` and the last one begin where their header does."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for row in rows:
        aligned = [
            cell.ljust(width) if i < left or i == len(row) - 1 else cell.rjust(width)
            for i, (cell, width) in enumerate(zip(row, widths, strict=True))
        ]
        yield "  ".join(aligned).rstrip()
