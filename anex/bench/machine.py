"""Where a run takes place: what the header of every report says."""

from __future__ import annotations

import os
import platform
from collections.abc import Mapping
from typing import Any

from .. import devices
from ..devices.info import device_info, label

ARRAYS, MACS = 16, 2048  # MAC arrays of a cluster, multiply-adds of each in a cycle: the published tools' assumption
MAC_CLOCK = 306.0e6  # Hz, of the engine that the published peak was derived for (seed 000)


def peak_tflops(clock: float = MAC_CLOCK) -> float:
    """fp16 TFLOPS of a cluster: derived from a clock, never measured.

    >>> round(peak_tflops(), 3)
    20.054
    """
    return ARRAYS * MACS * 2 * clock / 1e12


def default() -> str:
    """The Neural Engine where there is one; the stand-in only for who asks for it."""
    return "ane" if "ane" in devices.available() and label("ane") == "ane" else "cpu"


def facts(device: str) -> Mapping[str, Any]:
    """The machine in words, for reports."""
    from importlib.metadata import version

    from ..doctor import machine

    info, here = device_info(), machine()
    return {
        "device": label(device),
        "machine": here.get("model") or platform.machine(),
        "chip": here.get("chip") or platform.processor() or platform.machine(),
        "system": platform.platform(terse=True),
        "python": platform.python_version(),
        "anex": version("anex"),
        "cores": os.cpu_count(),
        "ane": {"architecture": info.architecture, "engines": info.engines, "cores": info.cores, "build": info.build},
    }


def header(device: str, qos: int = 21) -> list[str]:
    """The first lines of the published peak tools; what they cannot know here they do not say."""
    known = facts(device)
    if known["device"] == "cpu":
        return [f"device: cpu ({known['chip']}, {known['cores']} cores, {known['system']}); no Neural Engine was run"]
    ane = known["ane"]
    return [
        f"ANE hw: type={ane['architecture']}, numANEs={ane['engines']}, numCores={ane['cores']}, QoS={qos}"
        + (" (the stand-in: no hardware was run)" if known["device"] == "double" else ""),
        f"IP clock=2448 MHz, MAC clock={MAC_CLOCK / 1e6:.1f} MHz (as published for h17; not read from this machine)",
        f"{peak_tflops():.2f} TFLOPS/cluster x {ane['engines']} = {peak_tflops() * ane['engines']:.2f} TFLOPS system",
    ]
