"""The devices a MIL program can be compiled for: peers behind one small protocol."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Protocol

from ..errors import ArgumentError, UnsupportedError
from . import ane, cpu

if TYPE_CHECKING:
    from coremltools.converters.mil.mil import Operation, Program

    from ..spec import Spec


class Executable(Protocol):
    """A program compiled for a device."""

    def run(self, arguments: tuple[Any, ...], out: Any = None) -> Any:
        """One Tensor or array per input, in order; results into ``out`` or into new tensors."""

    def nodes(self) -> Sequence[tuple[str, str, int]]:
        """What runs, in order: (MIL op, name, bytes of its outputs)."""

    def profile(self, arguments: tuple[Any, ...], out: Any) -> Sequence[float]:
        """Run into ``out``; the wall seconds of each node."""

    def stats(self) -> Mapping[str, int]:
        """Counts and bytes worth knowing."""

    def close(self) -> None:
        """Free the program; runs under way finish first."""


class Device(Protocol):
    @property
    def name(self) -> str: ...

    def unavailable(self) -> str | None:
        """Why this machine cannot run programs on the device; None when it can."""

    def objections(self, op: Operation) -> Sequence[str]:
        """Every reason why the device cannot run this op; empty when it can."""

    def compile(self, program: Program, inputs: Mapping[str, Spec], outputs: Mapping[str, Spec]) -> Executable: ...


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


def available() -> tuple[str, ...]:
    """The names of the devices this machine can run programs on."""
    return tuple(device.name for device in DEVICES if device.unavailable() is None)


def require(device: Device) -> None:
    """``UnsupportedError`` with the reason when this machine lacks the device."""
    reason = device.unavailable()
    if reason is not None:
        others = ", ".join(f"device={name!r}" for name in available())
        raise UnsupportedError(f"device={device.name!r} is not available: {reason}; here you can use {others}")
