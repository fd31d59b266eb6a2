"""What a whole run needs, looked at before it: what is missing is told, with what is skipped for it."""

from __future__ import annotations

import importlib.util
import os
import platform
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from .. import _native
from ..bench import peers
from ..bench.packages import SIZES, name, usual_folder
from ..devices.info import device_info, label
from ..power import why_none
from .training import TRAININGS

ROOM = 2 << 30  # bytes: packages, programs and reports


@dataclass(frozen=True)
class Prerequisite:
    """``found``: in words; ``without``: what a run has not where it is missing."""

    name: str
    is_there: bool
    found: str
    without: str = ""

    @property
    def line(self) -> str:
        """
        >>> Prerequisite("clang", False, "not on PATH", "nothing but building anex anew").line
        'no   clang                not on PATH; without it: nothing but building anex anew'
        """
        tail = "" if self.is_there or not self.without else f"; without it: {self.without}"
        return f"{'ok' if self.is_there else 'no':4} {self.name:20} {self.found}{tail}"


def prerequisites(device: str, out: Path) -> list[Prerequisite]:
    return [*_machine(device), *_software(), *_files(out)]


def _machine(device: str) -> Iterator[Prerequisite]:
    here = device_info()
    is_hardware = here.available and label("ane") == "ane"
    said = "the stand-in of the tests, no hardware" if here.available else (here.reason or "").rstrip(".")
    yield Prerequisite("Neural Engine", is_hardware, here.chip or here.architecture if is_hardware else said,
                       "figures of the Neural Engine; predicted ones stand beside those of this machine")  # fmt: skip
    version = platform.mac_ver()[0]
    yield Prerequisite("macOS", bool(version), version or f"none ({platform.system()})",
                       "the ways of Core ML, and power")  # fmt: skip
    sets, threads = _native.instruction_sets(), _native.get_num_threads()
    yield Prerequisite("CPU engine", True, f"{sets[0]}, {threads} thread(s)")
    busy, cores = os.getloadavg()[0], os.cpu_count() or 1
    yield Prerequisite("a quiet machine", busy < cores / 2, f"load {busy:.1f} on {cores} cores",
                       "times to rely on: other work runs beside")  # fmt: skip


def _software() -> Iterator[Prerequisite]:
    from ..doctor import versions

    known = versions()
    yield Prerequisite("Python", True, known["python"])
    yield Prerequisite("coremltools", bool(known["coremltools"]), known["coremltools"] or "not installed",
                       "everything: it builds the programs")  # fmt: skip
    yield Prerequisite("Core ML", peers.AVAILABLE, "part of this macOS" if peers.AVAILABLE else peers.WHY_NOT,
                       "the columns of Core ML's own path")  # fmt: skip
    drawing = importlib.util.find_spec("matplotlib") is not None
    yield Prerequisite("matplotlib", drawing, "installed" if drawing else "not installed", "--gallery and --plot")
    why = why_none()
    yield Prerequisite("a power sampler", not why, why or "available", "what the engine draws, and TFLOPS/W")


def _files(out: Path) -> Iterator[Prerequisite]:
    for each in TRAININGS:
        yield Prerequisite(f"training {each.name}", not each.missing, each.missing or str(each.path), "its part")
    folder = usual_folder()
    there = sum((folder / name(*size)).exists() for size in SIZES)
    yield Prerequisite("packages", there == len(SIZES), f"{there} of {len(SIZES)} in {folder}",
                       "nothing: they are generated when they are read")  # fmt: skip
    place = next(each for each in (out.absolute(), *out.absolute().parents) if each.exists())
    free = shutil.disk_usage(place).free
    yield Prerequisite("room on the disk", free > ROOM, f"{free / 2**30:.1f} GiB free", "perhaps reports and packages")
