"""The command ``anex verify``."""

from __future__ import annotations

from pathlib import Path

import click

from ..commands import FUNCTION, one_line
from .constants import DEVICES, DIFFERS, NOT_RESIDENT, REFERENCES, UNREADABLE


class Unreadable(click.ClickException):
    exit_code = UNREADABLE


@click.command(
    epilog=f"Exits with 0; {DIFFERS} where an output differs by more than --max-error; {NOT_RESIDENT} where fewer ops "
    f"than --min-residency stay on the Neural Engine; {UNREADABLE} where the model cannot be read or run; 2 for a "
    "command line that is not understood. A float model becomes a checked int8 one by: anex verify MODEL --quantize "
    "int8 --out SMALL.mlpackage"
)
@click.argument("model", type=click.Path(path_type=Path))
@click.option("--against", type=click.Choice(REFERENCES), default="cpu-fp32", show_default=True,
              help="What is right; torch where MODEL is a module.")  # fmt: skip
@click.option("--device", type=click.Choice(DEVICES), help="What is checked: 'ane' where there is one, else 'cpu-ane'.")
@click.option("--chip", default="M4", show_default=True, help="Of residency and of cpu-ane; such as 'M4 Max' or h16g.")
@click.option("--units", type=click.Choice(["CPU_AND_NE", "ALL"]), default="CPU_AND_NE", show_default=True)
@click.option("--inputs", type=click.Path(path_type=Path), help="An .npz of inputs by name; random without.")
@click.option("--seed", type=click.IntRange(0), default=0, show_default=True, help="Of random inputs.")
@click.option("--quantize", metavar="SCHEME", help="Quantise first, see `anex quantize --list`; the reference is the "
              "model as it was.")  # fmt: skip
@click.option("--calibrate", type=click.Path(path_type=Path), help="Of --quantize w8a8: an .npz of inputs by name.")
@click.option("--out", type=click.Path(path_type=Path), help="Write the quantised model there.")
@click.option("--max-error", type=click.FloatRange(0), help="Relative, of an output: 0.01 without it, 0.1 quantised.")
@click.option("--min-residency", type=click.FloatRange(0, 1), default=0.95, show_default=True)
@click.option("--weights", type=click.Path(path_type=Path), help="Of MIL text: the weight file or folder.")
@FUNCTION
@click.option("--every-op", is_flag=True, help="List every op in order, not just those with most error.")
@click.option("--json", "as_json", is_flag=True, help="One JSON object instead of text.")
@click.pass_context
def verify(
    context: click.Context, model: Path, against: str, device: str | None, chip: str, units: str, inputs: Path | None,
    seed: int, quantize: str | None, calibrate: Path | None, out: Path | None, max_error: float | None,
    min_residency: float, weights: Path | None, function: str, every_op: bool, as_json: bool,
) -> None:  # fmt: skip
    """Run MODEL op by op against a reference, and say whether it is right, where it parts, and whether it is resident.

    MODEL is a .mlpackage, a .mlmodelc, MIL text, or a torch module: the .pt2 file of torch.export.save. Numbers are
    measured on the device that is named; residency is simulated from rules.
    """

    is_module = model.suffix == ".pt2"
    if against == "torch" and not is_module:
        raise click.UsageError("--against torch needs the module: the .pt2 file that torch.export.save writes of it")
    if (out is not None or calibrate is not None) and quantize is None:
        raise click.UsageError("--out and --calibrate go with --quantize")
    if out is not None and not out.absolute().parent.is_dir():
        raise click.UsageError(f"--out {out}: the folder {out.absolute().parent} does not exist")
    from ..comparison.inputs import read
    from ..torch_frontend import read_exported
    from .text import lines
    from .verifying import verify as verified

    with one_line(Unreadable, misuse=click.UsageError):
        found = verified(
            read_exported(model) if is_module else model,
            against=against, device=device, chip=chip, units=units, seed=seed, quantize=quantize,
            inputs=None if inputs is None else read(inputs), calibrate=None if calibrate is None else read(calibrate),
            max_error=max_error, min_residency=min_residency, function=function, weights=weights,
        )  # fmt: skip
        if out is not None and found.quantized is not None:
            found.quantized.save(out)
    click.echo(found.to_json() if as_json else "\n".join(lines(found, every_op)))
    context.exit(found.exit_code)
