"""The command ``anex mil``."""

from __future__ import annotations

from pathlib import Path

import click

from ..commands import FUNCTION, WEIGHTS, one_line

PATH = click.Path(path_type=Path)


@click.group()
def mil() -> None:
    """Format, judge, compare, count and convert MIL programs.

    MODEL is a .mlpackage, a .mlmodelc or MIL text.
    """


@mil.command()
@click.argument("models", nargs=-1, required=True, type=PATH, metavar="MODEL...")
@click.option("--check", is_flag=True, help="Print the files that are not formatted so, and exit with 1.")
@click.option("-i", "--in-place", is_flag=True, help="Write the text back to its file.")
@click.pass_context
def fmt(context: click.Context, models: tuple[Path, ...], check: bool, in_place: bool) -> None:
    """Print MIL text in the layout of Apple's compiler."""
    from .files import fmt as formatted

    if (in_place or check) and (packages := [path for path in models if path.suffix == ".mlpackage"]):
        raise click.UsageError(f"{packages[0]} holds no text to format")
    different = False
    for path in models:
        with one_line():
            text = formatted(path)
        file = path / "model.mil" if path.is_dir() else path
        is_new = not file.is_file() or file.read_bytes() != text.encode()
        different |= is_new
        if check:
            click.echo(f"{path} would be reformatted") if is_new else None
        elif in_place:
            file.write_bytes(text.encode()) if is_new else None
        else:
            click.echo(text, nl=False)
    if check and different:
        context.exit(1)


@mil.command()
@click.argument("model", type=PATH)
@click.option("--chip", default="M4", show_default=True, help="To predict times for, such as 'M4 Max' or h16g.")
@WEIGHTS
@FUNCTION
@click.option("--error", is_flag=True, help="Exit with 1 when there are warnings.")
@click.option("--json", "as_json", is_flag=True, help="JSON instead of text.")
@click.pass_context
def lint(
    context: click.Context, model: Path, chip: str, weights: Path | None, function: str, error: bool, as_json: bool
) -> None:
    """Warn of what makes MODEL slow on the Neural Engine: shallow programs, matmuls, large operands, short calls."""
    import json

    from .lint import lint as warned

    with one_line():
        found = warned(model, chip=chip, weights=weights, function=function)
    if as_json:
        click.echo(json.dumps([each.as_dict() for each in found], indent=1))
    else:
        click.echo("\n".join(map(str, found)) if found else "nothing to warn of")
    if error and found:
        context.exit(1)


@mil.command()
@click.argument("a", type=PATH)
@click.argument("b", type=PATH)
@click.option("--weights-a", type=PATH, help="Of A, when it is text.")
@click.option("--weights-b", type=PATH, help="Of B, when it is text.")
@click.option("--interface", is_flag=True, help="Names of inputs and outputs count too.")
@click.option("--json", "as_json", is_flag=True, help="JSON instead of text.")
@click.pass_context
def diff(
    context: click.Context, a: Path, b: Path, weights_a: Path | None, weights_b: Path | None, interface: bool,
    as_json: bool,
) -> None:  # fmt: skip
    """Tell what differs between two models, op by op; exit with 1 when something does.

    Other names of values, another order of constants, and where they stand are no difference.
    """
    import json

    from .files import diff as compared

    with one_line():
        found = compared(a, b, weights_a=weights_a, weights_b=weights_b, interface=interface)
    if as_json:
        click.echo(json.dumps([vars(each) for each in found], indent=1))
    elif found:
        click.echo("\n".join(map(str, found)))
    context.exit(1 if found else 0)


@mil.command()
@click.argument("model", type=PATH)
@WEIGHTS
@click.option("--json", "as_json", is_flag=True, help="JSON instead of text.")
def stats(model: Path, weights: Path | None, as_json: bool) -> None:
    """Count ops, parameters, bytes, depth, FLOP and the memory between ops."""
    import json

    from .stats import stats as counted

    with one_line():
        found = counted(model, weights)
    if as_json:
        click.echo(json.dumps([each.as_dict() for each in found], indent=1))
    else:
        click.echo("\n".join(map(str, found)))


@mil.command("to-text")
@click.argument("model", type=PATH)
@click.option("-o", "--output", type=PATH, help="A folder for model.mil and its weights, instead of printing the text.")
def to_text(model: Path, output: Path | None) -> None:
    """Print the MIL text of MODEL, or write it with its weights."""
    from .files import to_text as converted

    with one_line():
        text = converted(model, output)
    if output is None:
        click.echo(text)


@mil.command("to-package")
@click.argument("model", type=PATH)
@click.argument("package", type=PATH)
@click.option("--weights", type=PATH, help="The weight file of the text, or the folder for its @model_path/.")
def to_package(model: Path, package: Path, weights: Path | None) -> None:
    """Write MIL text and its weights as a .mlpackage."""
    from .files import to_package as converted

    with one_line():
        converted(model, package, weights)
