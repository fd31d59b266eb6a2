"""Fit the cost model to measurements: ``python -m anex.cost.calibrate [MEASUREMENTS.csv] [--output FOLDER]``.

Without a CSV, to the published ones (``anex.published``). Writes ``fitted.json``: each number with its unit and the
count of rows that feel it, and how far predictions are off when rows are left out. Takes some minutes.
"""

from __future__ import annotations

import argparse
import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from .. import published as measured
from . import rows as published
from .evaluate import FOLDS, Data, left_out, regression, summary
from .kriging import Hyper, Points, choose, offset
from .model import DATA, FITTED, FORMAT
from .physics import GENERATION_COUNT, NAMES, NUMBERS, Parameters

COVERED = 0.85  # of left-out rows must lie in what is called an 80 % interval: rows of others will be off more
FEELS = 0.05  # a row feels a number when changing it by 10 % changes the row by 0.5 %


def calibrate(lines: Sequence[Mapping[str, str]], made_from: str, hyper: Hyper | None = None) -> dict[str, Any]:
    """What goes into the file; ``hyper``: spreads and lengths, chosen anew where they are not given."""
    data = Data(lines)
    everything = np.arange(len(data.ms))
    if hyper is None:
        _, _, found = regression(data, everything, Hyper())
        hyper = choose(found.known, found.target, [data.configurations, data.sources], _before(), 2)
    parameters, _, found = regression(data, everything, hyper)
    by_configuration = left_out(data, data.folds(), hyper)
    factor = float(np.quantile(np.abs(by_configuration[0]) / by_configuration[1], COVERED))
    chips = [each.chip for each in data.known]
    mean, spread = found.predict(found.known)
    trained = found.known.base + mean - offset(found.known, parameters, chips) - np.log(data.ms)
    return {
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
        **_numbers(parameters, data, found.known),
        "outlying": {each.row.id: float(f"{outlying:.3g}")
                     for each, outlying in zip(data.known, found.outlying, strict=True) if outlying > 1},
    }  # fmt: skip


def _before() -> Hyper:
    """Of the fit before, which is nearer than the guesses."""
    try:
        return Hyper(**json.loads(FITTED.read_text(encoding="utf-8"))["regression"])
    except (OSError, ValueError, KeyError, TypeError):
        return Hyper()


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
    parser.add_argument("measurements", type=Path, nargs="?", help="a CSV with the columns of anex.published")
    parser.add_argument("--output", type=Path, default=DATA, help="the folder to write to")
    parser.add_argument("--keep", action="store_true", help="keep the spreads and lengths of the fit before")
    arguments = parser.parse_args()
    file = arguments.measurements or measured.FILE
    hyper = _before() if arguments.keep else None
    digest = hashlib.sha256(file.read_bytes()).hexdigest()[:16]
    facts = calibrate(published.read(file), f"{file.name} sha256 {digest}", hyper)
    arguments.output.mkdir(parents=True, exist_ok=True)
    (arguments.output / FITTED.name).write_text(json.dumps(facts, indent=1) + "\n", encoding="utf-8")
    for name, found in facts["validation"].items():
        print(f"{name}: " + ", ".join(f"{key} {value:g}" for key, value in found.items()))


if __name__ == "__main__":
    main()
