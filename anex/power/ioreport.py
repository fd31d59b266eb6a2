"""IOReport, the counters that Apple's own tools read: energy in the group "Energy Model", without root.

The functions are undocumented; their signatures are those that monitors of this hardware use. Never run by us on a
Mac. On macOS 27 the channel of the Neural Engine is reported to stay 0 (peers.md): that reads as "not available".
"""

from __future__ import annotations

import ctypes
import re
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
JOULES = {"J": 1.0, "mJ": 1e-3, "uJ": 1e-6, "µJ": 1e-6, "nJ": 1e-9, "pJ": 1e-12}
DIE = r"(?:DIE_\d+_)?"
PARTS = {  # the part, and the die or instance where a channel names one
    "ane": re.compile(rf"(?P<die>{DIE})ANE(?P<instance>[\d_]*)"),
    "cpu": re.compile(rf"(?P<die>{DIE})CPU(?P<instance>\d*) Energy"),
    "gpu": re.compile(rf"(?P<die>{DIE})GPU(?P<instance>\d*) Energy"),
}
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

    A chip of two dies has its channels twice, as "ANE0" and "ANE1" or "DIE_0_ANE": they add up, where no channel has
    the sum. Units that are no energy are left alone, and so are parts that no channel names.

    >>> sample([("ANE", "mJ", 1500), ("GPU Energy", "nJ", 2_000_000_000), ("DRAM", "mJ", 7)], 0.5)
    Sample(seconds=0.5, ane=3.0, cpu=None, gpu=4.0)
    """
    found: dict[str, dict[bool, float]] = {}
    for name, unit, value in channels:
        joules = JOULES.get(unit.strip().replace("μ", "µ"))  # two letters look alike
        for part, pattern in PARTS.items() if joules is not None and value >= 0 and seconds > 0 else ():
            if channel := pattern.fullmatch(name.strip()):
                is_sum = not channel["die"] and not channel["instance"]
                sums = found.setdefault(part, {})
                sums[is_sum] = sums.get(is_sum, 0.0) + value * (joules or 0.0) / seconds
    return Sample(seconds, **{part: sums.get(True, sums.get(False, 0.0)) for part, sums in found.items()})


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
