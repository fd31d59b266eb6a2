"""The command ``anex cost``."""

from __future__ import annotations

import json
import sys
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click

from ..commands import FUNCTION, WAY, WEIGHTS, one_line

if TYPE_CHECKING:
    from .model import Model

USUAL = ("M1", "M2", "M3", "M4", "M5", "M4 Max", "M5 Pro")


@click.command()
@click.argument("model", required=False, type=click.Path(path_type=Path))
@click.option(
    "--chip", "chips", multiple=True, metavar="NAME", help="A chip, several times, or 'all'; such as 'M4 Max'."
)
@WAY
@WEIGHTS
@FUNCTION
@click.option("--rows", type=click.Path(path_type=Path), help="Predict the rows of a CSV of measurements; print a CSV.")
@click.option("--published", is_flag=True, help="Predict every row of the source documents' tables; print them.")
@click.option("--source", default="", help="With --published: rows of sources that begin so; 'all' for every source.")
@click.option("--evaluate", is_flag=True, help="Leave rows out of the fit and tell how far off they are: minutes.")
@click.option("--calibration", type=click.Path(path_type=Path), help="Measurements of your own, by `anex calibrate`.")
@click.option("--ops", is_flag=True, help="Also the ops that take the most, on the first chip.")
@click.option("--json", "as_json", is_flag=True, help="JSON instead of text.")
def cost(
    model: Path | None, chips: Sequence[str], path: str, weights: Path | None, function: str, rows: Path | None,
    published: bool, source: str, evaluate: bool, calibration: Path | None, ops: bool, as_json: bool,
) -> None:  # fmt: skip
    """Predict how long MODEL takes on a Neural Engine, with an 80 % interval: nothing is run.

    MODEL is a .mlpackage, a .mlmodelc or MIL text.
    """
    from .model import path_of, with_calibration

    if (model is not None) + (rows is not None and not evaluate) + published + evaluate != 1:
        raise click.UsageError("give a MODEL, --rows FILE.csv, --published or --evaluate")
    with one_line():
        if evaluate:
            _evaluate(rows)
            return
        fitted = with_calibration(calibration)
        if published:
            _published(source, fitted, as_json)
        elif rows is not None:
            _rows(rows, fitted, as_json)
        elif model is not None:
            _model(model, chips or USUAL, path_of(path), weights, function, fitted, ops, as_json)


def _rows(file: Path, fitted: Model, as_json: bool) -> None:
    from . import rows, text

    lines = text.priced(rows.read(file), fitted)
    click.echo(json.dumps(lines, indent=1) if as_json else text.as_csv(lines), nl=as_json)
    click.echo(text.accuracy(lines), err=True)


def _published(source: str, fitted: Model, as_json: bool) -> None:
    from .. import published
    from . import text

    wanted = published.rows(source="" if source == "all" else source or "seed")
    if not wanted:
        raise click.ClickException(f"no source of the published measurements begins with {source!r}")
    lines = text.priced(wanted, fitted)
    click.echo(json.dumps(lines, indent=1) if as_json else "\n".join(text.beside(lines)))
    click.echo(text.accuracy(lines), err=True)


def _evaluate(rows: Path | None) -> None:
    from .. import published
    from . import rows as published_rows
    from .evaluate import Data, report
    from .model import shipped

    data = Data(published.rows() if rows is None else published_rows.read(rows))
    for line in report(data, shipped().hyper, shipped().factor):
        click.echo(line)
        sys.stdout.flush()


def _model(
    file: Path, names: Sequence[str], path: str, weights: Path | None, function: str, fitted: Model,
    ops: bool, as_json: bool,
) -> None:  # fmt: skip
    from ..load import from_file
    from ..ops.findings import function_findings as findings_of
    from . import text
    from .chips import chip
    from .program import cost as predict

    names = sorted({known.chip.name for known in fitted.known}) if "all" in names else names
    for unknown in (name for name in names if not chip(name).known):
        raise click.ClickException(f"chip {unknown!r} is no Apple chip; such as 'M4 Max', 'A18 Pro', 'h16g', or 'all'")
    program = from_file(file, function or None, weights, zeros=True)
    costs = [predict(program, chip(name), path=path, model=fitted) for name in names]
    if as_json:
        click.echo(json.dumps(text.as_json(costs), indent=1))
        return
    click.echo(f"{file.name}: predicted, not measured; one call through the {path} path.")
    click.echo("\n".join(text.summary(costs)))
    for note in dict.fromkeys(note for each in costs for note in each.notes):
        click.echo(f"note: {note}")
    chosen = program.functions.get(function or "main") or next(iter(program.functions.values()))
    refused = Counter(found.op_type for found in findings_of(chosen, chip(names[0]).family) if found.refuses)
    if refused:
        which = ", ".join(f"{count} {name}" for name, count in refused.items())
        click.echo(f"note: priced as if the engine ran it, which {names[0]} refuses: {which}; see `anex explain`")
    if ops:
        click.echo(f"\non {costs[0].chip}:")
        click.echo("\n".join(text.by_op(costs[0])))
    sys.stdout.flush()
