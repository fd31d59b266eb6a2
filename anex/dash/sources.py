"""Where a run's lines come from: a file that may still grow, or a command that is run."""

from __future__ import annotations

import asyncio
import os
import signal
import stat
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import IO, Protocol

from ..errors import ArgumentError, MissingFileError
from .run import Run

CHUNK = 1 << 18
LONGEST = 1 << 16
"""Bytes of a line; what a longer one has beyond them is left out."""
POLL = 0.25  # seconds between looks at a file
PATIENCE = 5.0  # seconds that a run has to end by itself after each signal


class Splitter:
    """Whole lines of bytes that come in pieces; half a line waits for its other half."""

    def __init__(self) -> None:
        self.half = b""

    def feed(self, data: bytes) -> list[str]:
        *whole, half = data.split(b"\n")
        if whole:
            whole[0] = self.half + whole[0]
            self.half = b""
        self.half = (self.half + half)[:LONGEST]
        return [_text(line) for line in whole]

    def rest(self) -> str:
        """The line that has no end."""
        half, self.half = self.half, b""
        return _text(half)


def _text(line: bytes) -> str:
    """A progress line writes over itself: what it said last."""
    said = [part for part in line[:LONGEST].split(b"\r") if part.strip()]
    return said[-1].decode(errors="replace").lstrip("\ufeff") if said else ""


class Source(Protocol):
    run: Run

    @property
    def name(self) -> str: ...
    @property
    def state(self) -> str:
        """In a word or a few: what it does now."""

    @property
    def pid(self) -> int | None: ...
    async def whole(self) -> None:
        """Read all there is: to the end of the file, or of the command."""

    async def live(self) -> None:
        """Read until cancelled."""

    async def end(self) -> None: ...


class Followed:
    """A file that a run writes, or wrote. One that is cut, replaced or gone is waited for."""

    pid = None

    def __init__(self, path: Path, run: Run) -> None:
        self.path, self.run = path, run
        self.name = path.name
        self.file: IO[bytes] | None = None
        self.splitter = Splitter()
        self.said = ""

    @property
    def state(self) -> str:
        return "following" if self.file is not None else f"waiting for {self.path}"

    def more(self) -> bool:
        """Read up to CHUNK bytes; whether there may be more at once."""
        try:
            return self._more()
        except OSError as error:
            self._say(f"{self.path}: {error.strerror}; waiting for it")
            return False

    def _more(self) -> bool:
        """An OSError where it cannot be read, after what an earlier file of that name still had."""
        try:
            found = os.stat(self.path)
            if not stat.S_ISREG(found.st_mode):
                raise OSError(0, "not a file")
            file = self.file or self.path.open("rb", buffering=0)
        except OSError:
            if self.file is None or not self._left_behind():
                raise
            return True
        if file is not self.file:
            self.file = file
        elif not os.path.samestat(os.fstat(file.fileno()), found):
            if not self._left_behind():
                self._say(f"{self.path} was replaced: reading the new one")
            return True
        elif found.st_size < file.tell():
            self.splitter = Splitter()
            file.seek(0)
            self._say(f"{self.path} was cut: reading it from its beginning")
        return self._take(file) == CHUNK

    def _left_behind(self) -> bool:
        """Read on in the file that was open; at its end it no longer is."""
        if self.file is not None and self._take(self.file):
            return True
        self.run.cut(self.splitter.rest())
        if self.file is not None:
            self.file.close()
        self.file = None
        return False

    def _take(self, file: IO[bytes]) -> int:
        data = file.read(CHUNK)
        for line in self.splitter.feed(data):
            self.run.read(line)
        if data:
            self.said = ""
        return len(data)

    def _say(self, text: str) -> None:
        """Once, however often it is found."""
        if text != self.said:
            self.run.note(text)
        self.said = text

    async def whole(self) -> None:
        while self.more():
            pass
        if self.file is None:
            raise MissingFileError(f"--follow {self.said.removesuffix('; waiting for it')}")
        self.run.cut(self.splitter.rest())

    async def live(self) -> None:
        while True:
            await asyncio.sleep(0 if self.more() else POLL)

    async def end(self) -> None:
        if self.file is not None:
            self.file.close()


class Child:
    """A command that trains, and what it writes to stdout and stderr. It ends with this program."""

    def __init__(self, command: Sequence[str], run: Run) -> None:
        self.command, self.run = list(command), run
        self.name = " ".join(self.command)
        self.process: asyncio.subprocess.Process | None = None
        self.ending = False
        self.bytes = 0
        self.idle = asyncio.Event()  # nothing of it is read
        self.idle.set()

    @property
    def pid(self) -> int | None:
        return self.process.pid if self.process is not None and self.process.returncode is None else None

    @property
    def code(self) -> int | None:
        """Its exit code; that of a signal is negative."""
        return None if self.process is None else self.process.returncode

    @property
    def died(self) -> bool:
        return not self.ending and self.code not in (None, 0)

    @property
    def state(self) -> str:
        if self.ending:
            return "ending" if self.code is None else "ended"
        return "starting" if self.process is None else "running" if self.code is None else exit_text(self.code)

    async def whole(self) -> None:
        """Run it again from its beginning, to its end; with --resume where it told of a checkpoint."""
        arguments = self.command if self.process is None else again(self.command, self.run.kept is not None)
        self.ending = False
        self.run.errors.clear()
        try:
            self.process = process = await asyncio.create_subprocess_exec(
                *arguments, stdin=asyncio.subprocess.DEVNULL, stdout=asyncio.subprocess.PIPE,
                stderr=asyncio.subprocess.PIPE, start_new_session=True,
                env={**os.environ, "PYTHONUNBUFFERED": "1"},
            )  # fmt: skip
        except OSError as error:
            raise ArgumentError(f"cannot run {arguments[0]}: {error.strerror}") from error
        assert process.stdout is not None
        assert process.stderr is not None
        self.idle.clear()
        readers = [asyncio.create_task(self._read(process.stdout, "stdout")),
                   asyncio.create_task(self._read(process.stderr, "stderr"))]  # fmt: skip
        try:
            await _exit_of(process)
            before = -1
            while before != self.bytes:  # what it wrote; somebody whom it started may hold the pipes for ever
                before = self.bytes
                if not (await asyncio.wait(readers, timeout=1))[1]:
                    break
            else:
                with suppress(ProcessLookupError, PermissionError):
                    os.killpg(process.pid, signal.SIGTERM)
        finally:
            for reader in readers:
                reader.cancel()
            if process.returncode is not None:  # asyncio closes pipes only after their last byte was read
                process._transport.close()  # type: ignore[attr-defined]
            self.idle.set()
        self.run.note(f"the run: {exit_text(process.returncode or 0)}")

    async def live(self) -> None:
        await self.whole()

    async def _read(self, stream: asyncio.StreamReader, name: str) -> None:
        splitter = Splitter()
        while data := await stream.read(CHUNK):
            self.bytes += len(data)
            for line in splitter.feed(data):
                self.run.read(line, name)
            await asyncio.sleep(0)
        self.run.cut(splitter.rest(), name)

    async def end(self) -> None:
        """Interrupt it and all that it started; then more firmly."""
        process = self.process
        if process is None or process.returncode is not None:
            return
        self.ending = True
        for each in (signal.SIGINT, signal.SIGTERM, signal.SIGKILL):
            with suppress(ProcessLookupError, PermissionError):
                os.killpg(process.pid, each)
            with suppress(asyncio.TimeoutError):
                await asyncio.wait_for(_exit_of(process), PATIENCE)
                break
        await self.idle.wait()
        process._transport.close()  # type: ignore[attr-defined]


async def _exit_of(process: asyncio.subprocess.Process) -> None:
    """Its own: ``process.wait`` of some versions of Python waits for everybody who has its pipes."""
    while process.returncode is None:
        await asyncio.sleep(0.05)


def exit_text(code: int) -> str:
    """
    >>> exit_text(0), exit_text(3), exit_text(-9)
    ('finished', 'exit code 3', 'ended by SIGKILL')
    """
    if code < 0:
        with suppress(ValueError):
            return f"ended by {signal.Signals(-code).name}"
    return "finished" if code == 0 else f"exit code {code}"


def again(command: Sequence[str], kept: bool) -> list[str]:
    """The command that goes on where ``command`` was; from the beginning where it kept nothing.

    >>> again(["train", "--steps", "9"], True), again(["train", "--resume"], False)
    (['train', '--steps', '9', '--resume'], ['train', '--resume'])
    """
    return [*command, "--resume"] if kept and "--resume" not in command else list(command)
