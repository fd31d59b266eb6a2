"""The command ``anex bench``: one sub-command a published benchmark."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click

from ..commands import one_line
from .progress import progress
from .timing import QUICK, Effort


def numbers(context: click.Context, parameter: click.Parameter, text: str | None) -> list[int] | None:
    if text is None:
        return None
    try:
        found = [int(each) for each in text.split(",")]
    except ValueError:
        found = []
    if not found or min(found) < 1:
        raise click.BadParameter(f"{text!r} is no list of positive whole numbers, such as 256,512")
    return found


def several(name: str, what: str) -> Callable[[Any], Any]:
    return click.option(f"--{name}", callback=numbers, metavar="N,N,...", help=f"{what}, separated by commas.")


def square(context: click.Context, parameter: click.Parameter, text: str | None) -> str | None:
    if text is not None and not all(part.isdigit() and int(part) for part in text.split("x", 1)):
        raise click.BadParameter(f"{text!r} is neither a size such as 64 (64x64) nor one such as 64x1 (a row of 64)")
    return text


BATCH = click.option("--batch", type=click.IntRange(1), help="Images at a time (1).")
SP = click.option("--sp", callback=square, metavar="N[x1]", help="Spatial size: 64 is 64x64, 64x1 one row of 64.")
RELU = click.option("--relu", is_flag=True, default=None, help="A relu after each convolution.")
SQUARES = several("sizes", "Sizes of the square matrices")


@dataclass(frozen=True)
class Command:
    """``options`` beyond those of all; ``tables``: which registered ones they choose, taking away what chose them."""

    help: str
    options: Sequence[Callable[[Any], Any]] = ()
    tables: Callable[[dict[str, Any]], Sequence[str]] | None = None


def fused(options: dict[str, Any]) -> Sequence[str]:
    tier = options.pop("tier", None)
    return [f"fused-{tier}"] if tier else ["fused-1", "fused-2", "fused-3"]


COMMANDS: Mapping[str, Command] = {
    "peak": Command(
        "Chains of 1x1 convolutions: the peak in float16.",
        (BATCH, SP, RELU, click.option("--preset", type=click.Choice(["seed000", "seed002"]), help="Whose rows.")),
    ),
    "int8": Command(
        "The same with int8 weights and activations (W8A8).",
        (BATCH, SP, RELU, click.option("--compare", is_flag=True, help="Float16 beside it: the result table."),
         click.option("--explain", is_flag=True, help="Why it is faster, in bytes a layer, in place of a run.")),
        lambda options: ["int8-compare" if options.pop("compare", False) else "int8"],
    ),
    "matmul": Command("Square products of two inputs, and where the working set stops fitting.", (SQUARES,)),
    "conv-vs-matmul": Command("The same product as matmul and as a 1x1 convolution.", (SQUARES,)),
    "depth": Command(
        "How much of the peak a chain reaches, by its depth.",
        (several("depths", "Layers"), click.option("--channels", type=click.IntRange(1), help="(512)"),
         click.option("--size", type=click.IntRange(1), help="Height and width (64).")),
    ),
    "sram": Command(
        "One convolution, wider and wider, until its weights no longer fit on the chip.",
        (click.option("--fine", is_flag=True, help="The fine probe, with its marks."),),
        lambda options: ["sram-fine" if options.pop("fine", False) else "sram"],
    ),
    "inmem": Command(
        "One convolution, compiled in memory.",
        (click.option("--by", type=click.Choice(["mlpackage", "mil"]), help="Its source (mlpackage)."),),
    ),
    "quant": Command("Weights in five encodings: are they computed with, or only stored?"),
    "weight-only": Command("int8 weights alone, and with int8 activations."),
    "qos": Command("Compile, load and call at 17 values of QoS."),
    "dispatch": Command("What one call costs, by the way it is sent."),
    "overhead": Command("Core ML's own path against the direct one."),
    "power": Command("What the engine draws, and TFLOPS a watt.", (BATCH, SP)),
    "lm-head": Command(
        "The language model head of GPT-2 on one position.",
        (click.option("--cpu", is_flag=True, help="The ways of the CPU, compared."),),
    ),
    "fused": Command(
        "What one program in place of several saves.",
        (click.option("--tier", type=click.IntRange(1, 3), help="1: dispatches, 2: shapes, 3: layers (all)."),),
        fused,
    ),
}  # fmt: skip


def common(command: Any) -> Any:
    """What every benchmark takes."""
    for option in reversed((
        click.option("--device", type=click.Choice(["ane", "cpu"]), help="ane where there is one, else cpu."),
        click.option("--chip", default="M4", show_default=True, help="Whose times to predict."),
        click.option("--warm", type=click.IntRange(0), help="Calls before the clock counts (10)."),
        click.option("--calls", type=click.IntRange(1), help="Calls timed (50)."),
        click.option("--seconds", type=float, help="At most for those of one program (10)."),
        click.option("--quick", is_flag=True, help="Few calls, short turns."),
        click.option("--json", "as_json", is_flag=True, help="JSON instead of text."),
        click.option("--markdown", is_flag=True, help="A Markdown table instead of text."),
        click.option("--out", type=click.Path(path_type=Path), help="Also write the JSON there."),
        click.option("--plot", type=click.Path(path_type=Path), help="Draw it, to a .png or .svg."),
    )):  # fmt: skip
        command = option(command)
    return command


@click.group()
def bench() -> None:
    """Run a published benchmark here, with the published figures and the predicted ones beside it."""


def effort(warm: int | None, calls: int | None, seconds: float | None, quick: bool) -> Effort:
    usual = QUICK if quick else Effort()
    return Effort(
        usual.warm if warm is None else warm, calls or usual.calls, usual.seconds if seconds is None else seconds
    )


def add(name: str, command: Command) -> None:
    """The sub-command of one benchmark."""

    def call(
        device: str | None, chip: str, warm: int | None, calls: int | None, seconds: float | None, quick: bool,
        as_json: bool, markdown: bool, out: Path | None, plot: Path | None, **options: Any,
    ) -> None:  # fmt: skip
        from . import machine, plots, report, tables, text
        from .record import BENCHMARKS
        from .running import run

        del tables  # it registers them
        chosen = {key: value for key, value in options.items() if value is not None and value is not False}
        names = command.tables(chosen) if command.tables else [name]
        if chosen.pop("explain", False):
            from .models import explanation

            click.echo(explanation())
            return
        where = device or machine.default()
        with one_line():
            if plot is not None:
                plots.figure()  # says at once if it cannot be drawn
            with progress() as listener:
                runs = [
                    run(BENCHMARKS[each], where, chosen, effort(warm, calls, seconds, quick), chip, listener(each))
                    for each in names
                ]
        whole = json.dumps(report.as_json(runs, where), indent=1)
        if out is not None:
            out.write_text(whole + "\n", encoding="utf-8")
        if plot is not None:
            plots.draw(runs, plot)
        if as_json:
            click.echo(whole)
        else:
            click.echo("\n\n".join((text.markdown if markdown else text.text)(each) for each in runs))
        sys.exit(1 if any(each.failures or each.interrupted for each in runs) else 0)

    made: Any = common(call)
    for option in reversed(command.options):
        made = option(made)
    bench.command(name, help=command.help, short_help=command.help)(made)


for _name, _command in COMMANDS.items():
    add(_name, _command)


@bench.command("gen-int8")
@click.option("--out", type=click.Path(path_type=Path, file_okay=False), default=Path("."), help="The folder (here).")
def gen_int8(out: Path) -> None:
    """Write the two models of the int8 study as packages: 128 convolutions in float16 and in W8A8."""
    from ..errors import Error
    from .models import write

    try:
        for path, size in write(out):
            click.echo(f"{path}: {size / 2**20:.1f} MiB")
    except (Error, OSError) as error:
        raise click.ClickException(str(error)) from error
