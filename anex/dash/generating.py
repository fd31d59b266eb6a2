"""A text from the run's last checkpoint, by a command of its own."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from .run import Run, clean

LENGTH = 4000  # characters that are kept
SETTLE = 0.25  # seconds: the line that tells of a checkpoint comes after it


class Generator:
    """Runs ``command``, which prints a text made with ``checkpoint``; ``state`` says how that went."""

    def __init__(self, command: Sequence[str], checkpoint: Path, run: Run) -> None:
        self.command, self.checkpoint, self.run = list(command), checkpoint, run
        self.text = ""
        self.step: int | None = None
        self.state = f"when {checkpoint} is there"
        self.busy = self.ending = False
        self.process: asyncio.subprocess.Process | None = None
        self.of: float | None = None  # which checkpoint the text is of: when that was written

    def written(self) -> float | None:
        try:
            return os.stat(self.checkpoint).st_mtime
        except OSError:
            return None

    def due(self) -> bool:
        """There is a checkpoint, and no text of it yet."""
        return not self.busy and self.written() not in (None, self.of)

    async def generate(self) -> None:
        """One at a time; what goes wrong is the state, not an error: the run goes on."""
        if self.busy or self.ending:
            return
        if (written := self.written()) is None:
            self.state = f"there is no {self.checkpoint} yet"
            return
        self.busy, self.of, self.state = True, written, "generating"
        try:
            await asyncio.sleep(SETTLE)
            step = self.run.kept
            code, out, errors = await self._call()
        except OSError as error:
            self.state = f"cannot run {self.command[0]}: {error.strerror}"
            return
        finally:
            self.busy = False
        if code:
            said = errors.decode(errors="replace").strip().splitlines()
            self.state = clean(said[-1]) if said else f"it failed: exit code {code}"
            return
        self.text = "\n".join(clean(line) for line in out.decode(errors="replace").splitlines()).strip()[:LENGTH]
        self.step, self.state = step, "" if self.text else "an empty text"

    async def _call(self) -> tuple[int | None, bytes, bytes]:
        self.process = process = await asyncio.create_subprocess_exec(
            *self.command, stdin=asyncio.subprocess.DEVNULL, stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE, start_new_session=True,
        )  # fmt: skip
        try:
            with suppress(OSError):  # the run goes first
                os.setpriority(os.PRIO_PROCESS, process.pid, 10)
            out, errors = await process.communicate()
        finally:
            await self._stop()
        return process.returncode, out, errors

    async def end(self) -> None:
        self.ending = True
        await self._stop()

    async def _stop(self) -> None:
        if self.process is not None and self.process.returncode is None:
            with suppress(ProcessLookupError):
                self.process.kill()
            await self.process.wait()
