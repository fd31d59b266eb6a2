"""How far a run is, where somebody watches: a bar by rich where it is installed, else one line that is written over."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Callable, Iterator

import click

Listener = Callable[[str, int, int], None]
"""Of what is under way, how many are done, and of how many."""


@contextlib.contextmanager
def progress() -> Iterator[Callable[[str], Listener]]:
    """A listener for each name; they tell nothing where standard error is no terminal."""
    if not sys.stderr.isatty():
        yield lambda name: lambda label, done, total: None
        return
    try:
        from rich.console import Console
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
    except ImportError:
        yield plain
        return
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:

        def of(name: str) -> Listener:
            task = bar.add_task(name)

            def listener(label: str, done: int, total: int) -> None:
                bar.update(task, description=f"{name} {label[:40]}", completed=done, total=total, visible=done < total)

            return listener

        yield of


def plain(name: str) -> Listener:
    def listener(label: str, done: int, total: int) -> None:
        click.echo(f"\r{name} {done}/{total} {label[:50]:<50}", err=True, nl=done == total)

    return listener
