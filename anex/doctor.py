"""``anex doctor``: what this machine has, what anex expects of it, and what follows."""

from __future__ import annotations

import dataclasses
import importlib.metadata
import os
import platform
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from . import _native
from .errors import Error
from .requirements import Requirement, requirements

EXPECTED_QOS = {
    "real_time": 0, "background": 9, "utility": 17, "default": 21, "user_initiated": 25, "user_interactive": 33,
}  # fmt: skip
OLDEST_MACOS = 13  # the oldest on which sources saw the private interface


def examine() -> dict[str, Any]:
    """Everything that ``anex doctor`` tells, ready for JSON."""
    facts: dict[str, Any] = {
        "schema": 1,
        "machine": machine(),
        "versions": versions(),
        "ane": neural_engine(),
        "cpu": {"instruction_sets": list(_native.instruction_sets()), "threads": _native.get_num_threads()},
        "cache": compiled_programs(),
        "budget": _native.ane_account(),
    }
    facts["requirements"] = [dataclasses.asdict(each) for each in requirements(facts)]
    facts["verdicts"] = list(verdicts(facts))
    return facts


def machine() -> dict[str, Any]:
    return {"chip": _chip(), "system": _system(), "architecture": platform.machine(), "processors": os.cpu_count()}


def _chip() -> str:
    """As its maker calls it."""
    if sys.platform == "darwin":
        return _said("sysctl", "-n", "machdep.cpu.brand_string") or platform.processor()
    try:
        found = re.search(r"^model name\s*:\s*(.+)$", Path("/proc/cpuinfo").read_text(), re.MULTILINE)
    except OSError:
        found = None
    return found[1] if found else platform.processor() or platform.machine()


def _system() -> str:
    if sys.platform == "darwin":
        return f"macOS {platform.mac_ver()[0]} ({_said('sysctl', '-n', 'kern.osversion')})"
    try:
        name = platform.freedesktop_os_release()["PRETTY_NAME"]
    except (OSError, KeyError):
        name = platform.system()
    return f"{name}, {platform.system()} {platform.release()}"


def _said(*command: str) -> str:
    try:
        return subprocess.run(command, capture_output=True, text=True, timeout=10).stdout.strip()
    except (OSError, subprocess.SubprocessError):
        return ""


def versions() -> dict[str, str]:
    """Without importing any of them."""
    from . import __version__

    found = {"anex": __version__, "python": platform.python_version()}
    for name in ("numpy", "coremltools", "torch"):
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            found[name] = ""
    return found


def neural_engine() -> dict[str, Any]:
    from .devices.info import device_info, is_stand_in

    info = device_info()
    known: dict[str, Any] = {
        "available": info.available, "reason": info.reason, "framework": info.framework, "chip": info.chip,
        "family": info.family, "architecture": info.architecture, "engines": info.engines, "cores": info.cores,
        "build": info.build, "is_stand_in": is_stand_in(), "device": {},
        "selectors": [], "qos": {"expected": EXPECTED_QOS, "found": {}},
    }  # fmt: skip
    try:
        known["selectors"] = _native.ane_selectors()
        known["device"] = _native.ane_device()
        known["qos"]["found"] = _native.ane_qos()
    except Error:
        pass  # ``reason`` says why
    return known


def compiled_programs() -> dict[str, Any]:
    from . import cache

    entries = cache.list()
    return {"folder": str(cache.folder()), "programs": len(entries), "bytes": sum(entry.bytes for entry in entries)}


# ---- what follows ------------------------------------------------------------------------------------------------


def verdicts(facts: dict[str, Any]) -> Iterator[str]:
    ane, cpu, budget = facts["ane"], facts["cpu"], facts["budget"]
    if ane["available"]:
        chip = " ".join(filter(None, (ane["chip"], f"({ane['architecture']})" if ane["architecture"] else "")))
        yield f"device='ane' is available: {chip or 'a chip without a name'}, {ane['cores']} cores."
    else:
        yield f"device='ane' is not available: {ane['reason'].rstrip('.')}."
        yield _way_out()
    if ane["is_stand_in"]:
        yield "ANEX_ANE_FRAMEWORK names another library than Apple's: nothing here tells of hardware."
    missing = [each for each in ane["selectors"] if not each["found"]]
    other = [each for each in ane["selectors"] if each["found"] and not each["fits"]]
    for what, found in (("are missing", missing), ("have other types", other)):
        if found:
            needed = sum(each["is_required"] for each in found)
            names = ", ".join(f"{each['kind']}[{each['class']} {each['name']}]" for each in found[:5])
            more = f" and {len(found) - 5} more" if len(found) > 5 else ""
            yield (
                f"{len(found)} of {len(ane['selectors'])} private methods {what}, {needed} of them required: "
                f"{names}{more}; attach the report of `anex selftest` to an issue."
            )
    if ane["selectors"] and not missing and not other:
        yield f"All {len(ane['selectors'])} private methods are as expected."
    if ane["qos"]["found"] and ane["qos"]["found"] != EXPECTED_QOS:
        yield f"The QoS classes have other numbers than published: {ane['qos']['found']}."
    if sys.platform == "darwin":
        yield from _requirements()
    sets = cpu["instruction_sets"]
    yield f"device='cpu' is available: {sets[0]} kernels, {cpu['threads']} thread(s)."
    if ane["available"] and budget["compile_limit"]:
        left = budget["compile_limit"] - budget["compiles"]
        yield f"A process may compile {left} programs, {facts['cache']['programs']} are compiled already."


def _way_out() -> str:
    if sys.platform == "darwin":
        return "device='cpu' runs the same programs; if this Mac has Apple silicon, attach this to an issue."
    return "device='cpu' runs the same programs here; the Neural Engine needs a Mac with Apple silicon."


def _requirements() -> Iterator[str]:
    release = platform.mac_ver()[0]
    if release and int(release.split(".")[0]) < OLDEST_MACOS:
        yield f"macOS {release} is older than {OLDEST_MACOS}, the first on which the private interface was seen."
    if platform.machine() != "arm64":
        yield "This is not Apple silicon, or Python runs translated: use an arm64 build of Python."
    if shutil.which("clang") is None:
        yield "clang is missing, which only building anex needs: `xcode-select --install`."


def text(facts: dict[str, Any]) -> str:
    return "\n".join(_lines(facts))


def _lines(facts: dict[str, Any]) -> Iterator[str]:
    here, ane, cpu, budget = facts["machine"], facts["ane"], facts["cpu"], facts["budget"]
    rows = {
        "chip": f"{here['chip']}, {here['processors']} processors ({here['architecture']})",
        "system": here["system"],
        "versions": ", ".join(f"{name} {version or '(absent)'}" for name, version in facts["versions"].items()),
        "cpu engine": f"{', '.join(cpu['instruction_sets'])}; {cpu['threads']} thread(s)",
        "framework": ane["framework"] or "not opened",
        "neural engine": _engine(ane),
        "qos": ", ".join(f"{name} {value}" for name, value in ane["qos"]["found"].items()) or "unknown",
        "compiled": f"{facts['cache']['programs']} programs, {facts['cache']['bytes']:,} bytes; "
        f"notes in {facts['cache']['folder']}",
        "budget": f"{budget['compiles']} of {budget['compile_limit'] or 'any number of'} compilations, "
        f"{budget['loaded']} of {budget['load_limit'] or 'any number of'} programs loaded",
    }
    yield from (f"{name:<14} {value}" for name, value in rows.items())
    if ane["selectors"]:
        yield ""
        yield "Private methods, expected and found:"
    for each in ane["selectors"]:
        found = each["found"] or ("missing" if each["has_class"] else "no such class")
        mark = "ok " if each["fits"] else "BAD" if each["is_required"] else "?  "
        found = "" if each["fits"] else f" found {found}"
        yield f"  {mark} {each['kind']}[{each['class']} {each['name']}] {each['expected']}{found}"
    yield ""
    yield "Requirements of the published tools:"
    yield from (f"  {Requirement(**each).line}" for each in facts["requirements"])
    yield ""
    yield from facts["verdicts"]


def _engine(ane: dict[str, Any]) -> str:
    if not ane["architecture"]:
        return "none"
    chip = f"{ane['chip']}, " if ane["chip"] else ""
    return f"{chip}{ane['architecture']}, {ane['engines']} engine(s), {ane['cores']} cores, build {ane['build']}"
