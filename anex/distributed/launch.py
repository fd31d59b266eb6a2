"""Who started this process, and with how many others."""

from __future__ import annotations

import os
from collections.abc import Mapping

from .._native import get_num_threads, set_num_threads
from ..errors import ArgumentError
from .group import Alone, Group

TORCH = ("RANK", "WORLD_SIZE", "MASTER_ADDR")  # torchrun sets them all
MPI_SIZES = ("OMPI_COMM_WORLD_SIZE", "PMI_SIZE")  # Open MPI's; MPICH's and Intel's
MPI = (*MPI_SIZES, "PMIX_RANK", "MPI_LOCALNRANKS")
ON_THIS_MACHINE = ("LOCAL_WORLD_SIZE", "OMPI_COMM_WORLD_LOCAL_SIZE", "MPI_LOCALNRANKS")
BACKENDS = ("gloo", "mpi", "alone")


def launcher(environment: Mapping[str, str]) -> str:
    """Of the ``BACKENDS`` the one that serves the launcher whose variables are there."""
    if all(name in environment for name in TORCH):
        return "gloo" if int(environment["WORLD_SIZE"]) > 1 else "alone"
    if any(name in environment for name in MPI):
        return "mpi"
    return "alone"


def join(backend: str | None = None, *, timeout: float = 300.0) -> Group:
    """The group of processes that this one was started with; to be used as a context.

    ``backend``: ``"gloo"`` (torch.distributed), ``"mpi"`` (mpi4py) or ``"alone"``; left out, what the launcher's
    environment variables call for: torchrun's, mpirun's, or none. ``timeout``: seconds that any call of the group
    waits for the others; longer than the slowest takes between two calls, checkpoints included.
    Processes that share a machine share its cores: where the CPU engine would use all, it is given its part.

    Raises ``ArgumentError``, ``UnsupportedError`` where torch or mpi4py is missing, ``WorkerError`` where the others
    do not come.
    """
    if backend not in (None, *BACKENDS):
        raise ArgumentError(f"backend={backend!r} is none of {', '.join(BACKENDS)}")
    if not timeout > 0:
        raise ArgumentError(f"timeout={timeout!r} is no number of seconds above 0")
    backend = backend or launcher(os.environ)
    if backend == "alone":
        return Alone()
    neighbours = _number(ON_THIS_MACHINE)
    if neighbours > 1 and get_num_threads() == os.cpu_count():
        set_num_threads(max(1, get_num_threads() // neighbours))
    if backend == "gloo":
        from .gloo import GlooGroup

        return GlooGroup(timeout)
    from .mpi import MpiGroup

    return MpiGroup(timeout, _number(MPI_SIZES))


def _number(names: tuple[str, ...]) -> int:
    """Of the first variable that is there, or 0."""
    return next((int(os.environ[name]) for name in names if os.environ.get(name, "").isdigit()), 0)
