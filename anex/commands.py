"""What the commands have in common."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path

import click

# Of every command about a model and the way it takes.
WAY = click.option(
    "--path", default="private", show_default=True, help="The way into the engine: private, e5rt or coreml."
)
WEIGHTS = click.option("--weights", type=click.Path(path_type=Path), help="Of MIL text; need not be there.")
FUNCTION = click.option("--function", default="", help="Of a model with several; main without it.")


@contextlib.contextmanager
def one_line(
    failure: type[click.ClickException] = click.ClickException,
    misuse: type[click.ClickException] | None = None,
) -> Iterator[None]:
    """Errors of anex as those of the command, each in one line; ``misuse`` is what a wrong argument is, if another."""
    from .errors import ArgumentError, Error

    try:
        yield
    except Error as error:
        kind = misuse if misuse is not None and isinstance(error, ArgumentError) else failure
        raise kind(" ".join(str(error).split())) from error
