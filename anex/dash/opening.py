"""A session from the options of the command."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from .. import power
from ..errors import ArgumentError
from .command import Options, generating, training
from .commands import CHECKPOINT
from .generating import Generator
from .machine import Machine
from .run import Run
from .session import Session
from .sources import Child, Followed, Source
from .weights_and_biases import log_to

TRAINER = ("steps", "lr", "accum", "data", "model", "infinite", "scratch", "tiny", "ane", "no_ane_extras")


def session(given: dict[str, Any], command: Sequence[str]) -> Session:
    """``command``: what to run, where --run names it."""
    follow, own = given["follow"], not command and given["follow"] is None
    if command and follow is not None:
        raise ArgumentError("--run and --follow: one of the two")
    meant = [f"--{name.replace('_', '-')}" for name in (*TRAINER, "resume") if given[name]]
    if meant and not own:
        raise ArgumentError(f"{', '.join(meant)}: for the Stories110M example; say it in the command of --run")
    if given["svg"] is not None and not given["once"]:
        raise ArgumentError("--svg goes with --once")
    checkpoint: Path | None = given["ckpt"] or (CHECKPOINT if own else None)
    run = Run()
    source: Source
    if follow is not None:
        if follow.is_dir():
            raise ArgumentError(f"--follow {follow}: a folder, not a file")
        source = Followed(follow, run)
    elif own:
        options = Options(**{name: given[name] for name in TRAINER if name != "no_ane_extras"},
                          resume=given["resume"], ane_extras=not given["no_ane_extras"])  # fmt: skip
        run.steps = options.total
        source = Child(training(options, checkpoint or CHECKPOINT), run)
    else:
        if shutil.which(command[0]) is None:
            raise ArgumentError(f"--run {command[0]}: there is no such program")
        source = Child(command, run)
    made = Session(run, source, generate_every=given["generate_every"])
    if isinstance(source, Child) or not given["once"]:
        made.machine = machine(given["no_power"])
    if given["no_generate"]:
        made.why_no_text = "--no-generate"
    elif checkpoint is not None:
        made.generator = generator(given, checkpoint, run)
        if isinstance(source, Child) and not given["resume"]:  # what is there is of another run
            made.generator.of = made.generator.written()
    if given["wandb"]:
        made.closing = log_to(run, given["wandb_project"], given["wandb_name"], {"command": source.name})
    return made


def generator(given: dict[str, Any], checkpoint: Path, run: Run) -> Generator:
    usual = checkpoint.parent / "tiny_tokenizer.bin" if given["tiny"] else Path("tokenizer.bin")
    return Generator(generating(checkpoint, given["tokenizer"] or usual), checkpoint, run)


def machine(no_power: bool) -> Machine:
    if no_power:
        return Machine(None, "--no-power")
    sampler = power.sampler()
    return Machine(sampler, "" if sampler is not None else power.why_none())
