"""What the commands of benchmarks take, checked before anything runs."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

from .packages import SOURCES

LARGEST = 1 << 20  # of a size, a depth, a batch: beyond is a slip of the finger


def numbers(context: click.Context, parameter: click.Parameter, text: str | None) -> list[int] | None:
    if text is None:
        return None
    try:
        found = [int(each) for each in text.split(",")]
    except ValueError:
        found = []
    if not found or min(found) < 1:
        raise click.BadParameter(f"{text!r} is no list of positive whole numbers, such as 256,512")
    if max(found) > LARGEST:
        raise click.BadParameter(f"{max(found)} is more than {LARGEST}")
    return found


def several(name: str, what: str) -> Callable[[Any], Any]:
    return click.option(f"--{name}", callback=numbers, metavar="N,N,...", help=f"{what}, separated by commas.")


def square(context: click.Context, parameter: click.Parameter, text: str | None) -> str | None:
    parts = [] if text is None else text.split("x", 1)
    if not all(part.isascii() and part.isdigit() and 0 < int(part) <= LARGEST for part in parts):
        raise click.BadParameter(f"{text!r} is neither a size such as 64 (64x64) nor one such as 64x1 (a row of 64)")
    return text


def duration(context: click.Context, parameter: click.Parameter, seconds: float | None) -> float | None:
    if seconds is not None and not 0 <= seconds < math.inf:  # also NaN
        raise click.BadParameter(f"{seconds} is no number of seconds, 0 or more")
    return seconds


def known_chip(context: click.Context, parameter: click.Parameter, name: str) -> str:
    from ..cost.chips import chip

    if not chip(name).known:
        raise click.BadParameter(f"{name!r} is no Apple chip; such as 'M4', 'M4 Max', 'A18 Pro' or 'h16g'")
    return name


def positive(name: str, help: str) -> Callable[[Any], Any]:
    return click.option(name, type=click.IntRange(1, LARGEST), help=help)


BATCH = positive("--batch", "Images at a time (1).")
SP = click.option("--sp", callback=square, metavar="N[x1]", help="Spatial size: 64 is 64x64, 64x1 one row of 64.")
RELU = click.option("--relu", is_flag=True, default=None, help="A relu after each convolution.")
SQUARES = several("sizes", "Sizes of the square matrices")
DEVICE = click.option("--device", type=click.Choice(["ane", "cpu"]), help="ane where there is one, else cpu.")
CHIP = click.option("--chip", default="M4", show_default=True, callback=known_chip, help="Whose times to predict.")
PACKAGES = (
    click.option("--by", type=click.Choice(SOURCES), help="Where the convolution comes from."),
    click.option("--packages", type=click.Path(path_type=Path, file_okay=False),
                 help="The folder of `anex bench gen-sram`; a temporary one without it."),
)  # fmt: skip
COMMON = (
    DEVICE,
    CHIP,
    click.option("--warm", type=click.IntRange(0, LARGEST), help="Calls before the clock counts (as published)."),
    click.option("--calls", type=click.IntRange(1, LARGEST), help="Calls timed (as published)."),
    click.option("--seconds", type=float, callback=duration, help="At most for those of one program (10)."),
    click.option("--quick", is_flag=True, help="Few calls, short turns."),
    click.option("--json", "as_json", is_flag=True, help="JSON instead of text."),
    click.option("--markdown", is_flag=True, help="A Markdown table instead of text."),
    click.option("--out", type=click.Path(path_type=Path), help="Also write the JSON there."),
    click.option("--plot", type=click.Path(path_type=Path), help="Draw it, to a .png or .svg."),
)


def common(command: Any) -> Any:
    """What every benchmark takes."""
    for option in reversed(COMMON):
        command = option(command)
    return command
