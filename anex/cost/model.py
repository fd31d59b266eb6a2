"""The fitted model: predictions with an interval, what bounds them, and how much was measured behind them."""

from __future__ import annotations

import functools
import json
import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from .. import published as measured
from ..errors import ArgumentError, FormatError
from . import rows as published
from .chips import Chip, chip
from .fitting import refit
from .kriging import Hyper, Kriging, Names, offset, points, target
from .peak import Peaks, shared
from .physics import BOUNDS, NAMES, Array, Batch, Parameters, Terms
from .work import PATHS, Load

DATA = Path(__file__).parent / "data"
FITTED = DATA / "fitted.json"
FORMAT = "anex.cost"
AT_ONCE = 1000  # loads, for the sake of memory
HERE = "this machine"  # the source of measurements that a user made


@dataclass(frozen=True)
class Prediction:
    """``ms`` with its 80 % interval ``low`` .. ``high``; what it is made of sums to it.

    ``bounds``: ms by ``BOUNDS``, the largest is ``bound``. ``works``: ms of each work of the load, ``work_bounds``
    what it is bound by, ``work_rows`` the rows of this chip with such a work. ``rows``: measured
    rows of this chip with this kind of load, ``chip_rows`` of this chip at all. ``utilisation``: of the chip's peak
    in the arithmetic the load uses, which neither ``ms`` nor ``low`` exceeds.
    """

    ms: float
    low: float
    high: float
    bounds: Mapping[str, float]
    works: tuple[float, ...]
    work_bounds: tuple[str, ...]
    work_rows: tuple[int, ...]
    flops: float
    utilisation: float
    rows: int
    chip_rows: int

    @property
    def bound(self) -> str:
        return max(self.bounds, key=lambda name: self.bounds[name])

    @property
    def tflops(self) -> float:
        return self.flops / self.ms / 1e9


@dataclass(frozen=True)
class Known:
    """A measurement that the model rests on."""

    row: published.Row
    load: Load
    ms: float
    chip: Chip
    outlying: float

    @property
    def kind(self) -> str:
        return kind_of(self.load, self.row.op)


def kind_of(load: Load, op: str) -> str:
    """What shares the errors of its form: whole models do, whatever they are called."""
    return load.kind if load.kind == "whole_model" else f"{load.kind} {op}"


class Model:
    """Physics and the regression on what it was fitted to."""

    def __init__(self, parameters: Parameters, hyper: Hyper, factor: float, known: Sequence[Known]) -> None:
        """``factor``: half an 80 % interval in predicted standard deviations, found by leaving data out."""
        self.parameters, self.hyper, self.factor, self.known = parameters, hyper, factor, tuple(known)
        self._names = Names()
        chips = [each.chip for each in known]
        at = points(
            parameters, chips, [each.row.path for each in known], [each.load for each in known],
            [each.kind for each in known], [each.row.source for each in known], self._names,
        )  # fmt: skip
        ms = np.array([each.ms for each in known])
        # a user's machine is a chip of its own, so that others of its name say no more of it than their kin does
        self._own = {each.chip.name.removesuffix(f", {HERE}"): each.chip for each in known if each.row.source == HERE}
        self.kriging = Kriging(
            at, target(at, parameters, chips, ms), hyper, np.array([each.outlying for each in known])
        )
        kinds = ((each.chip.name, kind) for each in known for kind in {work.kind for work in each.load.works})
        self._measured = Counter(kinds)
        self.peaks = Peaks(parameters, [(each.chip, each.load, each.ms) for each in known])

    def predict(
        self, loads: Sequence[Load], chips: Sequence[Chip], paths: Sequence[str], *,
        ops: Sequence[str] | None = None, sources: Sequence[str] | None = None, beyond: Sequence[float] | None = None,
    ) -> list[Prediction]:  # fmt: skip
        """One prediction a load. ``sources``: who measured it, where that is known; ``ops``: a row's op.

        ``beyond``: more spread, in logarithms, of loads that are unlike what was measured.
        """
        ops, beyond = ops or [""] * len(loads), beyond or [0.0] * len(loads)
        found = []
        for part in (slice(begin, begin + AT_ONCE) for begin in range(0, len(loads), AT_ONCE)):
            some = None if sources is None else sources[part]
            found += self._predict(loads[part], chips[part], paths[part], ops[part], some, beyond[part])
        return found

    def _predict(
        self, loads: Sequence[Load], chips: Sequence[Chip], paths: Sequence[str], ops: Sequence[str],
        sources: Sequence[str] | None, beyond: Sequence[float],
    ) -> list[Prediction]:  # fmt: skip
        kinds = [kind_of(load, op) for load, op in zip(loads, ops, strict=True)]
        is_own = [not sources or sources[i] in ("", HERE) for i in range(len(loads))]
        chips = [self._own.get(each.name, each) if own else each for each, own in zip(chips, is_own, strict=True)]
        runs = list(sources) if sources else [self._here(each) for each in chips]
        at = points(self.parameters, chips, paths, loads, kinds, runs, self._names)
        mean, variance = self.kriging.predict(at)
        shift = mean - offset(at, self.parameters, chips)
        half = self.factor * np.sqrt(variance + np.asarray(beyond) ** 2)
        work_bounds = at.terms.bound_of_works()
        least = [self.peaks.least(chip, load) for chip, load in zip(chips, loads, strict=True)]
        floors = np.array([each.sum() for each in least])
        times = np.maximum(np.exp(at.base + shift), floors)
        scaled = _scaled(at.terms, times, least)
        shares, works = scaled.bounds(), scaled.works
        found = []
        for i, load in enumerate(loads):
            ms, floor = float(times[i]), float(floors[i])
            mine = np.flatnonzero(at.terms.row == i)
            names = {chips[i].name, chips[i].name.removesuffix(f", {HERE}")} if chips[i].known else set()
            behind = [sum(self._measured[name, work.kind] for name in names) for work in load.works]
            same = [each for each in self.known if each.chip.name in names]
            found.append(
                Prediction(
                    ms, max(floor, ms * math.exp(-half[i])), ms * math.exp(half[i]),
                    {name: float(part) for name, part in zip(BOUNDS, shares[i], strict=True)},
                    tuple(float(works[n]) for n in mine), tuple(work_bounds[n] for n in mine), tuple(behind),
                    load.flops, floor / ms,
                    sum(each.load.kind == load.kind for each in same), len(same),
                )
            )  # fmt: skip
        return found

    def _here(self, chip: Chip) -> str:
        """The user's own measurements of this chip are of the machine that predictions are for."""
        return HERE if any(each.row.source == HERE and each.chip == chip for each in self.known) else ""

    def calibrated(self, lines: Sequence[Mapping[str, str]]) -> Model:
        """The model with a user's own measurements: their chips refitted, and what is left learnt."""
        if any(line.get("device") == "double" for line in lines):
            raise ArgumentError("the calibration was measured on the stand-in of the framework, not on hardware")
        own = usable([dict(line, source=HERE) for line in lines])
        if not own:
            raise ArgumentError("no row of the calibration has a chip, a known workload and a time")
        parameters = self.parameters
        own = [replace(known, chip=replace(known.chip, name=f"{known.chip.name}, {HERE}")) for known in own]
        for each in {known.chip for known in own}:
            mine = [known for known in own if known.chip == each]
            shipped = parameters.chips.get(each.name.removesuffix(f", {HERE}"), np.zeros(len(NAMES)))
            parameters = Parameters(
                parameters.population, parameters.generation, {**parameters.chips, each.name: shipped}
            )
            batch = Batch([each] * len(mine), [known.row.path for known in mine], [known.load for known in mine])
            parameters = refit(parameters, each, batch, np.array([known.ms for known in mine]))
        return Model(parameters, self.hyper, self.factor, [*self.known, *own])


def _scaled(terms: Terms, times: Array, least: Sequence[Array]) -> Terms:
    """``terms`` that add up to ``times``, no work taking less than its ``least``."""
    by_load, by_work, works = np.ones(len(times)), np.ones(len(terms.row)), terms.works
    around = terms.start + terms.into + terms.out
    for i, total in enumerate(times):
        mine = np.flatnonzero(terms.row == i)
        parts = np.array([around[i], *works[mine]])
        factors = shared(float(total), parts, np.array([0.0, *least[i]])) / np.where(parts, parts, 1.0)
        by_load[i], by_work[mine] = factors[0], factors[1:]
    return terms.scaled(by_load, by_work)


def usable(lines: Sequence[Mapping[str, str]], outlying: Mapping[str, float] | None = None) -> list[Known]:
    """The lines that a model can rest on; ``outlying``: of some, by id, how much noisier they are than usual."""
    found, outlying = [], outlying or {}
    for line, row in zip(lines, published.rows(lines), strict=True):
        if line.get("use") == "check":
            continue
        where = chip(row.chip)
        if row.load is not None and row.load.kind != "dispatch" and row.ms and where.known:
            found.append(Known(row, row.load, row.ms, where, outlying.get(row.id, 1.0)))
    return found


def read(fitted: Path = FITTED, lines: Sequence[Mapping[str, str]] | None = None) -> Model:
    """The model of a file that ``calibrate`` wrote, and the measurements that it was given: the published ones."""
    try:
        facts: dict[str, Any] = json.loads(fitted.read_text(encoding="utf-8"))
        if facts["format"] != FORMAT:
            raise FormatError(f"{fitted} is no fitted cost model")
        population = np.log([number["population"] for number in facts["numbers"].values()])
        if list(facts["numbers"]) != list(NAMES):
            raise FormatError(f"{fitted} was written by another version of anex: run the calibration again")
        generations = np.log([list(number["by_generation"].values()) for number in facts["numbers"].values()])
        chips = {name: np.log([each["factor"] for each in values["numbers"].values()])
                 for name, values in facts["chips"].items()}  # fmt: skip
        parameters = Parameters(population, generations, chips)
        return Model(
            parameters,
            Hyper(**facts["regression"]),
            facts["interval_factor"],
            usable(measured.rows() if lines is None else lines, facts["outlying"]),
        )
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise FormatError(f"{fitted} is no fitted cost model: {error!r}") from error


@functools.cache
def shipped() -> Model:
    """The model that anex comes with."""
    return read()


def with_calibration(path: str | Path | None) -> Model:
    """The shipped model, with the measurements of a file in the format of ``anex calibrate`` where one is given."""
    return shipped().calibrated(published.read(path)) if path is not None else shipped()


def path_of(name: str) -> str:
    if name not in PATHS:
        raise ArgumentError(f"path {name!r} is none of {', '.join(PATHS)}")
    return name
