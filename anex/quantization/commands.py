"""The command ``anex quantize``."""

from __future__ import annotations

from pathlib import Path

import click

from ..commands import FUNCTION, one_line


@click.command()
@click.argument("model", required=False, type=click.Path(path_type=Path))
@click.option("--scheme", default="int8", show_default=True, help="See --list.")
@click.option("--list", "listed", is_flag=True, help="List the schemes.")
@click.option("--out", type=click.Path(path_type=Path), help="Write it there: .mlpackage, else MIL text and weights.")
@click.option("--calibrate", type=click.Path(path_type=Path),
              help="Of w8a8: an .npz of inputs by name; an axis more in front counts samples.")  # fmt: skip
@click.option("--inputs", type=click.Path(path_type=Path), help="An .npz to measure errors on; random without.")
@click.option("--seed", type=click.IntRange(0), default=0, show_default=True, help="Of random inputs.")
@click.option("--block-size", type=click.IntRange(1), default=32, show_default=True, help="Of int4: channels a scale.")
@click.option("--group-size", type=click.IntRange(1), default=32, show_default=True, help="Channels a palette.")
@click.option("--sparsity", type=click.FloatRange(0, 1, min_open=True, max_open=True), default=0.5, show_default=True)
@click.option("--threshold", type=click.IntRange(0), default=2048, show_default=True,
              help="Tensors of no more elements stay as they are.")  # fmt: skip
@click.option("--skip", multiple=True, metavar="OP", help="An op whose weights and activations stay; several times.")
@click.option("--chip", "chips", multiple=True, metavar="NAME", help="To predict the time on; several times.")
@FUNCTION
@click.option("--errors/--no-errors", default=True, help="Measure what each layer and the outputs lose.")
@click.option("--json", "as_json", is_flag=True, help="One JSON object instead of text.")
def quantize(
    model: Path | None, scheme: str, listed: bool, out: Path | None, calibrate: Path | None, inputs: Path | None,
    seed: int, block_size: int, group_size: int, sparsity: float, threshold: int, skip: tuple[str, ...],
    chips: tuple[str, ...], function: str, errors: bool, as_json: bool,
) -> None:  # fmt: skip
    """Make MODEL smaller, and say what that costs and brings.

    MODEL is a .mlpackage, a .mlmodelc or MIL text. Sizes and errors are measured on the CPU engine; times on
    Neural Engines are predicted.
    """
    from .schemes import SCHEMES

    if listed:
        for each in SCHEMES.values():
            click.echo(f"{each.name:<20} {each.statement} (from {each.target} on)")
        return
    if model is None:
        raise click.UsageError("give a MODEL, or --list")
    if out is not None and not out.absolute().parent.is_dir():
        raise click.UsageError(f"--out {out}: the folder {out.absolute().parent} does not exist")
    from ..comparison.inputs import read
    from .quantizing import CHIPS
    from .quantizing import quantize as quantized

    settings = {"block_size": block_size, "group_size": group_size, "sparsity": sparsity, "threshold": threshold}
    with one_line():
        found = quantized(
            model, scheme, calibrate=None if calibrate is None else read(calibrate), seed=seed, skip=skip,
            inputs=None if inputs is None else read(inputs), function=function, chips=chips or CHIPS, errors=errors,
            **settings,
        )  # fmt: skip
        if out is not None:
            found.save(out)
    click.echo(found.to_json() if as_json else str(found))
    if out is not None and not as_json:
        click.echo(f"\nwritten to {out}")
