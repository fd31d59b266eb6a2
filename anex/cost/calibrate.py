"""Fit the cost model to a CSV of measurements: ``python -m anex.cost.calibrate MEASUREMENTS.csv [--output FOLDER]``.

Writes ``fitted.json`` (each number with its unit and the count of rows that feel it; how far predictions are off
when rows are left out) and ``measurements.csv`` (the rows it rests on). Takes about two minutes.
"""

from __future__ import annotations

import argparse
import csv
import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from . import rows as published
from .fitting import fit
from .kriging import Groups, Hyper, Index, Kriging, Names, Points, choose, offset, points, target
from .model import DATA, FITTED, FORMAT, MEASURED, Known, usable
from .physics import GENERATION_COUNT, NAMES, NUMBERS, Array, Batch, Parameters

COLUMNS = (
    "row_id", "source", "chip", "os", "path", "workload", "op", "depth", "in_ch", "out_ch", "kernel", "height",
    "width", "batch", "dtype", "weight_mb", "act_mb", "gflop", "ms", "note", "outlying",
)  # fmt: skip
CONFIGURATION = ("chip", "path", "workload", "op", "depth", "in_ch", "out_ch", "kernel", "height", "width", "batch",
                 "dtype")  # fmt: skip
FOLDS = 8
COVERED = 0.85  # of left-out rows must lie in what is called an 80 % interval: rows of others will be off more
FEELS = 0.05  # a row feels a number when changing it by 10 % changes the row by 0.5 %


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


def _points(parameters: Parameters, known: Sequence[Known], names: Names) -> Points:
    return points(
        parameters, [each.chip for each in known], [each.row.path for each in known], [each.load for each in known],
        [each.kind for each in known], [each.row.source for each in known], names,
    )  # fmt: skip


def _fit(known: Sequence[Known], ms: Array) -> Parameters:
    chips = [each.chip for each in known]
    return fit(chips, Batch(chips, [each.row.path for each in known], [each.load for each in known]), ms)


def _regression(data: Data, chosen: Index, hyper: Hyper) -> tuple[Parameters, Names, Kriging]:
    known = [data.known[int(i)] for i in chosen]
    parameters, names = _fit(known, data.ms[chosen]), Names()
    at = _points(parameters, known, names)
    aim = target(at, parameters, [each.chip for each in known], data.ms[chosen])
    return parameters, names, Kriging(at, aim, hyper).robust(data.within(chosen, data.configurations))


def left_out(data: Data, folds: Groups, hyper: Hyper) -> tuple[Array, Array]:
    """log(predicted / measured) and its predicted spread, of each row, by a model fitted without its fold."""
    error, spread = np.zeros(len(data.ms)), np.ones(len(data.ms))
    for fold in folds:
        kept = np.setdiff1d(np.arange(len(data.ms)), fold)
        parameters, names, regression = _regression(data, kept, hyper)
        known = [data.known[int(i)] for i in fold]
        at = _points(parameters, known, names)
        mean, variance = regression.predict(at)
        shift = mean - offset(at, parameters, [each.chip for each in known])
        error[fold] = at.base + shift - np.log(data.ms[fold])
        spread[fold] = np.sqrt(variance)
    return error, spread


def summary(error: Array, spread: Array | None = None, factor: float = 0.0) -> dict[str, float]:
    """How far off, in parts of the measured time."""
    off = np.abs(np.expm1(error))
    found = {"rows": len(off), "median": round(float(np.median(off)), 4), "p90": round(float(np.quantile(off, 0.9)), 4)}
    if spread is not None:
        found["inside_the_interval"] = round(float(np.mean(np.abs(error) <= factor * spread)), 4)
    return found


def calibrate(lines: Sequence[Mapping[str, str]], made_from: str) -> tuple[dict[str, Any], list[dict[str, str]]]:
    """What goes into the two files."""
    data = Data(lines)
    everything = np.arange(len(data.ms))
    parameters, _, regression = _regression(data, everything, Hyper())
    hyper = choose(
        regression.known, regression.target, [data.configurations, data.sources], Hyper(), 3
    )  # fmt: skip
    parameters, _, regression = _regression(data, everything, hyper)
    shuffled = np.random.default_rng(0).permutation(len(data.configurations))
    folds = [np.concatenate([data.configurations[i] for i in shuffled[n::FOLDS]]) for n in range(FOLDS)]
    by_configuration = left_out(data, folds, hyper)
    factor = float(np.quantile(np.abs(by_configuration[0]) / by_configuration[1], COVERED))
    chips = [each.chip for each in data.known]
    mean, spread = regression.predict(regression.known)
    trained = regression.known.base + mean - offset(regression.known, parameters, chips) - np.log(data.ms)
    facts = {
        "format": FORMAT,
        "made_from": made_from,
        "validation": {
            "of the rows fitted": summary(trained, np.sqrt(spread), factor),
            f"{FOLDS} folds, whole configurations left out": summary(*by_configuration, factor),
            "one source left out": summary(*left_out(data, data.sources, hyper), factor),
            "one chip left out": summary(*left_out(data, data.chips, hyper), factor),
        },
        "interval_factor": round(factor, 4),
        "regression": {name: float(f"{value:.5g}") for name, value in asdict(hyper).items()},
        **_numbers(parameters, data, regression.known),
    }
    kept = [{**{name: line.get(name, "") for name in COLUMNS}, "outlying": f"{outlying:.3g}"}
            for line, outlying in zip(data.lines, regression.outlying, strict=True)]  # fmt: skip
    return facts, kept


def _numbers(parameters: Parameters, data: Data, at: Points) -> dict[str, Any]:
    feels = np.abs(at.slopes) >= FEELS
    chips: dict[str, Any] = {}
    for name in sorted(parameters.chips):
        of = np.array([each.chip.name == name for each in data.known])
        one = next(each.chip for each in data.known if each.chip.name == name)
        chips[name] = {
            "rows": int(of.sum()),
            "sources": len({each.row.source for each in data.known if each.chip.name == name}),
            "numbers": {
                number: {"value": float(f"{parameters.value(one, number):.5g}"),
                         "factor": float(f"{np.exp(parameters.chips[name][i]):.6g}"), "rows": int(feels[of, i].sum())}
                for i, number in enumerate(NAMES)
            },
        }  # fmt: skip
    numbers = {
        name: {
            "what": number.what,
            "unit": number.unit,
            "population": float(f"{np.exp(parameters.population[i]):.6g}"),
            "by_generation": {f"M{g + 1}": float(f"{np.exp(parameters.generation[i, g]):.6g}")
                              for g in range(GENERATION_COUNT)},
            "rows": int(feels[:, i].sum()),
        }
        for i, (name, number) in enumerate(NUMBERS.items())
    }  # fmt: skip
    return {"numbers": numbers, "chips": chips}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("measurements", type=Path, help="a CSV with the columns of data/measurements.csv")
    parser.add_argument("--output", type=Path, default=DATA, help="the folder to write to")
    arguments = parser.parse_args()
    digest = hashlib.sha256(arguments.measurements.read_bytes()).hexdigest()[:16]
    facts, kept = calibrate(published.read(arguments.measurements), f"{arguments.measurements.name} sha256 {digest}")
    arguments.output.mkdir(parents=True, exist_ok=True)
    (arguments.output / FITTED.name).write_text(json.dumps(facts, indent=1) + "\n", encoding="utf-8")
    with (arguments.output / MEASURED.name).open("w", newline="", encoding="utf-8") as file:
        table = csv.DictWriter(file, COLUMNS)
        table.writeheader()
        table.writerows(kept)
    for name, found in facts["validation"].items():
        print(f"{name}: " + ", ".join(f"{key} {value:g}" for key, value in found.items()))


if __name__ == "__main__":
    main()
