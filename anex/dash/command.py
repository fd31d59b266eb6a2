"""The Stories110M example as a command: its trainer and its generator, from the checkout that anex stands in."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..errors import ArgumentError
from ..examples import STORIES110M, find

ENDLESS = 999_999_999  # steps


@dataclass(frozen=True)
class Options:
    """Those of the published dashboard that its trainer takes."""

    steps: int | None = None
    lr: float | None = None
    accum: int | None = None
    data: Path | None = None
    model: Path | None = None
    infinite: bool = False
    resume: bool = False
    ane: bool = False
    ane_extras: bool = True
    scratch: bool = False
    tiny: bool = False

    def __post_init__(self) -> None:
        if self.infinite and self.steps is not None:
            raise ArgumentError("--infinite and --steps: one of the two")
        if not self.ane_extras and not self.ane:
            raise ArgumentError("--no-ane-extras goes with --ane: it says what else than the layers runs there")
        if self.scratch and (self.resume or self.model is not None):
            raise ArgumentError("--scratch begins with random weights: neither --resume nor --model goes with it")

    @property
    def total(self) -> int | None:
        """Steps of the run, where they are known."""
        return None if self.infinite else self.steps

    def arguments(self) -> list[str]:
        """For train.py."""
        steps = ENDLESS if self.infinite else self.steps
        valued: Mapping[str, Any] = {
            "--steps": steps, "--lr": self.lr, "--accum": self.accum, "--data": self.data, "--model": self.model,
        }  # fmt: skip
        found = [part for flag, value in valued.items() if value is not None for part in (flag, str(value))]
        flags = {
            "--resume": self.resume, "--scratch": self.scratch, "--tiny": self.tiny, "--ane": self.ane,
            "--no-ane-extras": not self.ane_extras,
        }  # fmt: skip
        return found + [flag for flag, given in flags.items() if given]


def training(options: Options, checkpoint: Path) -> list[str]:
    return [sys.executable, str(find(STORIES110M / "train.py")), *options.arguments(), "--ckpt", str(checkpoint)]


def generating(checkpoint: Path, tokenizer: Path) -> list[str]:
    files = ["--model", str(checkpoint), "--tokenizer", str(tokenizer)]
    return [sys.executable, str(find(STORIES110M / "generate.py")), *files, "--tokens", "64", "--temp", "0.8"]
