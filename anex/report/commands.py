"""The command ``anex profile``."""

from __future__ import annotations

from pathlib import Path

import click

from ..commands import FUNCTION, WAY, WEIGHTS, one_line


@click.command()
@click.argument("model", type=click.Path(path_type=Path))
@click.option("-c", "--cpu-ane", "units", flag_value="CPU_AND_NE", default="CPU_AND_NE", help="CPU and ANE, as usual.")
@click.option("-a", "--all", "units", flag_value="ALL", help="All devices: the GPU too.")
@click.option("-v", "--verbose", is_flag=True, help="List every op with its unit and the rules about it.")
@click.option("--chip", "chips", multiple=True, metavar="NAME", default=("M4",), show_default=True,
              help="To predict for, such as 'M4 Max' or h16g; several times to compare.")  # fmt: skip
@click.option("--device", help="What to measure: ane or cpu; by default ane where there is one.")
@click.option("--no-run", is_flag=True, help="Measure nothing.")
@click.option("--repeat", type=click.IntRange(1), help="Timed calls; by default 10, 3 or 1, by latency.")
@click.option("--threshold", type=click.FloatRange(0, 1), default=0.005, show_default=True,
              help="Share of the cost from which an op is listed.")  # fmt: skip
@WAY
@WEIGHTS
@FUNCTION
@click.option("--calibration", type=click.Path(path_type=Path), help="Measurements of your own, by `anex calibrate`.")
@click.option("--json", "as_json", is_flag=True, help="One JSON object instead of text.")
@click.option("--html", type=click.Path(path_type=Path), help="Write a page with pictures there, besides.")
def profile(
    model: Path, units: str, verbose: bool, chips: tuple[str, ...], device: str | None, no_run: bool,
    repeat: int | None, threshold: float, path: str, weights: Path | None, function: str, calibration: Path | None,
    as_json: bool, html: Path | None,
) -> None:  # fmt: skip
    """Report what MODEL costs, op by op: predicted for the Neural Engine, measured on the device that is here.

    MODEL is a .mlpackage, a .mlmodelc or MIL text.
    """
    from .making import profile as made
    from .text import lines

    if html is not None and not html.absolute().parent.is_dir():
        raise click.ClickException(f"--html {html}: the folder {html.absolute().parent} does not exist")
    with one_line():
        found = made(model, chip=chips, units=units, path=path, device=device, run=not no_run, repeat=repeat,
                     function=function, weights=weights, calibration=calibration, threshold=threshold)  # fmt: skip
    if html is not None:
        html.write_text(found.to_html(), encoding="utf-8")
    click.echo(found.to_json() if as_json else "\n".join(lines(found, verbose)))
