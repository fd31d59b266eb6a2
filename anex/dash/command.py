"""The Stories110M example as a command: its trainer and its generator, from the checkout that anex stands in."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..errors import ArgumentError, MissingFileError

EXAMPLE = Path("examples") / "stories110m"
EXTRAS = "classifier,softmax,rmsnorm"
"""What the published train_large_ane runs on the engine beside the layers."""
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
        if self.ane:
            found += ["--device", "ane", *(("--offload", EXTRAS) if self.ane_extras else ())]
        flags = {"--resume": self.resume, "--scratch": self.scratch, "--tiny": self.tiny}
        return found + [flag for flag, given in flags.items() if given]


def example() -> Path:
    """The folder of the example: beside the package, or below the current folder."""
    for base in (Path(__file__).parents[2], Path.cwd()):
        if (base / EXAMPLE / "train.py").is_file():
            return base / EXAMPLE
    raise MissingFileError(
        f"there is no {EXAMPLE / 'train.py'} here: the examples are in anex's repository, not in its package. Call "
        "this in a checkout, or name a command: anex dash --run python train.py"
    )


def training(options: Options, checkpoint: Path) -> list[str]:
    return [sys.executable, str(example() / "train.py"), *options.arguments(), "--ckpt", str(checkpoint)]


def generating(checkpoint: Path, tokenizer: Path) -> list[str]:
    return [sys.executable, str(example() / "generate.py"), "--model", str(checkpoint), "--tokenizer", str(tokenizer),
            "--tokens", "64", "--temp", "0.8"]  # fmt: skip
