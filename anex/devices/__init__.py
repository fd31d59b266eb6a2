"""The devices a MIL program can be compiled for: peers behind one small protocol."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Any, Protocol

from ..errors import ArgumentError, UnsupportedError
from . import ane, cpu

if TYPE_CHECKING:
    from coremltools.converters.mil.mil import Operation, Program

    from ..spec import Spec


@dataclass(frozen=True)
class Signature:
    """What one function of a program takes, gives and keeps, by name and in order."""

    inputs: Mapping[str, Spec]
    outputs: Mapping[str, Spec]
    states: Mapping[str, Spec]


class Pending(Protocol):
    """A call that waits for its ``run()``; the Neural Engine's are submissions, which it runs by itself."""

    def run(self) -> Any: ...


class Executable(Protocol):
    """One function of a program compiled for a device."""

    def run(self, arguments: tuple[Any, ...], out: Any = None) -> Any:
        """One Tensor or array per input, in order; results into ``out`` or into new tensors."""

    def begin(self, arguments: tuple[Any, ...], out: Any = None) -> Pending:
        """The same call with its operands pinned, to be run later."""

    def nodes(self) -> Sequence[tuple[str, str, int]]:
        """What runs, in order: (MIL op, name, bytes of its outputs)."""

    def profile(self, arguments: tuple[Any, ...], out: Any) -> Sequence[float]:
        """Run into ``out``; the wall seconds of each node."""

    def stats(self) -> Mapping[str, Any]:
        """Counts and bytes worth knowing."""

    def close(self) -> None:
        """Free the program; runs under way finish first."""


class Device(Protocol):
    @property
    def name(self) -> str: ...

    @property
    def options(self) -> type[Any]:
        """A dataclass of what ``anex.compile`` takes for it."""

    def unavailable(self) -> str | None:
        """Why this machine cannot run programs on the device; None when it can."""

    def objections(self, options: Any) -> Callable[[Operation], Sequence[str]]:
        """Every reason why the device cannot run an op when compiled with ``options``; empty when it can."""

    def compile(self, program: Program, signatures: Mapping[str, Signature], options: Any) -> Mapping[str, Executable]:
        """Each function of ``program``, whose ops have met no objection; it is read, never changed."""


DEVICES: tuple[Device, ...] = (ane.Ane(), cpu.Cpu())


def get(name: str | None) -> Device:
    """The device of that name, wherever this runs; the CPU engine for None.

    >>> get("cpu").name
    'cpu'
    """
    for device in DEVICES:
        if device.name == (name or "cpu"):
            return device
    names = ", ".join(repr(device.name) for device in DEVICES)
    raise ArgumentError(f"device {name!r} is none of {names}")


def options_of(device: Device, given: Mapping[str, Any]) -> Any:
    """``given`` as the options of the device; ``ArgumentError`` names those it knows."""
    known = [field.name for field in fields(device.options)]
    if unknown := [name for name in given if name not in known]:
        takes = f"the options {', '.join(known)}" if known else "no options"
        raise ArgumentError(f"device={device.name!r} has no option {', '.join(unknown)}; it takes {takes}")
    return device.options(**given)


def available() -> tuple[str, ...]:
    """The names of the devices this machine can run programs on."""
    return tuple(device.name for device in DEVICES if device.unavailable() is None)


def require(device: Device) -> None:
    """``UnsupportedError`` with the reason when this machine lacks the device."""
    reason = device.unavailable()
    if reason is not None:
        others = ", ".join(f"device={name!r}" for name in available())
        raise UnsupportedError(f"device={device.name!r} is not available: {reason}; here you can use {others}")
