"""The command ``anex dash``."""

from __future__ import annotations

import asyncio
import importlib.util
import shlex
import signal
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from ..commands import one_line
from ..errors import ArgumentError, UnsupportedError

if TYPE_CHECKING:
    from .session import Session

CHECKPOINT = Path("ane_stories110M_ckpt.safetensors")
LIBRARIES = ("textual", "textual_plotext", "psutil")


@click.command(context_settings={"allow_interspersed_args": False})
@click.option("--run", "runs", is_flag=True, help="Run the command that follows, in place of the Stories110M example.")
@click.option("--follow", type=click.Path(path_type=Path), metavar="FILE",
              help="Read what a run writes, or wrote: JSON records, or the lines for people, or both.")  # fmt: skip
@click.option("--resume", is_flag=True, help="Go on from the checkpoint.")
@click.option("--steps", type=click.IntRange(1), help="Steps in all (10000).")
@click.option("--infinite", is_flag=True, help="Train until stopped.")
@click.option("--lr", type=float, help="Learning rate (3e-4).")
@click.option("--accum", type=click.IntRange(1), help="Steps of a batch, each one update (10).")
@click.option("--data", type=click.Path(path_type=Path), help="Tokens (ANE_DATA_PATH, or tinystories_data00.bin).")
@click.option("--model", type=click.Path(path_type=Path), help="Weights to begin with (ANE_MODEL_PATH, or "
              "stories110M.bin).")  # fmt: skip
@click.option("--scratch", is_flag=True, help="Begin with random weights, whatever files there are.")
@click.option("--tiny", is_flag=True, help="The small model on text that comes with Python.")
@click.option("--ane", is_flag=True, help="On the Neural Engine, with classifier, softmax and last norm.")
@click.option("--no-ane-extras", is_flag=True, help="With --ane: the layers alone.")
@click.option("--dynamic", is_flag=True, help="Weights that are inputs: always so here, this changes nothing.")
@click.option("--ckpt", type=click.Path(path_type=Path), help=f"The run's checkpoint ({CHECKPOINT}).")
@click.option("--tokenizer", type=click.Path(path_type=Path), help="To generate with (tokenizer.bin).")
@click.option("--no-generate", is_flag=True, help="Generate no text from the checkpoint.")
@click.option("--generate-every", type=click.FloatRange(min=1), default=60.0, metavar="SECONDS", show_default=True,
              help="The least time from one text to the next.")  # fmt: skip
@click.option("--no-power", "--no-powermetrics", "no_power", is_flag=True, help="Do not read power.")
@click.option("--wandb", is_flag=True, help="Log to Weights & Biases as well.")
@click.option("--wandb-project", default="ane-training", show_default=True, metavar="NAME")
@click.option("--wandb-name", metavar="NAME", help="Of the run there.")
@click.option("--once", is_flag=True, help="Read to the end of file or run, print one frame as text, and end.")
@click.option("--width", type=click.IntRange(20, 500), default=110, show_default=True, help="Of the frame of --once.")
@click.option("--height", type=click.IntRange(5, 300), default=34, show_default=True, help="Of the frame of --once.")
@click.option("--svg", type=click.Path(path_type=Path), metavar="FILE", help="With --once: write the frame there too.")
@click.argument("command", nargs=-1, type=click.UNPROCESSED)
def dash(**given: Any) -> None:
    """Watch a training run: loss, speed, power, text, log.

    Without --run or --follow it starts the Stories110M example. --run takes all that follows as the command, or one
    quoted text: anex dash --run python train.py --steps 100.

    Keys: r starts the run again, from its checkpoint if it told of one; g generates a text now; q ends all.
    """
    missing = [name for name in LIBRARIES if importlib.util.find_spec(name) is None]
    with one_line():
        if missing:
            raise UnsupportedError(f"anex dash needs {', '.join(missing).replace('_', '-')}: pip install 'anex[dash]'")
        from . import opening

        session = opening.session(given, words(given["runs"], given["command"]))
        if not given["once"]:
            show(session)
        elif not once(session, given):
            sys.exit(1)


def words(runs: bool, command: tuple[str, ...]) -> list[str]:
    """Of the command to run; none for the example."""
    if command and not runs:
        raise ArgumentError(f"{command[0]!r} is no option; a command to run stands behind --run")
    if runs and not command:
        raise ArgumentError("--run: the command is missing")
    return shlex.split(command[0]) if len(command) == 1 and not Path(command[0]).exists() else list(command)


def show(session: Session) -> None:
    from .app import Dash

    if not (sys.stdin.isatty() and sys.stderr.isatty()):  # it reads keys from the one and draws on the other
        raise UnsupportedError("anex dash needs a terminal; --once prints a frame without one")
    Dash(session).run()


def once(session: Session, given: dict[str, Any]) -> bool:
    """Print a frame of all there is; whether the run ended well."""
    from .app import frame

    async def whole() -> tuple[str, str]:
        task = asyncio.current_task()
        assert task is not None
        for each in (signal.SIGTERM, signal.SIGHUP):
            asyncio.get_running_loop().add_signal_handler(each, task.cancel)
        await session.whole()
        return await frame(session, given["width"], given["height"])

    try:
        text, picture = asyncio.run(whole())
    except asyncio.CancelledError:
        return False
    click.echo(text)
    if given["svg"] is not None:
        given["svg"].write_text(picture, encoding="utf-8")
    return session.died is None
