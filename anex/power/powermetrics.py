"""``powermetrics``, Apple's own tool: its text and property lists, and running it, which takes ``sudo`` without a
password."""

from __future__ import annotations

import plistlib
import re
import shutil
import subprocess
import sys
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from .sample import Sample

NUMBER = r"\d[\d.,]*"
SAMPLE = re.compile(rf"^\*\*\* .*\((?P<ms>{NUMBER})\s*ms\b.*\) \*\*\*")  # whatever language says "elapsed"
POWER = re.compile(rf"^(?P<part>ANE|CPU|GPU)\s*(?P<die>\d*) Power:\s+(?P<value>{NUMBER})\s*(?P<unit>mW|W|uW|µW)$")
PER_WATT = {"W": 1, "mW": 1000, "uW": 1_000_000, "µW": 1_000_000}
PARTS = ("ane", "cpu", "gpu")
COMMAND = ("sudo", "-n", "powermetrics", "--samplers", "cpu_power,gpu_power,ane_power", "-i")


def number(text: str) -> float | None:
    """As any language writes it; None where nobody can tell a decimal comma from one between thousands.

    >>> [number(text) for text in ("2804", "1006.50", "1006,50", "1,006.50", "1.006,50", "1,006", "1.2.3")]
    [2804.0, 1006.5, 1006.5, 1006.5, 1006.5, None, None]
    """
    last = max(text.rfind("."), text.rfind(","))
    whole, fraction = (text, "") if last < 0 else (text[:last], text[last + 1 :])
    if text.count(",") == 1 and "." not in text and len(fraction) == 3:
        return None
    groups = re.split("[.,]", whole)
    if len(groups) > 1 and (text[last] in whole or any(len(group) != 3 for group in groups[1:])):
        return None
    try:
        return float("".join(groups) + "." + (fraction or "0"))
    except ValueError:
        return None


def parse(lines: Iterable[str]) -> Iterator[Sample]:
    """The whole samples of a text; one that is cut off at the end is left out.

    A sample that names a part twice (some systems list the GPU in two sections) keeps the first; dies that are named
    one by one (ANE0, ANE1) add up.
    """
    seconds: float | None = None
    found: dict[str, dict[str, float]] = {}

    def told() -> Sample | None:
        watts = {part: sum(dies.values()) for part, dies in found.items()}
        return Sample(seconds, **watts) if seconds and watts else None

    for line in lines:
        line = line.strip()
        if begins := SAMPLE.match(line):
            if sample := told():
                yield sample
            ms = number(begins["ms"])
            seconds, found = None if ms is None else ms / 1e3, {}
        elif seconds is not None and (said := POWER.match(line)) and (value := number(said["value"])) is not None:
            found.setdefault(said["part"].lower(), {}).setdefault(said["die"], value / PER_WATT[said["unit"]])
    if len(found) == len(PARTS) and (sample := told()):
        yield sample


def parse_recorded(data: bytes) -> Iterator[Sample]:
    """Of a file, in either form: text, or property lists with a NUL between them (``--format plist``)."""
    if b"<plist" not in data:
        yield from parse(data.decode("utf-8", errors="replace").splitlines())
        return
    for piece in data.split(b"\0"):
        begin, end = piece.find(b"<?xml"), piece.find(b"</plist>")
        if end >= 0:  # a last one that is cut off has no end
            try:
                found = plistlib.loads(piece[max(begin, 0) : end + len(b"</plist>")])
            except Exception:  # plistlib lets through what the parser of XML raises
                continue
            if sample := of_plist(found):
                yield sample


def of_plist(found: Any) -> Sample | None:
    """Energies are mJ over ``elapsed_ns``, powers mW; None where it tells neither."""
    processor = found.get("processor") if isinstance(found, Mapping) else None
    elapsed = found.get("elapsed_ns") if isinstance(found, Mapping) else None
    if not isinstance(processor, Mapping) or not isinstance(elapsed, int) or elapsed <= 0:
        return None
    watts = {}
    for part in PARTS:
        energy, power = (processor.get(f"{part}_{what}") for what in ("energy", "power"))
        if isinstance(energy, (int, float)):
            watts[part] = energy * 1e6 / elapsed
        elif isinstance(power, (int, float)):
            watts[part] = power / 1e3
    return Sample(elapsed / 1e9, **watts) if watts else None


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
