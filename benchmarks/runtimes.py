"""Who is compared, which of two environments has it, and in which version. The peers have one of their own, as they
and anex do not always want the same numpy: ``python -m benchmarks.runtimes`` says what an environment has."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).parents[1]
PEERS = ROOT / ".venv-peers" / "bin" / "python"  # as the Makefile makes it


class Runtime(NamedTuple):
    module: str
    package: str  # on PyPI
    is_peer: bool = False  # in the peers' environment; else in that of anex


RUNTIMES = {
    "anex": Runtime("anex", "anex"),
    "numpy": Runtime("numpy", "numpy"),
    "torch": Runtime("torch", "torch"),
    "coremltools": Runtime("coremltools", "coremltools"),
    "onnxruntime": Runtime("onnxruntime", "onnxruntime", is_peer=True),
    "openvino": Runtime("openvino", "openvino", is_peer=True),
    "ctranslate2": Runtime("ctranslate2", "ctranslate2", is_peer=True),
    "llama.cpp": Runtime("llama_cpp", "llama_cpp_python", is_peer=True),
    "double": Runtime("anex", "anex"),  # the stand-in of the Neural Engine's framework
}


def runtime_of(contender: str) -> str:
    """The first word: onnxruntime, of "onnxruntime fp32"."""
    return contender.split()[0]


class Found(NamedTuple):
    """The interpreters to start contenders with, and what they have."""

    pythons: dict[str, str]  # by runtime
    versions: dict[str, str]
    absent: dict[str, str]  # by runtime: why


def find(peers: Path = PEERS) -> Found:
    """Asks both environments; without one for the peers, they are looked for in this one."""
    other = str(peers) if peers.exists() else sys.executable
    pythons = {name: other if runtime.is_peer else sys.executable for name, runtime in RUNTIMES.items()}
    answers = {python: _ask(python) for python in set(pythons.values())}
    versions = {name: found for name in RUNTIMES if (found := answers[pythons[name]].get(name))}
    where = other if peers.exists() else f"{sys.executable}; `make bench` makes {peers.parent.parent.name}"
    absent = {
        name: f"no {runtime.package} in {where if runtime.is_peer else sys.executable}"
        for name, runtime in RUNTIMES.items()
        if name not in versions
    }
    return Found(pythons, versions, absent)


def _ask(python: str) -> dict[str, str]:
    command = [python, "-m", "benchmarks.runtimes"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True, env=environment(1))
    return json.loads(done.stdout)


def environment(threads: int) -> dict[str, str]:
    """For a process that is to use so many threads, whatever library it calls."""
    names = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "VECLIB_MAXIMUM_THREADS")
    quiet = {"OPENVINO_TELEMETRY": "0", "PYTHONWARNINGS": "ignore"}
    return {**os.environ, **dict.fromkeys(names, str(threads)), **quiet}


def here() -> dict[str, str]:
    """Runtimes whose module this environment has, with their versions."""
    return {name: _version(each) for name, each in RUNTIMES.items() if importlib.util.find_spec(each.module)}


def _version(runtime: Runtime) -> str:
    try:
        return importlib.metadata.version(runtime.package)
    except importlib.metadata.PackageNotFoundError:
        return "of this checkout"


if __name__ == "__main__":
    sys.stdout.write(json.dumps(here()))
