"""The process in which parts of a run on the Neural Engine take place: it may compile about 119 programs, then a fresh
one takes over; one that dies costs the part that it was at.

Pickles go both ways: a job in, and back how far it is, then what it came to.
"""

from __future__ import annotations

import os
import pickle
import signal
import subprocess
import sys
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, BinaryIO

from .. import _native
from ..processes import ending, environment

if TYPE_CHECKING:
    from ..bench.progress import Listener
    from ..bench.running import Run
    from .outcome import Outcome
    from .playing import Plan

ROOM = 48  # programs that one part may compile; no benchmark or probe compiles more
PATIENCE = 20.0  # seconds that an interrupted part has to hand over what it has


@dataclass(frozen=True)
class Done:
    """``outcome``: None where Ctrl-C left nothing; ``is_spent``: whether the next part needs a fresh process."""

    outcome: Outcome | None
    runs: list[Run]
    interrupted: bool
    is_spent: bool


class Worker:
    """One process, in a session of its own: Ctrl-C reaches it through us, once."""

    def __init__(self) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-c", f"from {__name__} import main; main()"],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE,
            env=environment(), start_new_session=True,
        )  # fmt: skip

    def perform(self, section: str, name: str, plan: Plan, listener: Listener) -> Done:
        """What that part comes to. Raises ChildProcessError where the process died."""
        assert self.process.stdin is not None
        pickle.dump((section, name, replace(plan, runs=[])), self.process.stdin)
        self.process.stdin.flush()
        interrupted = False
        while True:
            try:
                message = self._read()
            except KeyboardInterrupt:
                if interrupted:  # for the second time: nobody waits any more
                    raise
                interrupted = plan.interrupted = True
                self.process.send_signal(signal.SIGINT)
                continue
            if isinstance(message, Done):
                return message
            listener(*message)

    def _read(self) -> Any:
        assert self.process.stdout is not None
        try:
            return pickle.load(self.process.stdout)
        except (EOFError, pickle.UnpicklingError):
            raise ChildProcessError(f"its process ended with {ending(self.process.wait())}") from None

    def stop(self) -> None:
        for pipe in (self.process.stdin, self.process.stdout):
            if pipe is not None:
                pipe.close()
        try:
            self.process.wait(PATIENCE)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()


def is_spent() -> bool:
    """Whether this process may not compile enough programs any more."""
    account = _native.ane_account()
    limit = account["compile_limit"]
    return bool(limit) and account["compiles"] + ROOM > limit


def plain(run: Run) -> Run:
    """What pictures and tables need of it: without programs and arrays, and without what only this process has."""
    rows = [
        replace(row, config=replace(row.config, programs=dict.fromkeys(row.config.programs, _gone), inputs={},
                                    options={}, peers=dict.fromkeys(row.config.peers, _gone), check=None))
        for row in run.rows
    ]  # fmt: skip
    return replace(run, rows=rows)


def _gone() -> Any:
    raise LookupError("the process that built this program is over")


def main() -> None:
    answers = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # what libraries print must not mix with the answers
    serve(sys.stdin.buffer, answers)


def serve(jobs: BinaryIO, answers: BinaryIO) -> None:
    from .playing import items, performed

    def say(message: Any) -> None:
        pickle.dump(message, answers)
        answers.flush()

    while True:
        try:
            section, name, plan = pickle.load(jobs)
        except (EOFError, KeyboardInterrupt):
            return
        (item,) = (each for each in items(plan) if each[:2] == (section, name))
        outcome = performed(item, plan, lambda *how_far: say(how_far))
        say(Done(outcome, list(map(plain, plan.runs)), plan.interrupted, is_spent()))
