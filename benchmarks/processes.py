"""Contenders in processes of their own, of which one runs at a time: the others are stopped, threads that spin too."""

from __future__ import annotations

import contextlib
import json
import signal
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from .case import Case, Setting
from .runtimes import ROOT, Found, environment, runtime_of
from .turn import MACHINE, Turn, folder_of, prepare


class Refused(Exception):
    """A contender cannot be built or run; the message says why."""


class Player(Protocol):
    """A contender that can be given turns."""

    def ready(self) -> np.ndarray | None:
        """Waits until it is built. Its answer; raises ``Refused``."""

    def turn(self, seconds: float) -> dict[str, Any]: ...

    def close(self) -> None: ...


class Process:
    """A contender in its own process, stopped but for its turns."""

    def __init__(self, case: str, contender: str, threads: int, folder: Path, found: Found) -> None:
        self._folder, self._contender = folder, contender
        python = sys.executable if contender == MACHINE else found.pythons[runtime_of(contender)]
        self._errors = tempfile.TemporaryFile("w+")  # noqa: SIM115  closed with the process
        self._process = subprocess.Popen(
            [python, "-m", "benchmarks.worker", case, contender, str(threads), str(folder)],
            cwd=ROOT, env=environment(threads), stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self._errors,
            text=True, bufsize=1,
        )  # fmt: skip

    def ready(self) -> np.ndarray | None:
        self._heard()
        self._process.send_signal(signal.SIGSTOP)
        path = folder_of(self._folder, self._contender)
        return np.load(path) if path.exists() else None

    def turn(self, seconds: float) -> dict[str, Any]:
        assert self._process.stdin
        self._process.send_signal(signal.SIGCONT)
        try:
            self._process.stdin.write(json.dumps({"turn": seconds}) + "\n")
            self._process.stdin.flush()
        except BrokenPipeError:
            pass  # it died; what it said last is read below
        said = self._heard()
        self._process.send_signal(signal.SIGSTOP)
        return said

    def _heard(self) -> dict[str, Any]:
        assert self._process.stdout
        line = self._process.stdout.readline()
        if not line:
            self._errors.seek(0)
            last = self._errors.read().strip().splitlines()[-1:] or ["nothing on its standard error"]
            raise Refused(f"its process ended with {self._process.wait()}: {last[0]}")
        said: dict[str, Any] = json.loads(line)
        if "error" in said:
            raise Refused(said["error"])
        return said

    def close(self) -> None:
        self._process.kill()
        self._process.wait()
        for stream in (self._process.stdin, self._process.stdout, self._errors):
            with contextlib.suppress(BrokenPipeError):
                stream.close()


class Inline:
    """A contender in this process, where its threads may disturb the others: for tests."""

    def __init__(self, case: Case, contender: str, threads: int, folder: Path) -> None:
        self._make = lambda: prepare(case, contender, Setting(threads, folder))
        self._turn: Turn | None = None

    def ready(self) -> np.ndarray | None:
        self._turn, answer = self._make()
        return answer

    def turn(self, seconds: float) -> dict[str, Any]:
        assert self._turn
        return self._turn(seconds)

    def close(self) -> None:
        self._turn = None


def write_file(case: str, name: str, folder: Path) -> None:
    """One of the case's files, unless ``folder`` has it; raises ``Refused``."""
    if (folder / name).exists():
        return
    command = [sys.executable, "-m", "benchmarks.worker", case, "--file", name, str(folder)]
    done = subprocess.run(command, cwd=ROOT, env=environment(2), capture_output=True, text=True, check=False)
    lines = done.stdout.strip().splitlines()
    said = json.loads(lines[-1]) if lines else {"error": f"ended with {done.returncode}"}
    if "error" in said:
        (folder / name).unlink(missing_ok=True)
        raise Refused(f"no file {name}: {said['error']}")
