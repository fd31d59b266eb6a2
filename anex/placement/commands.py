"""The command ``anex explain``."""

from __future__ import annotations

from pathlib import Path

import click

from ..commands import FUNCTION, WAY, WEIGHTS, one_line

PRESETS = ("mobilenet", "vit", "gpt2", "llama")


@click.command()
@click.argument("model", required=False, type=click.Path(path_type=Path))
@click.option("--preset", type=click.Choice(PRESETS), help="A made-up model in place of MODEL.")
@click.option("--max-context", type=click.IntRange(1, 1 << 20), multiple=True,
              help="Tokens of the presets gpt2 and llama; several times to compare.")  # fmt: skip
@click.option("--op", "names", multiple=True, metavar="OP", help="Just whether the engine takes a MIL op, by name.")
@click.option("--rule", "rules", multiple=True, metavar="ID", help="What a rule says and who says so, such as "
              "R-SDPA-MASK or axis-extent; 'all' for the named ones.")  # fmt: skip
@click.option("--contested", is_flag=True, help="Let rules decide that sources contradict each other on.")
@click.option("--device", default="ane", show_default=True)
@click.option("--chip", default="M4", show_default=True, help="Such as 'M4 Max' or h16g.")
@click.option("--units", type=click.Choice(["CPU_AND_NE", "ALL"]), default="CPU_AND_NE", show_default=True)
@WAY
@WEIGHTS
@FUNCTION
@click.option("--every-op", is_flag=True, help="List every op, also those on the engine.")
@click.option("--min-residency", type=click.FloatRange(0, 1), help="Exit with 1 when fewer ops are on the device.")
@click.option("--json", "as_json", is_flag=True, help="One JSON object instead of text.")
@click.pass_context
def explain(
    context: click.Context, model: Path | None, preset: str | None, max_context: tuple[int, ...],
    names: tuple[str, ...], rules: tuple[str, ...], contested: bool, device: str, chip: str, units: str, path: str,
    weights: Path | None, function: str, every_op: bool, min_residency: float | None, as_json: bool,
) -> None:  # fmt: skip
    """Tell which ops of MODEL run on the Neural Engine, why the others do not, and how fast it would be.

    MODEL is a .mlpackage, a .mlmodelc or MIL text. Nothing is run.
    """
    import json

    from ..cost.model import path_of
    from . import explain as explained
    from .text import lines

    if sum((model is not None, preset is not None, bool(names), bool(rules))) != 1:
        raise click.UsageError("give a MODEL, a --preset, an --op or a --rule")
    path_of_it = {"device": device, "chip": chip, "units": units, "contested": contested}
    with one_line():
        path_of(path)
        if rules:
            _rules(rules, as_json)
            return
        if names:
            _by_name(names, chip, as_json)
            return
        if preset is None:
            found = [explained(model, path=path, weights=weights, function=function, **path_of_it)]  # type: ignore[arg-type]
        else:
            from .presets import preset as made

            contexts = max_context or (None,)
            found = [explained(made(preset, tokens), path=path, **path_of_it) for tokens in contexts]  # type: ignore[arg-type]
    if as_json:
        dicts = [each.as_dict() for each in found]
        click.echo(json.dumps(dicts[0] if len(dicts) == 1 else dicts, indent=1))
    elif len(found) > 1:
        click.echo(
            f"{'context':>8} {'residency':>10} {'by cost':>8} {'if contested':>13} {'segments':>9} {'transfers':>10}  "
            "first op to leave"
        )
        for tokens, each in zip(max_context, found, strict=True):
            first = each.first_off
            why = f"{first.op} {first.name!r}: {first.why}" if first else "none"
            click.echo(f"{tokens:>8} {each.residency:>10.1%} {each.residency_by_cost:>8.1%} "
                       f"{each.residency_if_contested:>13.1%} {len(each.segments):>9} "
                       f"{each.transfers.count:>10}  {why}")  # fmt: skip
        click.echo("'if contested': what is left if every rule held that any source speaks for, "
                   "such as the field guide's 4096 keys; --contested shows that")  # fmt: skip
    else:
        click.echo("\n".join(lines(found[0], every_op)))
    if min_residency is not None and any(each.residency < min_residency for each in found):
        click.echo(f"residency is below {min_residency:.0%}", err=True)
        context.exit(1)


def _rules(wanted: tuple[str, ...], as_json: bool) -> None:
    import json

    from .catalogue import CATALOGUE, as_dict, entry, lines

    found = CATALOGUE if "all" in wanted else tuple(map(entry, wanted))
    if as_json:
        click.echo(json.dumps([as_dict(each) for each in found], indent=1))
    else:
        click.echo("\n".join(line for each in found for line in lines(each)))


def _by_name(names: tuple[str, ...], chip: str, as_json: bool) -> None:
    import json

    from . import explain_op

    found = [explain_op(name, chip) for name in names]
    if as_json:
        click.echo(json.dumps([{"op": each.op_type, "family": each.family, "taken": each.taken, "why": str(each)}
                               for each in found], indent=1))  # fmt: skip
    else:
        click.echo("\n".join(map(str, found)))
