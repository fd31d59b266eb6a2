"""What the published tools ask of a machine, each with what is here: lines of ``anex doctor``."""

from __future__ import annotations

import platform
import shutil
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

MACOS = 15  # as seeds 000, 001 and 003 ask; the private interface itself was seen from 13 on
PYTHONS = ((3, 10), (3, 13))
COREMLTOOLS = 9


@dataclass(frozen=True)
class Requirement:
    """``needed_for``: what is not there without it; nothing else is."""

    name: str
    found: str
    is_met: bool
    needed_for: str

    @property
    def line(self) -> str:
        """
        >>> Requirement("macOS 15 or later", "none (Linux)", False, "the Neural Engine").line
        'no   macOS 15 or later: none (Linux); needed for the Neural Engine'
        """
        return f"{'ok ' if self.is_met else 'no '}  {self.name}: {self.found}; needed for {self.needed_for}"


def requirements(facts: Mapping[str, Any]) -> list[Requirement]:
    """Of the facts that the doctor has of machine, versions and engine."""
    release = platform.mac_ver()[0]
    chip, versions = facts["machine"]["chip"], facts["versions"]
    is_apple = sys.platform == "darwin" and platform.machine() == "arm64"
    python, toolkit = sys.version_info[:2], versions["coremltools"]
    first, last = (".".join(map(str, each)) for each in PYTHONS)
    tools = command_line_tools()
    return [
        Requirement(f"macOS {MACOS} or later", release or f"none ({platform.system()})",
                    _major(release) >= MACOS, "the Neural Engine and Core ML"),
        Requirement("Apple silicon, M1 or later", chip, is_apple, "the Neural Engine"),
        Requirement("Xcode command line tools", tools or "none", bool(tools), "building anex on a Mac; nothing else"),
        Requirement(f"Python {first} to {last}", versions["python"], PYTHONS[0] <= python <= PYTHONS[1],
                    "coremltools"),
        Requirement(f"coremltools {COREMLTOOLS} or later", toolkit or "none", _major(toolkit) >= COREMLTOOLS,
                    "building programs"),
    ]  # fmt: skip


def command_line_tools() -> str:
    """Their folder on a Mac; empty elsewhere, and where they are missing."""
    if sys.platform != "darwin" or shutil.which("xcode-select") is None:
        return ""
    try:
        done = subprocess.run(("xcode-select", "-p"), capture_output=True, text=True, timeout=10)
    except (OSError, subprocess.SubprocessError):
        return ""
    return done.stdout.strip() if done.returncode == 0 else ""


def _major(version: str) -> int:
    first = version.partition(".")[0]
    return int(first) if first.isdigit() else 0
