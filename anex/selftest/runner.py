"""Jobs handed to worker processes one by one; a worker that dies or hangs is replaced, and the job says so."""

from __future__ import annotations

import json
import os
import select
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from typing import Any

from ..processes import ending, environment

# Programs that one process compiles before a fresh one takes over; sources saw compilation end at 119.
BUDGET = 90
COST = {"case": 1, "probe": 8}  # programs of one job, at most; with force twice as many
SECONDS = 120.0


class Worker:
    """One process of ``anex.selftest.worker``."""

    def __init__(self) -> None:
        self.said = tempfile.TemporaryFile()  # noqa: SIM115  closed by stop
        self.process = subprocess.Popen(
            [sys.executable, "-m", "anex.selftest.worker"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self.said,
            env=environment(),
        )
        self.spent = 0

    def ask(self, job: dict[str, Any], seconds: float) -> dict[str, Any]:
        """The answer; or ``status`` crash or timeout, after which the worker is done for."""
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        try:
            self.process.stdin.write(json.dumps(job).encode() + b"\n")
            self.process.stdin.flush()
        except BrokenPipeError:
            return self._death()
        data, end = b"", time.monotonic() + seconds
        while not data.endswith(b"\n"):
            ready, _, _ = select.select([self.process.stdout], [], [], max(0.0, end - time.monotonic()))
            if not ready:
                return {"status": "timeout", "reason": f"no answer within {seconds:g} s"}
            if not (piece := os.read(self.process.stdout.fileno(), 1 << 20)):
                return self._death()
            data += piece
        answer: dict[str, Any] = json.loads(data)
        return answer

    def _death(self) -> dict[str, Any]:
        how = ending(self.process.wait())
        self.said.seek(0)
        last = self.said.read().decode(errors="replace").strip().splitlines()[-3:]
        return {
            "status": "crash",
            "reason": f"the process ended with {how}; its last words: {' / '.join(last) or 'none'}",
        }

    def stop(self) -> None:
        if self.process.stdin is not None:
            self.process.stdin.close()
        try:
            self.process.wait(5)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        if self.process.stdout is not None:
            self.process.stdout.close()
        self.said.close()


def perform(
    jobs: Sequence[dict[str, Any]], seconds: float = SECONDS
) -> Iterator[tuple[dict[str, Any], dict[str, Any]]]:
    """(job, answer) one after the other. ``job["alone"]``: in a process that ran and will run nothing else."""
    worker: Worker | None = None
    try:
        for job in jobs:
            cost = COST[job["kind"]] * (2 if job.get("force") else 1)
            if worker is not None and (job.get("alone") or worker.spent + cost > BUDGET):
                worker.stop()
                worker = None
            worker = worker or Worker()
            worker.spent += cost
            answer = worker.ask(job, seconds)
            yield job, answer
            if job.get("alone") or answer.get("status") in ("crash", "timeout"):
                if answer.get("status") == "timeout":
                    worker.process.kill()
                worker.stop()
                worker = None
    finally:
        if worker is not None:
            worker.stop()
