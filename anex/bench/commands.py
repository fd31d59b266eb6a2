"""The command ``anex bench``: one sub-command a published benchmark."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click

from .. import files
from ..commands import one_line
from .options import BATCH, PACKAGES, RELU, SP, SQUARES, common, positive, several
from .progress import progress
from .timing import QUICK, Effort


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
        (BATCH, SP, RELU, click.option("--preset", type=click.Choice(["seed000", "seed002"]),
                                       help="Whose rows (seed002 with --sp 64x1).")),
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
        (several("depths", "Layers"), positive("--channels", "(512)"), positive("--size", "Height and width (64).")),
    ),
    "sram": Command(
        "One convolution, wider and wider, until its weights no longer fit on the chip.",
        (click.option("--fine", is_flag=True, help="The fine probe, with its marks."), *PACKAGES),
        lambda options: ["sram-fine" if options.pop("fine", False) else "sram"],
    ),
    "inmem": Command(
        "One convolution, compiled in memory.",
        PACKAGES,
    ),
    "quant": Command("Weights in five encodings: are they computed with, or only stored?"),
    "weight-only": Command("int8 weights alone, and with int8 activations."),
    "qos": Command("Compile, load and call at 17 values of QoS."),
    "dispatch": Command("What one call costs, by the way it is sent."),
    "overhead": Command("Core ML's own path against the direct one."),
    "power": Command("What the engine draws, and TFLOPS a watt.", (BATCH, SP)),
    "lm-head": Command(
        "The language model head of GPT-2 on one position.",
        (click.option("--cpu", is_flag=True, help="The ways of the CPU, compared."),
         click.option("--simd", is_flag=True, help="What its vectors add in, with one thread and with all.")),
    ),
    "fused": Command(
        "What one program in place of several saves.",
        (click.option("--tier", type=click.IntRange(1, 3), help="1: dispatches, 2: shapes, 3: layers (all)."),),
        fused,
    ),
}  # fmt: skip


@click.group()
def bench() -> None:
    """Run a published benchmark here, with the published figures and the predicted ones beside it."""


def effort(usual: Effort, warm: int | None, calls: int | None, seconds: float | None) -> Effort:
    return Effort(
        usual.warm if warm is None else warm, calls or usual.calls, usual.seconds if seconds is None else seconds
    )


def add(name: str, command: Command) -> None:
    """The sub-command of one benchmark."""

    def call(
        device: str | None, chip: str, warm: int | None, calls: int | None, seconds: float | None, quick: bool,
        as_json: bool, markdown: bool, out: Path | None, plot: Path | None, **options: Any,
    ) -> None:  # fmt: skip
        from . import machine, plots, report, text
        from .running import run
        from .tables import benchmark

        chosen = {key: value for key, value in options.items() if value is not None and value is not False}
        names = command.tables(chosen) if command.tables else [name]
        if chosen.pop("explain", False):
            from .models import explanation
            from .tables.peak import size

            height, width = size(chosen.get("sp", "64"))
            click.echo(explanation(height=height, width=width))
            return
        where = device or machine.default()
        with one_line():  # what would end the run at its end ends it here
            if plot is not None:
                plots.drawable(plot)
            if out is not None:
                files.writable(out, "--out")
            chosen_ones = [benchmark(each) for each in names]
            with progress() as listener:
                runs = []
                for each in chosen_ones:
                    how = effort(QUICK if quick else each.usual, warm, calls, seconds)
                    runs.append(run(each, where, chosen, how, chip, listener(each.name)))
                    if runs[-1].interrupted:
                        break
            whole = files.as_json(report.as_json(runs, where))
            if out is not None:
                files.write(out, whole + "\n")
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


FOLDER = click.option(
    "--out", type=click.Path(path_type=Path, file_okay=False), default=Path("."), help="The folder (here)."
)


def tell(written: Callable[[Path], Any], out: Path) -> None:
    """Each package as soon as it is there, with its size."""
    with one_line():
        files.folder(out, "--out")
        for path in written(out):
            size = sum(file.stat().st_size for file in path.rglob("*") if file.is_file())
            click.echo(f"{path}: {size / 2**20:.1f} MiB")


@bench.command("gen-int8")
@FOLDER
def gen_int8(out: Path) -> None:
    """Write the two models of the int8 study as packages: 128 convolutions in float16 and in W8A8."""
    from .models import write

    tell(write, out)


@bench.command("gen-sram")
@FOLDER
@positive("--largest", "Of up to so many channels only.")
def gen_sram(out: Path, largest: int | None) -> None:
    """Write the 13 packages of one convolution that `inmem` and `sram` read; those that are there stay."""
    from .packages import generate

    tell(lambda folder: generate(folder, largest or 0), out)
