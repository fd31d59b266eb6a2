"""What the machine does meanwhile: processors and memory by psutil, power by ``anex.power``'s samplers."""

from __future__ import annotations

import asyncio
import os
from collections import deque
from contextlib import suppress
from dataclasses import dataclass, field

import psutil

from ..power import Sample, Sampler
from ..power.sample import joules

HISTORY = 60
POWER_SECONDS = 2.0
"""Of one reading of power."""


@dataclass
class Machine:
    """Nothing is known until ``look`` was called. Percent are of one core each for the run, of all for the machine."""

    sampler: Sampler | None
    why_no_power: str
    run_percent: deque[float] = field(default_factory=lambda: deque(maxlen=HISTORY))
    run_bytes: deque[float] = field(default_factory=lambda: deque(maxlen=HISTORY))
    percent: deque[float] = field(default_factory=lambda: deque(maxlen=HISTORY))
    watts: Sample | None = None
    used: int = 0  # bytes of memory
    total: int = 0
    looks: int = 0
    known: dict[int, psutil.Process] = field(default_factory=dict)  # psutil counts from one look to the next

    @property
    def cores(self) -> int:
        return os.cpu_count() or 1

    def __post_init__(self) -> None:
        psutil.cpu_percent()  # the first tells nothing

    def look(self, pid: int | None) -> None:
        """At all, and at a run and what it started."""
        self.looks += 1
        self.percent.append(psutil.cpu_percent())
        memory = psutil.virtual_memory()
        self.used, self.total = memory.total - memory.available, memory.total
        self._look_at(pid)

    def _look_at(self, pid: int | None) -> None:
        found: dict[int, psutil.Process] = {}
        if pid is not None:
            with suppress(psutil.Error):
                parent = psutil.Process(pid)
                found = {each.pid: self.known.get(each.pid, each) for each in (parent, *parent.children(True))}
        percent, held, new = 0.0, 0, not self.known
        for number, process in list(found.items()):
            try:
                with process.oneshot():
                    percent += process.cpu_percent()
                    held += process.memory_info().rss
            except psutil.Error:  # it ended just now
                del found[number]
        self.known = found
        if not held:  # it ended; its last numbers stay
            return
        self.run_bytes.append(held)
        if not new:
            self.run_percent.append(percent)

    async def measure_power(self) -> None:
        """Read until cancelled, or until the sampler fails."""
        while (sampler := self.sampler) is not None:
            try:
                await asyncio.to_thread(sampler.start)
                try:
                    await asyncio.sleep(POWER_SECONDS)
                finally:
                    samples = await asyncio.to_thread(sampler.stop)
            except OSError as error:
                self.sampler, self.watts, self.why_no_power = None, None, f"{sampler.name}: {error}"
                return
            seconds = sum(sample.seconds for sample in samples)
            if seconds:
                ane, cpu, gpu = (joules(samples, part) for part in ("ane", "cpu", "gpu"))
                self.watts = Sample(seconds, *(None if j is None else j / seconds for j in (ane, cpu, gpu)))
