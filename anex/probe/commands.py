"""The command ``anex probe``."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import click

from ..bench.progress import progress
from ..bench.timing import QUICK, Effort


@click.command()
@click.argument("names", nargs=-1)
@click.option("--all", "everything", is_flag=True, help="Every probe.")
@click.option("--list", "listed", is_flag=True, help="The probes and what they ask; nothing is run.")
@click.option("--device", type=click.Choice(["ane", "cpu"]), help="ane where there is one, else cpu.")
@click.option("--quick", is_flag=True, help="Few timed calls.")
@click.option("--report", type=click.Path(path_type=Path), help="Write the answers there, as JSON.")
@click.option("--json", "as_json", is_flag=True, help="JSON instead of text.")
def probe(
    names: Sequence[str], everything: bool, listed: bool, device: str | None, quick: bool, report: Path | None,
    as_json: bool,
) -> None:  # fmt: skip
    """Ask the questions NAMES of a device: run something, check its numbers, tell and keep the verdict.

    Exits with 1 if a check failed. Answers are kept by machine, under ANEX_HOME or the user's cache folder.
    """
    from .. import answers as answers_of
    from ..bench.machine import default, facts
    from ..errors import Error
    from . import asking
    from .record import PROBES

    if listed:
        for each in PROBES.values():
            click.echo(f"{each.name:16} {each.question} [{each.source}]")
        return
    if bool(names) == everything:
        raise click.UsageError("give NAMES of probes, or --all; --list shows them")
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
    if report is not None:
        report.write_text(json.dumps(whole, indent=1) + "\n", encoding="utf-8")
    if as_json:
        click.echo(json.dumps(whole, indent=1))
    else:
        click.echo("\n".join(table(answers)))
    answers_of.save(where, {found["name"]: found for found in answers if found["status"] != "SKIP"})
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
    count = {status: sum(found["status"] == status for found in answers) for status in ("PASS", "FAIL", "SKIP")}
    return [*lines, f"{count['PASS']} passed, {count['FAIL']} failed, {count['SKIP']} skipped of {len(answers)}"]
