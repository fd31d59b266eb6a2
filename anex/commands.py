"""What the commands have in common."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import click


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
