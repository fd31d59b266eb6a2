"""``powermetrics``, Apple's own tool: its text, and running it, which takes ``sudo`` without a password."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from collections.abc import Iterable, Iterator

from .sample import Sample

SAMPLE = re.compile(r"^\*\*\* Sampled system activity .*\((?P<ms>[\d.]+)ms elapsed\) \*\*\*")
POWER = re.compile(r"^(?P<part>ANE|CPU|GPU) Power:\s+(?P<value>[\d.]+) (?P<unit>mW|W|uW)\s*$")
PER_WATT = {"W": 1, "mW": 1000, "uW": 1_000_000}
COMMAND = ("sudo", "-n", "powermetrics", "--samplers", "cpu_power,gpu_power,ane_power", "-i")


def parse(lines: Iterable[str]) -> Iterator[Sample]:
    """The whole samples of a text; one that is cut off at the end is left out.

    A sample that names a part twice (some systems list the GPU in two sections) keeps the first.
    """
    seconds: float | None = None
    found: dict[str, float] = {}
    for line in lines:
        if begins := SAMPLE.match(line):
            if seconds is not None and found:
                yield Sample(seconds, **found)
            seconds, found = float(begins["ms"]) / 1e3, {}
        elif seconds is not None and (said := POWER.match(line.strip())):
            found.setdefault(said["part"].lower(), float(said["value"]) / PER_WATT[said["unit"]])
    if seconds is not None and len(found) == 3:
        yield Sample(seconds, **found)


class Powermetrics:
    """A run of the tool in the background between ``start`` and ``stop``."""

    name = "powermetrics"

    def __init__(self, interval: float = 0.2) -> None:
        self.interval = interval

    @staticmethod
    def unavailable() -> str | None:
        if sys.platform != "darwin":
            return "powermetrics is part of macOS"
        if shutil.which("powermetrics") is None:
            return "powermetrics is not on PATH"
        if subprocess.run(("sudo", "-n", "true"), capture_output=True, check=False).returncode:
            return "powermetrics needs root: run `sudo -v` first"
        return None

    def start(self) -> None:
        command = (*COMMAND, str(round(1e3 * self.interval)))
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)

    def stop(self) -> list[Sample]:
        self.process.terminate()
        text, _ = self.process.communicate()
        return list(parse(text.splitlines()))
