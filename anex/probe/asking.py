"""Asking probes, one after another; one that fails says why, and the next one goes on."""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from ..bench.progress import Listener
from ..bench.timing import Effort
from ..devices.info import label
from ..errors import AneWarning, ArgumentError, brief
from .questions import PROBES
from .record import Probe
from .session import Session

EMPTY: Mapping[str, Any] = {"lines": [], "checks": [], "data": {}}


def chosen(names: Iterable[str]) -> list[Probe]:
    """Those of these names, in the order they are registered; all without any."""
    names = list(names)
    if unknown := [name for name in names if name not in PROBES]:
        raise ArgumentError(f"there is no probe {', '.join(unknown)}; there are {', '.join(sorted(PROBES))}")
    return [found for name, found in PROBES.items() if not names or name in names]


def ask(
    names: Iterable[str], device: str, effort: Effort, listener: Listener | None = None
) -> Iterator[Mapping[str, Any]]:
    """The answers as plain data, each as soon as it is there."""
    several = chosen(names)
    for number, each in enumerate(several):
        if listener:
            listener(each.name, number, len(several))
        yield answer(each, device, effort)
    if listener:
        listener("", len(several), len(several))


def answer(asked: Probe, device: str, effort: Effort, *, small: bool = False) -> Mapping[str, Any]:
    """``small``: the sizes of a smaller form of the question, where it has one; the answer says so."""
    known = {
        "name": asked.name, "question": asked.question, "source": asked.source, "published": dict(asked.answers),
        "device": label(device), "small": small,
    }  # fmt: skip
    if asked.device and asked.device != device:
        why = f"it is about device={asked.device!r}, and this run is on {device!r}"
        return {**known, **EMPTY, "status": "SKIP", "key": "", "verdict": f"Not asked: {why}."}
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", AneWarning)  # contested rules are what probes are about
            session = Session(device, effort, small)
            found = asked.run(session)
    except Exception as error:  # whatever it is, the other probes go on
        return {**known, **EMPTY, "status": "FAIL", "key": "failed", "verdict": brief(error)}
    return {
        **known, "status": found.status, "key": found.key, "verdict": found.verdict, "lines": list(found.lines),
        "checks": [{"what": c.what, "found": c.found, "limit": c.limit, "passed": c.passed} for c in found.checks],
        "data": dict(found.data), "asked": session.asked,
    }  # fmt: skip
