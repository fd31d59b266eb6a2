"""The commands ``anex bench all`` and ``anex bench merge``."""

from __future__ import annotations

import contextlib
import signal
import sys
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Any

import click

from .. import files
from ..bench.options import CHIP, DEVICE
from ..bench.progress import progress
from ..commands import one_line

if TYPE_CHECKING:
    from .playing import Plan


def percent(context: click.Context, parameter: click.Parameter, text: str) -> float:
    """``15%`` is 0.15, and so is ``15``."""
    try:
        found = float(text.strip().removesuffix("%")) / 100
    except ValueError:
        found = -1.0
    if not 0 <= found < float("inf"):
        raise click.BadParameter(f"{text!r} is no percentage such as 15%")
    return found


@contextlib.contextmanager
def heeded(plan: Plan) -> Iterator[None]:
    """Ctrl-C ends the run though somebody's code swallows the exception: the plan knows of it."""

    def interrupt(number: int, frame: FrameType | None) -> None:
        plan.interrupted = True
        raise KeyboardInterrupt

    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGINT, interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


@click.command("all")
@click.option("--quick", is_flag=True, help="A selection of small configurations, few calls: minutes, not an hour.")
@click.option("--training-only", "only", flag_value="training", help="Of the three sections the trainings.")
@click.option("--probes-only", "only", flag_value="probes", help="Of the three sections the probes.")
@click.option("--benchmarks-only", "only", flag_value="benchmarks", help="Of the three sections the benchmarks.")
@click.option("--name", "names", multiple=True, help="Only what is called so; several times.")
@click.option("--steps", type=click.IntRange(1), default=10, show_default=True, help="Of each training.")
@click.option("--out", type=click.Path(path_type=Path, file_okay=False), default=Path("."), help="The folder (here).")
@click.option("--compare", "base", type=click.Path(path_type=Path), help="Fail if slower than this JSON report.")
@click.option("--fail-above", default="15%", callback=percent, show_default=True, help="By more than so much.")
@click.option("--gallery", type=click.Path(path_type=Path, file_okay=False), help="Draw pictures and a page there.")
@DEVICE
@CHIP
@click.option("--json", "as_json", is_flag=True, help="The JSON report instead of the summary.")
def everything(
    quick: bool, only: str | None, names: Sequence[str], steps: int, out: Path, base: Path | None, fail_above: float,
    gallery: Path | None, device: str | None, chip: str, as_json: bool,
) -> None:  # fmt: skip
    """Run trainings, probes and benchmarks, and write a text and a JSON report.

    Both are whole at any time: Ctrl-C leaves what is done. Exits with 1 if anything failed, got slower than --compare
    allows, or was interrupted.
    """
    from ..bench import machine, plots
    from . import gate, reports
    from .outcome import SECTIONS
    from .playing import Plan, items, outcomes
    from .writing import Report

    sections = (only,) if only else tuple(SECTIONS)
    plan = Plan(device or machine.default(), chip, quick, steps, sections, names)
    with one_line():  # what would end the run at its end ends it here
        before = None if base is None else reports.load(base)
        if gallery is not None:
            plots.figure()
        if not items(plan):
            raise click.UsageError(f"no --name is in the section {only}")
        if gallery is not None:
            files.folder(gallery, "--gallery")
        report = Report(plan, out)
        report.write()
    try:
        with heeded(plan), progress() as listener:
            for outcome in outcomes(plan, listener):
                report.outcomes.append(outcome)
                report.write()
                if not as_json:
                    click.echo(outcome.line)
    except KeyboardInterrupt:  # between two of them
        plan.interrupted = True
    report.finished = not plan.interrupted
    report.write()
    failed = report.failed
    lines = [*report.total(), report.state(), f"The reports are {report.text_file} and {report.json_file}."]
    with one_line():
        if before is not None:
            compared = gate.compare(before, report.as_json(), fail_above)
            lines += compared.lines()
            failed = failed or compared.failed
        if gallery is not None:
            from .gallery import draw

            lines.append(f"The pictures are in {draw(plan.runs, gallery, plan.device)[-1]}.")
    click.echo(files.as_json(report.as_json()) if as_json else "\n".join(filter(None, lines)))
    if as_json and before is not None:
        click.echo("\n".join(compared.lines()), err=True)
    sys.exit(1 if failed else 0)


@click.command("merge")
@click.argument("several", metavar="FILES...", nargs=-1, required=True, type=click.Path(path_type=Path))
@click.option("--out", required=True, type=click.Path(path_type=Path), help="A .json, to merge again, or a .md table.")
def merge(several: Sequence[Path], out: Path) -> None:
    """Put the JSON reports FILES of several machines, or files merged before, into one."""
    from . import community, reports

    writers: dict[str, Any] = {".json": lambda found: files.as_json(found) + "\n", ".md": community.markdown}
    if out.suffix not in writers:
        raise click.UsageError(f"--out {out}: the name ends in .json or .md")
    with one_line():
        files.writable(out, "--out")
        found = community.merged(map(reports.load, several))
        files.write(out, writers[out.suffix](found))
    click.echo(f"{out}: {len(found['reports'])} report(s)")
