"""The examples, which lie beside the package in a checkout, and the command that runs one: ``anex train``."""

from __future__ import annotations

import runpy
import sys
from pathlib import Path

import click

from .errors import MissingFileError, UnsupportedError

BESIDE = Path(__file__).parents[1]
STORIES110M = Path("examples") / "stories110m"
TRAINERS = {"stories110m": STORIES110M / "train.py"}


def find(file: Path) -> Path:
    """An example's file in the checkout that anex runs from, or in the one that is the working folder."""
    for base in (BESIDE, Path.cwd()):
        if (base / file).is_file():
            return base / file
    raise MissingFileError(
        f"there is no {file} beside the package ({BESIDE}) or in {Path.cwd()}: examples are in anex's repository, not "
        "in its wheels. Call this in a checkout of it"
    )


def run(path: Path, arguments: tuple[str, ...]) -> None:
    """As ``python path arguments``, in this process."""
    argv, sys.argv = sys.argv, [str(path), *arguments]
    sys.path.insert(0, str(path.parent))
    try:
        runpy.run_path(str(path), run_name="__main__")
    except ModuleNotFoundError as error:
        raise UnsupportedError(
            f"{path.name}: {error.name} is not installed: pip install 'anex[examples]' has what the examples need"
        ) from error
    finally:
        sys.argv = argv
        sys.path.remove(str(path.parent))


@click.command(context_settings={"ignore_unknown_options": True, "help_option_names": []})
@click.argument("model", type=click.Choice(list(TRAINERS)))
@click.argument("arguments", nargs=-1, type=click.UNPROCESSED)
def train(model: str, arguments: tuple[str, ...]) -> None:
    """Train MODEL: the example of that name, with its own ARGUMENTS. anex train stories110m --help lists them.

    anex train stories110m --tiny --breakdown takes seconds, and nothing that is not here.
    """
    from .commands import one_line

    with one_line():
        run(find(TRAINERS[model]), arguments)
