"""A group by mpi4py: what ``mpirun`` starts."""

from __future__ import annotations

import atexit
import os
import time
from typing import Any

import numpy as np

from ..errors import UnsupportedError, WorkerError
from .group import Group
from .messages import Array

POLLS = 200  # before a waiting process begins to sleep between looks


class MpiGroup(Group):
    """All processes that ``mpirun`` started. ``size``: how many it says they are; 0: it does not say."""

    def __init__(self, timeout: float, size: int = 0) -> None:
        try:
            from mpi4py import MPI
        except (ImportError, RuntimeError) as error:  # RuntimeError: no MPI library
            raise UnsupportedError(
                f"mpirun's processes need mpi4py and its MPI: pip install 'anex[distributed]' ({error})"
            ) from None
        self._mpi = MPI
        self._world = MPI.COMM_WORLD.Dup()  # messages of others cannot meet ours
        if size > 1 and self._world.size != size:
            raise WorkerError(
                f"mpirun started {size} processes and mpi4py sees {self._world.size}: mpirun is of another MPI than "
                f"{MPI.Get_library_version().splitlines()[0].strip()}, which mpi4py loaded; call the mpirun beside it"
            )
        super().__init__(self._world.rank, self._world.size, timeout)

    def _leave(self) -> None:
        self._world.Free()

    def _start(self, data: Array, root: int | None) -> Any:
        if root is None:
            return self._world.Iallreduce(self._mpi.IN_PLACE, data)
        return self._world.Ibcast(data.view(np.uint8), root)

    def _wait(self, pending: Any) -> None:
        """MPI has no timeouts, so it is asked. Looking is also what moves data on."""
        until, looks = time.monotonic() + self.timeout, 0
        while not pending.Test():
            looks += 1
            if looks > POLLS:
                time.sleep(20e-6)
            else:
                os.sched_yield()
            if time.monotonic() > until:
                raise TimeoutError("no answer")

    def _abandon(self) -> None:
        """MPI's own end waits for all processes; aborting does not. At exit, after tracebacks and messages."""
        atexit.register(self._world.Abort, 1)
