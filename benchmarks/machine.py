"""The machine itself: what it is, what it can do at most, and what state it is in just now."""

from __future__ import annotations

import ctypes
import functools
import hashlib
import os
import platform
import subprocess
from pathlib import Path
from typing import Any

SOURCE = Path(__file__).with_name("limits.c")
BUILT = Path(__file__).parents[1] / "build" / "bench"
KINDS = {
    "fma": ("multiply-adds of float32 in registers", "FLOP/s"),
    "int8": ("multiply-adds of int8 in registers", "OP/s"),
    "read": ("reading memory", "B/s"),
    "copy": ("copying memory", "B/s"),
    "stream": ("copying memory past the caches", "B/s"),
    "cache": ("x + y to z in the last cache", "B/s"),
    "gemv": ("float16 rows from memory by a vector", "B/s"),
}
BOTH, ONE = 1.6, 1.3  # times the rate of one thread that two have on two cores, and on hyperthreads of one


@functools.cache
def _library() -> ctypes.CDLL:
    """limits.c for this very processor, built once for each version of it."""
    command = [os.environ.get("CC", "cc"), "-O3", "-march=native", "-ffp-contract=fast", "-shared", "-fPIC", "-pthread"]
    text = SOURCE.read_bytes() + " ".join(command).encode() + processor().encode()
    path = BUILT / f"limits-{hashlib.sha256(text).hexdigest()[:16]}.so"
    if not path.exists():
        BUILT.mkdir(parents=True, exist_ok=True)
        part = path.with_suffix(f".{os.getpid()}")  # others may be building it at this moment
        subprocess.run([*command, "-o", str(part), str(SOURCE)], check=True, capture_output=True, text=True)
        part.replace(path)
    library = ctypes.CDLL(str(path))
    library.limit_rate.restype, library.limit_rate.argtypes = ctypes.c_double, [ctypes.c_char_p, ctypes.c_int,
                                                                                ctypes.c_double]  # fmt: skip
    library.limit_signal.restype, library.limit_signal.argtypes = ctypes.c_double, [ctypes.c_double]
    return library


def rate(kind: str, threads: int, seconds: float) -> float | None:
    """What ``threads`` reach for ``seconds``, in the kind's unit; None where this processor has no such instruction."""
    found = _library().limit_rate(kind.encode(), threads, seconds)
    if found < 0:
        raise RuntimeError(f"the limit {kind!r} cannot be measured with {threads} threads")
    return found or None


def state(seconds: float) -> dict[str, float]:
    """``signal``: seconds from one processor to another and back; ``scaling``: what a second thread brings.

    A virtual machine may have its two processors on two cores or on the hyperthreads of one, at the host's whim.
    """
    if processors() < 2:
        return {}
    alone, both = (rate("fma", threads, seconds) or 0 for threads in (1, 2))
    return {"signal": _library().limit_signal(seconds), "scaling": both / alone}


def state_in_words(scaling: float) -> str:
    return "two cores" if scaling >= BOTH else "hyperthreads of one core" if scaling <= ONE else "disturbed"


def processors() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def processor() -> str:
    """As the system calls it, with the model number, which virtual machines need to be told apart."""
    try:
        lines = Path("/proc/cpuinfo").read_text().split("\n\n")[0].splitlines()
    except OSError:
        done = subprocess.run(["sysctl", "-n", "machdep.cpu.brand_string"], capture_output=True, text=True, check=False)
        return done.stdout.strip() or platform.processor() or platform.machine()
    found = {key.strip(): value.strip() for key, _, value in (line.partition(":") for line in lines)}
    name = found.get("model name", platform.machine())
    return f"{name} (family {found['cpu family']}, model {found['model']})" if "cpu family" in found else name


def described() -> dict[str, Any]:
    return {
        "processor": processor(),
        "processors": processors(),
        "machine": platform.machine(),
        "system": f"{platform.system()} {platform.release()}",
        "python": platform.python_version(),
    }
