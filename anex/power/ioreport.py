"""IOReport, the counters that Apple's own tools read: energy in the group "Energy Model", without root.

The functions are undocumented; their signatures are those that monitors of this hardware use. Never run by us on a
Mac. On macOS 27 the channel of the Neural Engine is reported to stay 0 (peers.md): that reads as "not available".
"""

from __future__ import annotations

import ctypes
import sys
import time
from collections.abc import Iterable, Iterator
from contextlib import suppress
from ctypes import c_char_p, c_int64, c_uint32, c_uint64, c_void_p
from typing import Any

from .sample import Sample

LIBRARY = "/usr/lib/libIOReport.dylib"
FOUNDATION = "/System/Library/Frameworks/CoreFoundation.framework/CoreFoundation"
GROUP = "Energy Model"
JOULES = {"mJ": 1e-3, "uJ": 1e-6, "nJ": 1e-9, "J": 1.0}
PARTS = {"ane": "ANE", "cpu": "CPU Energy", "gpu": "GPU Energy"}
UTF8 = 0x08000100
SIGNATURES: dict[str, tuple[Any, list[Any]]] = {
    "IOReportCopyChannelsInGroup": (c_void_p, [c_void_p, c_void_p, c_uint64, c_uint64, c_uint64]),
    "IOReportCreateSubscription": (c_void_p, [c_void_p, c_void_p, ctypes.POINTER(c_void_p), c_uint64, c_void_p]),
    "IOReportCreateSamples": (c_void_p, [c_void_p, c_void_p, c_void_p]),
    "IOReportCreateSamplesDelta": (c_void_p, [c_void_p, c_void_p, c_void_p]),
    "IOReportSimpleGetIntegerValue": (c_int64, [c_void_p, c_void_p]),
    "IOReportChannelGetChannelName": (c_void_p, [c_void_p]),
    "IOReportChannelGetUnitLabel": (c_void_p, [c_void_p]),
}
CORE: dict[str, tuple[Any, list[Any]]] = {
    "CFStringCreateWithCString": (c_void_p, [c_void_p, c_char_p, c_uint32]),
    "CFStringGetCString": (ctypes.c_bool, [c_void_p, c_char_p, c_int64, c_uint32]),
    "CFDictionaryGetValue": (c_void_p, [c_void_p, c_void_p]),
    "CFArrayGetCount": (c_int64, [c_void_p]),
    "CFArrayGetValueAtIndex": (c_void_p, [c_void_p, c_int64]),
    "CFRelease": (None, [c_void_p]),
}


def sample(channels: Iterable[tuple[str, str, int]], seconds: float) -> Sample:
    """Of the differences of the counters, (name, unit, value), over ``seconds``.

    A chip of two dies has its channels twice, as "ANE0" and "ANE1" or "DIE_0_ANE": they add up. Units that are no
    energy are left alone, and so are parts that no channel names.

    >>> sample([("ANE", "mJ", 1500), ("GPU Energy", "nJ", 2_000_000_000), ("DRAM", "mJ", 7)], 0.5)
    Sample(seconds=0.5, ane=3.0, cpu=None, gpu=4.0)
    """
    found: dict[str, float] = {}
    for name, unit, value in channels:
        part = next((part for part, channel in PARTS.items() if _is(name, channel)), None)
        if part is not None and unit.strip() in JOULES and value >= 0:
            found[part] = found.get(part, 0.0) + value * JOULES[unit.strip()] / seconds
    return Sample(seconds, **found)


def _is(name: str, channel: str) -> bool:
    bare = name.strip()
    if channel == "ANE":
        return bare.rstrip("0123456789").removeprefix("DIE_") == "ANE" or bare.endswith("_ANE")
    return bare == channel


class IOReport:
    """Two readings of the counters, and what lies between them."""

    name = "IOReport"

    @staticmethod
    def unavailable() -> str | None:
        if sys.platform != "darwin":
            return "IOReport is part of macOS"
        try:
            _libraries()
        except (OSError, AttributeError) as error:
            return f"IOReport is not as expected here: {error}"
        return None

    def __init__(self) -> None:
        self.report, self.core = _libraries()
        group = self._string(GROUP)
        self.channels = self.report.IOReportCopyChannelsInGroup(group, None, 0, 0, 0)
        self.core.CFRelease(group)
        self.subscribed = c_void_p()
        self.subscription = self.channels and self.report.IOReportCreateSubscription(
            None, self.channels, ctypes.byref(self.subscribed), 0, None
        )
        if not self.subscription:
            raise OSError("IOReport gives no channels of energy")

    def start(self) -> None:
        self.begun, self.before = time.perf_counter(), self._now()

    def stop(self) -> list[Sample]:
        after, seconds = self._now(), time.perf_counter() - self.begun
        delta = self.report.IOReportCreateSamplesDelta(self.before, after, None)
        try:
            return [sample(self._values(delta), seconds)] if delta else []
        finally:
            for held in filter(None, (self.before, after, delta)):
                self.core.CFRelease(held)

    def __del__(self) -> None:
        with suppress(AttributeError):
            for held in filter(None, (self.subscription, self.subscribed.value, self.channels)):
                self.core.CFRelease(held)

    def _now(self) -> int:
        found: int | None = self.report.IOReportCreateSamples(self.subscription, self.subscribed, None)
        if not found:
            raise OSError("IOReport gives no sample")
        return found

    def _values(self, delta: int) -> Iterator[tuple[str, str, int]]:
        key = self._string("IOReportChannels")
        array = self.core.CFDictionaryGetValue(delta, key)
        self.core.CFRelease(key)
        for i in range(self.core.CFArrayGetCount(array) if array else 0):
            channel = self.core.CFArrayGetValueAtIndex(array, i)
            name, unit = (
                self._text(getattr(self.report, f"IOReportChannelGet{what}")(channel))
                for what in ("ChannelName", "UnitLabel")
            )
            yield name, unit, self.report.IOReportSimpleGetIntegerValue(channel, None)

    def _string(self, text: str) -> int:
        made: int = self.core.CFStringCreateWithCString(None, text.encode(), UTF8)
        return made

    def _text(self, string: int | None) -> str:
        buffer = ctypes.create_string_buffer(256)
        if not string or not self.core.CFStringGetCString(string, buffer, len(buffer), UTF8):
            return ""
        return buffer.value.decode(errors="replace")


def _libraries() -> tuple[Any, Any]:
    opened = []
    for path, functions in ((LIBRARY, SIGNATURES), (FOUNDATION, CORE)):
        library = ctypes.CDLL(path)
        for name, (result, arguments) in functions.items():
            function = getattr(library, name)
            function.restype, function.argtypes = result, arguments
        opened.append(library)
    return opened[0], opened[1]
