"""The command ``anex probe``."""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import click

from ..bench.progress import progress
from ..bench.timing import QUICK, Effort
from ..commands import one_line

TOLD = "-"  # --report without a file


@click.command()
@click.argument("names", nargs=-1)
@click.option("--all", "everything", is_flag=True, help="Every probe.")
@click.option("--list", "listed", is_flag=True, help="The probes and what they ask; nothing is run.")
@click.option("--device", type=click.Choice(["ane", "cpu"]), help="ane where there is one, else cpu.")
@click.option("--quick", is_flag=True, help="Few timed calls.")
@click.option(
    "--report",
    is_flag=False,
    flag_value=TOLD,
    metavar="[FILE]",
    help="Also the published table of six questions about weights, for this machine; with a FILE the answers as JSON.",
)
@click.option("--json", "as_json", is_flag=True, help="JSON instead of text.")
def probe(
    names: Sequence[str], everything: bool, listed: bool, device: str | None, quick: bool, report: str | None,
    as_json: bool,
) -> None:  # fmt: skip
    """Ask the questions NAMES of a device, or "all": run something, check its numbers, tell and keep the verdict.

    Exits with 1 if a check failed. Answers are kept by machine, under ANEX_HOME or the user's cache folder.
    """
    from .. import answers as answers_of
    from .. import files
    from ..bench.machine import default, facts
    from ..errors import Error
    from . import asking, immutability
    from .questions import PROBES

    if listed:
        for each in PROBES.values():
            click.echo(f"{each.name:16} {each.question} [{each.source}]")
        return
    if tuple(names) == ("all",) and not everything:
        names, everything = (), True
    if bool(names) == everything:
        raise click.UsageError("give NAMES of probes, or --all; --list shows them")
    file = None if report in (None, TOLD) else Path(str(report))
    with one_line():
        if file is not None:
            files.writable(file, "--report")
    where = device or default()
    answers: list[Mapping[str, Any]] = []
    interrupted = False
    try:
        with progress() as listener:
            for found in asking.ask(names, where, QUICK if quick else Effort(5, 100, 2.0), listener("probe")):
                answers.append(found)
                if not as_json:
                    click.echo("\n".join(text(found)))
    except KeyboardInterrupt:
        interrupted = True
    except Error as error:
        raise click.ClickException(str(error)) from error
    whole = {
        "schema_version": answers_of.SCHEMA,
        "system": dict(facts(where)),
        "interrupted": interrupted,
        "probes": answers,
    }
    text_of_it = files.as_json(whole)
    if as_json:
        click.echo(text_of_it)
    else:
        click.echo("\n".join(table(answers)))
        if report is not None or everything:
            click.echo("\n".join(["", *immutability.table(answers, where)]))
    with one_line():
        if file is not None:
            files.write(file, text_of_it + "\n")
        answers_of.save(where, answers_of.by_name(answers))
    sys.exit(1 if interrupted or any(found["status"] == "FAIL" for found in answers) else 0)


def text(found: Mapping[str, Any]) -> list[str]:
    """One answer as people read it."""
    lines = [f"{found['name']}: {found['question']}"]
    lines += [f"  {line}" for line in found["lines"]]
    lines += [
        f"  {c['what']}: {c['found']:.6g}, limit {c['limit']:g}: {'PASS' if c['passed'] else 'FAIL'}"
        for c in found["checks"]
    ]
    lines += [f"  published, {who}: {what}" for who, what in found["published"].items()]
    return [*lines, f"  {found['status']} on {found['device']}: {found['verdict']}", ""]


def table(answers: Sequence[Mapping[str, Any]]) -> list[str]:
    """Question and result: the published table, for this machine."""
    width = max((len(found["name"]) for found in answers), default=0)
    lines = [f"{found['name']:{width}}  {found['status']:15}  {found['verdict']}" for found in answers]
    from .record import EXPECTED

    count = Counter(found["status"] for found in answers)
    expected = f"{count[EXPECTED]} failed as expected, " if count[EXPECTED] else ""
    return [*lines, f"{count['PASS']} passed, {expected}{count['FAIL']} failed, {count['SKIP']} skipped "
                    f"of {len(answers)}"]  # fmt: skip
