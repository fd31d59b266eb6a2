"""A run that is watched: where its lines come from, what the machine does, the text it generates."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass

from .generating import Generator
from .machine import Machine
from .run import Run
from .sources import Child, Source

SECOND = 1.0


@dataclass
class Session:
    """``machine`` is None where nothing is measured: of a file that was written elsewhere, or earlier."""

    run: Run
    source: Source
    machine: Machine | None = None
    generator: Generator | None = None
    why_no_text: str = "--ckpt names the checkpoint to generate from"
    generate_every: float = 60.0  # seconds
    closing: Callable[[], None] | None = None  # called at the end

    @property
    def died(self) -> str | None:
        """How the run ended, where it did not end well."""
        return self.source.state if isinstance(self.source, Child) and self.source.died else None

    @property
    def version(self) -> tuple[object, ...]:
        """Another one as soon as there is something new to show."""
        machine, generator = self.machine, self.generator
        return (self.run.read_lines, self.run.logged, self.source.state, machine and machine.looks,
                generator and (generator.state, generator.text))  # fmt: skip

    async def watch(self) -> None:
        """Look at the machine until cancelled."""
        if self.machine is None:
            return
        power = asyncio.create_task(self.machine.measure_power())
        try:
            begun = False
            while True:
                pid = self.source.pid
                self.machine.look(pid)
                begun = begun or pid is not None
                await asyncio.sleep(SECOND if begun else SECOND / 10)  # a run may be over within a second
        finally:
            power.cancel()

    async def generate(self) -> None:
        """At the first checkpoint, then at every new one, but no sooner than that; until cancelled."""
        while self.generator is not None:
            if self.generator.due():
                await self.generator.generate()
                await asyncio.sleep(self.generate_every)
            else:
                await asyncio.sleep(SECOND)

    async def whole(self) -> None:
        """All that the source has, then one text of its checkpoint."""
        watching = asyncio.create_task(self.watch())
        try:
            await self.source.whole()
        except BaseException:
            await self.end()
            raise
        finally:
            watching.cancel()
        if self.generator is not None and self.generator.due():
            await self.generator.generate()
        await self.end()

    async def end(self) -> None:
        if self.generator is not None:
            await self.generator.end()
        await self.source.end()
        if self.closing is not None:
            closing, self.closing = self.closing, None
            await asyncio.to_thread(closing)
