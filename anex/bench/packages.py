"""The 13 packages that the published scripts generate and their tools of one convolution read."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from .. import answers, store
from ..load import from_mlpackage
from .programs import conv_chain

if TYPE_CHECKING:
    from coremltools.converters.mil.mil import Program

    from .record import Make

# (channels, spatial): the widest at half the spatial size, as the published tool has it
SIZES = (*((c, 64) for c in (256, 512, 1024, 1536, 2048, 2560, 3072, 3584, 4096, 4608, 5120, 6144)), (8192, 32))
SOURCES = ("mlpackage", "mil")


def usual_folder() -> Path:
    """Beside the answers of probes, in the user's cache folder: they are the same for every run."""
    return answers.folder() / "packages"


def name(channels: int, width: int) -> str:
    return f"ane_sram_{channels}ch_{width}sp.mlpackage"


def package(channels: int, width: int, folder: Path) -> Path:
    """The package in ``folder``, written where it is not there; never half of one under its name."""
    path = folder / name(channels, width)
    if not path.exists():
        folder.mkdir(parents=True, exist_ok=True)
        draft = Path(tempfile.mkdtemp(prefix=".draft-", dir=folder))
        try:
            store.save(conv_chain(1, channels, 1, width), draft / path.name)
            (draft / path.name).rename(path)
        finally:
            shutil.rmtree(draft, ignore_errors=True)
    return path


def generate(folder: Path, largest: int = 0) -> Iterator[Path]:
    """All 13, of up to ``largest`` channels where not 0, one after another."""
    for channels, width in SIZES:
        if not largest or channels <= largest:
            yield package(channels, width, folder)


def convolution(channels: int, width: int, by: str, folder: Path | None) -> Make:
    """One 1x1 convolution read from its package, or ``by`` "mil" built; without a folder in one that is gone after."""
    if by == "mil":
        return partial(conv_chain, 1, channels, 1, width)

    def read() -> Program:
        if folder is not None:
            return from_mlpackage(package(channels, width, folder))
        with tempfile.TemporaryDirectory(prefix="anex-bench-") as gone:
            return from_mlpackage(package(channels, width, Path(gone)))

    return read
