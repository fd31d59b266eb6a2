"""The command ``anex``, also ``python -m anex``."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import click

from ._coremltools import keep_frameworks_out
from .bench.commands import bench
from .bench.power_command import power
from .calibration import calibrate
from .commands import one_line
from .cost.commands import cost
from .dash.commands import dash
from .examples import train
from .miltools.commands import mil
from .placement.advising import command as advise
from .placement.commands import explain
from .probe.commands import probe
from .quantization.commands import quantize
from .report.commands import profile
from .suite.commands import everything, merge
from .verification.commands import verify

OWN_PROCESS = "the process is the command's own"
LIGHT = frozenset({"advise", "cost", "explain", "mil", "profile", "train"})  # convert nothing of other frameworks


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="anex")
@click.pass_context
def main(context: click.Context) -> None:
    """Program the Apple Neural Engine: what is here, and whether it works."""
    if context.obj == OWN_PROCESS and context.invoked_subcommand in LIGHT:
        keep_frameworks_out()


def run() -> None:
    """``anex``, as the shell calls it."""
    main(prog_name="anex", obj=OWN_PROCESS)


bench.add_command(everything)
bench.add_command(merge)
main.add_command(advise)
main.add_command(bench)
main.add_command(calibrate)
main.add_command(cost)
main.add_command(dash)
main.add_command(explain)
main.add_command(mil.commands["lint"])
main.add_command(mil)
main.add_command(power)
main.add_command(probe)
main.add_command(profile)
main.add_command(quantize)
main.add_command(train)
main.add_command(verify)


@main.command()
@click.option("--json", "as_json", is_flag=True, help="One JSON object instead of text.")
def doctor(as_json: bool) -> None:
    """Tell what this machine has, what anex expects of it, and what follows."""
    from . import doctor as examination

    facts = examination.examine()
    click.echo(json.dumps(facts, indent=1) if as_json else examination.text(facts))


@main.command()
@click.option("--output", type=click.Path(path_type=Path), help="Write the whole report there, as JSON.")
@click.option("--quick", is_flag=True, help="One case of each op in place of several.")
@click.option(
    "--only", multiple=True, metavar="NAME", help="An op, a probe, a group of probes, 'ops' or 'probes'; several times."
)
@click.option("--force", is_flag=True, help="Hand the framework also what the rules refuse.")
def selftest(output: Path | None, quick: bool, only: tuple[str, ...], force: bool) -> None:
    """Run every op on the Neural Engine against the CPU engine, and ask it what sources disagree on.

    Exits with 1 if something failed. The file of --output is what to attach to an issue.
    """
    from . import answers, files
    from .selftest import report

    with one_line():
        if output is not None:
            files.writable(output, "--output")

    def progress(name: str, done: int, total: int) -> None:
        if sys.stderr.isatty():
            click.echo(f"\r{done}/{total} {name[:50]:<50}", err=True, nl=done == total)

    with one_line():
        found = report.run(quick=quick, only=only, force=force, listener=progress)
        if output is not None:
            files.write(output, files.as_json(found) + "\n")
        if kept := answers.of_selftest(found["probes"]):
            answers.save("ane", kept)
    click.echo(report.text(found))
    if output is not None:
        click.echo(f"The report is in {output}.")
    sys.exit(0 if found["summary"]["passed"] else 1)
