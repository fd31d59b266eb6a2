"""What this machine's Neural Engine is."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass

from .. import _native
from ..errors import Error


@dataclass(frozen=True)
class DeviceInfo:
    """The Neural Engine here; where there is none, ``reason`` says why and the rest is empty.

    ``chip``: as Apple sells it ("M1"), as far as known. ``family``: of the hardware ("H13").
    ``architecture``: as the framework spells it ("h13g"). ``engines`` and ``cores``: as it counts them.
    ``build``: of the system ("25D125"). ``framework``: the file that was opened. ``available``:
    whether ``device="ane"`` can be used, and ``reason`` why not.
    """

    chip: str
    family: str
    architecture: str
    engines: int
    cores: int
    build: str
    framework: str
    available: bool
    reason: str | None


_NAMES = {"h17s": "M5 Pro"}  # where the letter says more than the family


def chip_of(architecture: str) -> tuple[str, str]:
    """(chip, family) of an architecture such as "h13g": the family of M(n) is H(n + 12).

    >>> chip_of("h13g")
    ('M1', 'H13')
    """
    found = re.fullmatch(r"h(\d+)[a-z]*", architecture.lower())
    if not found or int(found[1]) < 13:
        return "", ""
    number = int(found[1])
    return _NAMES.get(architecture.lower(), f"M{number - 12}"), f"H{number}"


def device_info() -> DeviceInfo:
    """The Neural Engine of this machine: chip, family, cores, and whether it can be used. Works everywhere.

    >>> anex.device_info().available == ("ane" in anex.devices.available())
    True
    """
    reason = unavailable()
    try:
        found = _native.ane_device()
    except Error:
        return DeviceInfo("", "", "", 0, 0, "", "", False, reason)
    chip, family = chip_of(found["architecture"])
    return DeviceInfo(
        chip, family, found["architecture"], found["anes"], found["cores"], found["build"], found["framework"],
        reason is None, reason,
    )  # fmt: skip


def is_stand_in() -> bool:
    """Whether another library takes the place of Apple's framework, as the tests' stand-in does."""
    return bool(os.environ.get("ANEX_ANE_FRAMEWORK"))


def label(device: str) -> str:
    """What figures of ``device`` are: ``ane`` and ``cpu`` were measured there, ``double`` is the tests' stand-in.

    >>> label("cpu")
    'cpu'
    """
    return "double" if device == "ane" and is_stand_in() else device


def unavailable() -> str | None:
    """Why this machine cannot run programs on the Neural Engine; None when it can."""
    reason = _native.ane_open()
    if reason is not None:
        return reason
    try:
        device = _native.ane_device()
    except Error as error:
        return str(error)
    if device["has_ane"]:
        return None
    if device["is_virtual_machine"]:
        return "this is a virtual machine, and its host lends it no Neural Engine"
    return "the framework says that this computer has no Neural Engine"
