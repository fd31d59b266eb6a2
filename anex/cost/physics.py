"""Milliseconds from counted work: one start, copies, and for each work the slower of computing and streaming weights.

    t = starts * t0 + in / IN + out / OUT + sum over works of max(FLOP / rate, weights / stream) + passes + count * t_op

Every number is exp(population + generation + chip), each with a Gaussian prior around 0 for the last two: chips
without measurements of their own are their generation, and chips nobody measured the population.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from .chips import Chip
from .work import KINDS, PATHS, PRODUCTS, SCHEMES, Load

Array = npt.NDArray[np.float64]
T_OP = 1e-4  # ms per op inside a program
FULL = 3.7  # positions at which a product reaches half its rate
ANOMALY = 4096  # layers with this many channels, or a multiple, in and out


@dataclass(frozen=True)
class Number:
    """A fitted number: its guess, and the spread (in logarithms) of the population, of generations and of chips."""

    guess: float
    population: float
    generation: float
    chip: float
    unit: str
    what: str


NUMBERS: dict[str, Number] = {
    "rate": Number(17.9e9, 0.5, 0.2, 0.12, "FLOP/ms", "1x1 convolution, fp16"),
    "conv": Number(1.2, 0.3, 0.15, 0.1, "", "other kernels, as a factor on rate"),
    "linear": Number(0.65, 0.4, 0.2, 0.15, "", "products with constant weights, as a factor on rate"),
    "matmul": Number(0.4, 0.5, 0.2, 0.15, "", "products of two runtime values, as a factor on rate"),
    "tiled": Number(0.4, 0.5, 0.1, 0.1, "", "factor on linear once its operands are far above knee"),
    "knee": Number(48e6, 0.5, 0.05, 0.05, "bytes", "operands of a linear at which tiling is felt by half"),
    "stream": Number(66e6, 0.2, 0.12, 0.12, "bytes/ms", "weights from memory, fp16"),
    "wide": Number(1.85, 0.2, 0.05, 0.05, "", "factor on stream of chips with a wide memory path"),
    "anomaly": Number(0.6, 0.5, 0.4, 0.4, "", "factor on stream of layers of 4096 channels"),
    "decode": Number(0.8, 0.4, 0.2, 0.3, "", "factor on stream in a whole decoding step"),
    "lone": Number(1.0, 0.3, 0.1, 0.2, "", "factor on stream of a single product of one position"),
    "w8": Number(0.6, 0.4, 0.1, 0.3, "", "stored bytes per ms of int8 weights, as a factor on stream"),
    "int4lut": Number(0.55, 0.4, 0.1, 0.3, "", "the same of 4-bit palettes"),
    "lut6": Number(0.85, 0.4, 0.1, 0.2, "", "the same of 6-bit palettes"),
    "sparse": Number(0.6, 0.4, 0.1, 0.2, "", "the same of sparse weights"),
    "w8a8": Number(1.3, 0.5, 0.7, 0.1, "", "factor on rate of int8 weights and activations"),
    "narrow": Number(24.0, 0.6, 0.2, 0.1, "channels", "channels at which a convolution reaches half its rate"),
    "pass": Number(21e6, 0.02, 0.2, 0.2, "bytes/ms", "passes over what lies between ops"),
    "softmax": Number(1.2, 0.5, 0.2, 0.2, "passes", "softmax"),
    "layer_norm": Number(8.5, 0.5, 0.1, 0.1, "passes", "layer_norm"),
    "rms_norm": Number(60.0, 1.5, 0.1, 0.1, "passes", "rms_norm, of its own ops"),
    "norm": Number(2.0, 1.0, 0.1, 0.1, "passes", "group_norm, instance_norm, l2_norm"),
    "elementwise": Number(0.1, 0.6, 0.1, 0.1, "passes", "elementwise"),
    "table": Number(0.1, 0.6, 0.1, 0.1, "passes", "elementwise, looked up"),
    "reduce": Number(0.1, 0.6, 0.1, 0.1, "passes", "reductions"),
    "pool": Number(0.3, 0.6, 0.1, 0.1, "passes", "pooling"),
    "scores": Number(2.0, 0.5, 0.1, 0.1, "passes", "scores of attention, and caches"),
    "flat": Number(60.0, 1.0, 0.1, 0.1, "passes", "elementwise on rank 2 between products, which changes its layout"),
    "start_private": Number(0.14, 0.5, 0.2, 0.3, "ms", "starting a program, private path"),
    "start_e5rt": Number(0.083, 0.5, 0.2, 0.3, "ms", "starting a program, e5rt"),
    "start_coreml": Number(0.17, 0.5, 0.1, 0.2, "ms", "starting a program, Core ML"),
    "in_private": Number(54e6, 0.5, 0.1, 0.1, "bytes/ms", "inputs, private path"),
    "out_private": Number(54e6, 0.5, 0.1, 0.1, "bytes/ms", "outputs, private path"),
    "in_e5rt": Number(14e6, 0.6, 0.3, 0.4, "bytes/ms", "host copies in, e5rt"),
    "out_e5rt": Number(7.4e6, 0.8, 0.5, 0.6, "bytes/ms", "host copies out, e5rt"),
    "plain_out": Number(1.0, 0.2, 0.1, 0.5, "", "factor on out of results that no table or product made"),
    "in_coreml": Number(14e6, 0.6, 0.2, 0.2, "bytes/ms", "inputs, Core ML"),
    "out_coreml": Number(7.4e6, 0.8, 0.2, 0.2, "bytes/ms", "outputs, Core ML"),
}
NAMES = tuple(NUMBERS)
PLAIN = ("elementwise", "softmax")
GENERATION_COUNT = 5
BOUNDS = ("dispatch", "host", "compute", "DRAM", "SRAM")


@dataclass
class Parameters:
    """``log``: the fitted logarithms by number and then "population", "M4", "M4 Max"; what is absent is 0."""

    population: Array
    generation: Array  # [number, generation]
    chips: dict[str, Array] = field(default_factory=dict)

    @classmethod
    def prior(cls) -> Parameters:
        guesses = np.log([number.guess for number in NUMBERS.values()])
        return cls(guesses, np.zeros((len(NAMES), GENERATION_COUNT)))

    def of(self, chip: Chip) -> Array:
        """The logarithms for one chip."""
        found: Array = self.population.copy()
        if chip.known:
            found = found + self.generation[:, chip.generation - 1]
        own = self.chips.get(chip.name)
        if own is not None:
            found = found + own
        return found

    def value(self, chip: Chip, name: str) -> float:
        return float(np.exp(self.of(chip)[NAMES.index(name)]))

    def roofs(self, chip: Chip) -> tuple[float, float]:
        """FLOP/s and bytes/s of the chip, as fitted."""
        wide = self.value(chip, "wide") if chip.is_wide else 1.0
        return self.value(chip, "rate") * 1e3, self.value(chip, "stream") * wide * 1e3


class Batch:
    """Loads laid out for arithmetic: an entry per load, and an entry per work."""

    def __init__(self, chips: Sequence[Chip], paths: Sequence[str], loads: Sequence[Load]) -> None:
        self.chips = list(chips)
        self.path = np.array([PATHS.index(path) for path in paths], dtype=np.intp)
        self.into = np.array([load.in_bytes for load in loads], dtype=float)
        self.out = np.array([load.out_bytes for load in loads], dtype=float)
        self.dispatches = np.array([load.dispatches for load in loads], dtype=float)
        self.is_wide = np.array([chip.is_wide for chip in chips], dtype=bool)
        works = [(i, load, work) for i, load in enumerate(loads) for work in load.works]
        self.row = np.array([i for i, _, _ in works], dtype=np.intp)

        def column(values: Iterable[Any], kind: Any = float) -> Any:
            return np.array(list(values), dtype=kind)

        self.kind = column((KINDS.index(work.kind) for _, _, work in works), np.intp)
        self.scheme = column((SCHEMES.index(work.scheme) for _, _, work in works), np.intp)
        self.flops = column(work.flops for _, _, work in works)
        self.weights = column(work.weight_bytes for _, _, work in works)
        self.bytes = column(work.bytes for _, _, work in works)
        self.positions = column(work.positions for _, _, work in works)
        self.count = column(work.count for _, _, work in works)
        self.narrowest = column(min(work.channels) or 1 << 20 for _, _, work in works)
        self.anomalous = column((min(w.channels) > 0 and not any(c % ANOMALY for c in w.channels)
                                 for _, _, w in works), bool)  # fmt: skip
        self.decodes = column((load.kind == "llm_decode" for _, load, _ in works), bool)
        self.plain = np.array([bool(load.works) and load.works[-1].kind in PLAIN for load in loads], dtype=bool)
        self.lone = column((load.kind == "gemv" for _, load, _ in works), bool)

    @property
    def size(self) -> int:
        return len(self.chips)


@dataclass(frozen=True)
class Terms:
    """Milliseconds: by load, start and copies; by work, computing, streaming its weights, passing over data."""

    start: Array
    into: Array
    out: Array
    compute: Array
    stream: Array
    passes: Array
    overhead: Array
    row: npt.NDArray[np.intp]

    @property
    def works(self) -> Array:
        """ms of each work."""
        return np.maximum(self.compute, self.stream) + self.passes + self.overhead

    @property
    def total(self) -> Array:
        return self.start + self.into + self.out + self.sum(self.works)

    def sum(self, by_work: Array) -> Array:
        found: Array = np.zeros(len(self.start))
        np.add.at(found, self.row, by_work)
        return found

    def scaled(self, by_load: Array, by_work: Array) -> Terms:
        """What belongs to a load, and what to a work, times a factor of each."""
        return Terms(
            self.start * by_load, self.into * by_load, self.out * by_load, self.compute * by_work,
            self.stream * by_work, self.passes * by_work, self.overhead * by_work, self.row,
        )  # fmt: skip

    def bound_of_works(self) -> list[str]:
        """What each work is bound by."""
        parts = np.stack([self.overhead, self.compute, self.stream, self.passes], axis=1)
        names = ("dispatch", "compute", "DRAM", "SRAM")
        return [names[int(i)] for i in parts.argmax(axis=1)] if len(self.row) else []

    def bounds(self) -> Array:
        """ms by load of what ``BOUNDS`` names, [load, bound]; they add up to the total."""
        streams = self.stream > self.compute
        slower = np.maximum(self.compute, self.stream)
        return np.stack(
            [self.start + self.sum(self.overhead), self.into + self.out, self.sum(np.where(streams, 0, slower)),
             self.sum(np.where(streams, slower, 0)), self.sum(self.passes)], axis=1,
        )  # fmt: skip


def terms(logs: Array, batch: Batch) -> Terms:
    """``logs``: [load, number], the parameters of each load's chip."""
    by_load = np.exp(logs)
    by_work = by_load[batch.row]

    def of(name: str, table: Array) -> Array:
        column: Array = table[:, NAMES.index(name)]
        return column

    def path(what: str) -> Array:
        columns = np.array([NAMES.index(f"{what}_{each}") for each in PATHS])
        rates: Array = by_load[np.arange(batch.size), columns[batch.path]]
        return rates

    rate = of("rate", by_work).copy()
    kind = batch.kind
    for name in ("conv", "linear", "matmul"):
        rate = np.where(kind == KINDS.index(name), rate * of(name, by_work), rate)
    convolves = kind < PRODUCTS.index("linear")
    narrow = of("narrow", by_work)
    rate = np.where(convolves, rate * batch.narrowest / (batch.narrowest + narrow), rate)
    above = (batch.bytes / of("knee", by_work)) ** 2
    tiling = (1 + above * of("tiled", by_work)) / (1 + above)
    rate = np.where(kind == KINDS.index("linear"), rate * tiling, rate)
    rate = np.where(batch.scheme == SCHEMES.index("w8a8"), rate * of("w8a8", by_work), rate)
    rate = rate * batch.positions / (batch.positions + FULL)

    stream = of("stream", by_work) * np.where(batch.is_wide[batch.row], of("wide", by_work), 1)
    for name in ("w8", "int4lut", "lut6", "sparse"):
        stream = np.where(batch.scheme == SCHEMES.index(name), stream * of(name, by_work), stream)
    stream = np.where(batch.anomalous & ~batch.decodes, stream * of("anomaly", by_work), stream)
    stream = np.where(batch.decodes, stream * of("decode", by_work), stream)
    stream = np.where(batch.lone, stream * of("lone", by_work), stream)

    factors = np.zeros_like(rate)
    for name in KINDS[len(PRODUCTS) :]:
        factors = np.where(kind == KINDS.index(name), of(name, by_work), factors)
    return Terms(
        start=path("start") * batch.dispatches, into=batch.into / path("in"),
        out=batch.out / (path("out") * np.where(batch.plain, of("plain_out", by_load), 1)),
        compute=batch.flops / rate, stream=batch.weights / stream,
        passes=factors * batch.bytes / of("pass", by_work), overhead=T_OP * batch.count, row=batch.row,
    )  # fmt: skip


def logs(parameters: Parameters, chips: Sequence[Chip]) -> Array:
    known: Mapping[Chip, Array] = {chip: parameters.of(chip) for chip in {*chips}}
    return np.stack([known[chip] for chip in chips]) if chips else np.zeros((0, len(NAMES)))
