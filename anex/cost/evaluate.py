"""How far off the cost model is on rows it was not fitted to: left out by configuration, by source, by chip."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from . import rows as published
from .fitting import fit
from .kriging import Groups, Hyper, Index, Kriging, Names, Points, offset, points, target
from .model import Known, usable
from .physics import Array, Batch, Parameters

CONFIGURATION = ("chip", "path", "workload", "op", "depth", "in_ch", "out_ch", "kernel", "height", "width", "batch",
                 "dtype")  # fmt: skip
FOLDS = 8


class Data:
    """Measurements, and the ways to leave some out."""

    def __init__(self, lines: Sequence[Mapping[str, str]]) -> None:
        self.known = usable(lines)
        by_id = {published.row(line, number).id: line for number, line in enumerate(lines, 2)}
        self.lines = [by_id[each.row.id] for each in self.known]
        self.ms = np.array([each.ms for each in self.known])
        self.configurations = self._groups(tuple(line.get(name, "") for name in CONFIGURATION) for line in self.lines)
        self.sources = self._groups(each.row.source for each in self.known)
        self.chips = self._groups(each.chip.name for each in self.known)

    def _groups(self, keys: Iterator[Any]) -> list[Index]:
        found: dict[Any, list[int]] = {}
        for i, key in enumerate(keys):
            found.setdefault(key, []).append(i)
        return [np.array(each, np.intp) for each in found.values()]

    def within(self, chosen: Index, groups: Groups) -> list[Index]:
        """The groups as places in ``chosen``."""
        place = {int(i): n for n, i in enumerate(chosen)}
        parts = (np.array([place[int(i)] for i in group if int(i) in place], np.intp) for group in groups)
        return [part for part in parts if len(part)]

    def folds(self) -> list[Index]:
        """Whole configurations at random, in ``FOLDS`` parts."""
        shuffled = np.random.default_rng(0).permutation(len(self.configurations))
        parts = [[self.configurations[i] for i in shuffled[n::FOLDS]] for n in range(FOLDS)]
        return [np.concatenate(part) for part in parts if part]


def _points(parameters: Parameters, known: Sequence[Known], names: Names) -> Points:
    return points(
        parameters, [each.chip for each in known], [each.row.path for each in known], [each.load for each in known],
        [each.kind for each in known], [each.row.source for each in known], names,
    )  # fmt: skip


def _fit(known: Sequence[Known], ms: Array) -> Parameters:
    chips = [each.chip for each in known]
    return fit(chips, Batch(chips, [each.row.path for each in known], [each.load for each in known]), ms)


def regression(data: Data, chosen: Index, hyper: Hyper) -> tuple[Parameters, Names, Kriging]:
    """Fitted to the chosen rows."""
    known = [data.known[int(i)] for i in chosen]
    parameters, names = _fit(known, data.ms[chosen]), Names()
    at = _points(parameters, known, names)
    aim = target(at, parameters, [each.chip for each in known], data.ms[chosen])
    return parameters, names, Kriging(at, aim, hyper).robust(data.within(chosen, data.configurations))


def left_out(data: Data, folds: Groups, hyper: Hyper) -> tuple[Array, Array]:
    """log(predicted / measured) and its predicted spread, of each row, by a model fitted without its fold."""
    error, spread = np.zeros(len(data.ms)), np.ones(len(data.ms))
    beyond = np.array([each.row.beyond for each in data.known])
    for fold in folds:
        kept = np.setdiff1d(np.arange(len(data.ms)), fold)
        if not len(kept):
            continue
        parameters, names, found = regression(data, kept, hyper)
        known = [data.known[int(i)] for i in fold]
        at = _points(parameters, known, names)
        mean, variance = found.predict(at)
        shift = mean - offset(at, parameters, [each.chip for each in known])
        error[fold] = at.base + shift - np.log(data.ms[fold])
        spread[fold] = np.sqrt(variance + beyond[fold] ** 2)
    return error, spread


def summary(error: Array, spread: Array | None = None, factor: float = 0.0) -> dict[str, float]:
    """How far off, in parts of the measured time."""
    off = np.abs(np.expm1(error))
    found = {"rows": len(off), "median": round(float(np.median(off)), 4), "p90": round(float(np.quantile(off, 0.9)), 4)}
    if spread is not None:
        found["inside_the_interval"] = round(float(np.mean(np.abs(error) <= factor * spread)), 4)
    return found


def report(data: Data, hyper: Hyper, factor: float) -> Iterator[str]:
    """What ``anex cost --evaluate`` prints: each way to leave rows out, then the folds by path, workload and chip."""
    yield f"{'left out':<44} {'rows':>5} {'median':>8} {'p90':>8} {'inside the 80 % interval':>25}"
    ways = (("whole configurations, 8 folds", data.folds()), ("one source at a time", data.sources),
            ("one chip at a time", data.chips))  # fmt: skip
    by_fold = None
    for name, folds in ways:
        found = left_out(data, folds, hyper)
        by_fold = by_fold or found
        yield _line(name, summary(*found, factor))
    assert by_fold is not None
    for column in ("path", "workload", "chip"):
        of: dict[str, list[int]] = {}
        for i, line in enumerate(data.lines):
            of.setdefault(line.get(column, ""), []).append(i)
        yield f"of the folds, by {column}:"
        for name, where in sorted(of.items(), key=lambda item: -len(item[1])):
            yield _line(f"  {name}", summary(by_fold[0][where], by_fold[1][where], factor))


def _line(name: str, found: Mapping[str, float]) -> str:
    return (f"{name:<44} {found['rows']:>5} {found['median']:>8.1%} {found['p90']:>8.1%} "
            f"{found['inside_the_interval']:>25.1%}")  # fmt: skip
