"""Writes down how the op suite's plans are made and run, for replay.c to do the same on another machine."""

from __future__ import annotations

import itertools
import pickle
import re
import struct
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from anex import _native
from anex.devices import cpu

ROOT = Path(__file__).parents[2]
# in the order of anex_dtype
DTYPES = re.findall(r'^ANEX_DTYPE\(\w+, "(\w+)"', (ROOT / "csrc/dtypes.inc").read_text(), re.MULTILINE)


def numbers(*values: int) -> bytes:
    return struct.pack(f"<{len(values)}q", *values)


def text(value: str) -> bytes:
    return numbers(len(value.encode()) + 1) + value.encode() + b"\0"


def several(values: Any) -> bytes:
    return numbers(len(values), *values)


def described(shape: Any, dtype: str) -> bytes:
    return numbers(DTYPES.index(dtype), len(shape), *shape)


class Recording:
    """The records, and what each run gave here."""

    def __init__(self, strict: bool = False) -> None:
        self.strict = strict  # every plan, whatever its test asked for
        self.records: list[bytes] = []
        self.results: list[tuple[str, list[np.ndarray]]] = []  # the test and ops of each run, its outputs
        self.plans = itertools.count()
        self.test = ""

    def add(self, kind: str, plan: int, *parts: bytes) -> None:
        self.records.append(text(kind) + numbers(plan) + b"".join(parts))

    def plan(self, isa: str | None = None, strict: bool = False) -> Recorded:
        return Recorded(self, isa, strict or self.strict)

    def save(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "records").write_bytes(b"".join(self.records))
        (folder / "results").write_bytes(pickle.dumps(self.results))


class Recorded:
    """In the place of a _native.Plan, and with one inside."""

    def __init__(self, recording: Recording, isa: str | None, strict: bool) -> None:
        self.recording, self.number, self.ops = recording, next(recording.plans), []
        self.inside = _native.Plan(isa, strict)
        self.add("P", numbers(strict))

    def __getattr__(self, name):
        return getattr(self.inside, name)

    def add(self, kind: str, *parts: bytes) -> None:
        self.recording.add(kind, self.number, *parts)

    def add_input(self, name, shape, dtype):
        value = self.inside.add_input(name, shape, dtype)
        self.add("I", described(shape, dtype))
        return value

    def add_value(self, shape, dtype):
        value = self.inside.add_value(shape, dtype)
        self.add("V", described(shape, dtype))
        return value

    def add_constant(self, array):
        value = self.inside.add_constant(array)
        if isinstance(array, str):
            self.add("C", described((len(array.encode()) + 1,), "string"), array.encode() + b"\0")
        else:
            self.add("C", described(array.shape, array.dtype.name), array.tobytes())
        return value

    def add_op(self, op, name, inputs, values, outputs, blocks=(), through=-1):
        self.inside.add_op(op, name, inputs, values, outputs, [block.inside for block in blocks], through)
        lists = [several(given) for given in (inputs, values, outputs, [block.number for block in blocks])]
        self.add("O", text(op), *lists, numbers(through))
        self.ops.append(op)

    def finish(self, outputs):
        self.inside.finish(outputs)
        self.add("F", several([value for _, value in outputs]))

    def run(self, arguments, out=None):
        arrays = [np.array(argument, order="C") for argument in arguments]  # states change
        found = self.inside.run(arguments, out)
        parts = [described(array.shape, array.dtype.name) + array.tobytes() for array in arrays]
        self.add("R", numbers(len(arrays)), *parts)
        results = [np.array(y) for y in (found if isinstance(found, tuple) else (found,))]
        self.recording.results.append((f"{self.recording.test}: {' '.join(self.ops)}", results))
        return found


# ---- as a plugin: pytest -p arm64.record --records FOLDER --every N ----------------------------------------


def pytest_addoption(parser):
    parser.addoption("--records", type=Path)
    parser.addoption("--every", type=int, default=1)
    parser.addoption("--strict-plans", action="store_true")


def pytest_collection_modifyitems(config, items):
    """One test in so many, of those that are run on the CPU engine's best instruction set."""
    best = _native.instruction_sets()[0]
    if config.option.strict_plans:
        items[:] = [item for item in items if item.get_closest_marker("fuses") is None]
    parameters = [getattr(item, "callspec", SimpleNamespace(params={})).params for item in items]
    kept = [p.get("device", "cpu") == "cpu" and p.get("isa", best) == best for p in parameters]
    items[:] = list(itertools.compress(items, kept))[:: config.option.every]


@pytest.fixture(autouse=True)
def _record(request, recording, monkeypatch):
    recording.test = request.node.name
    monkeypatch.setattr("harness.EVERYWHERE", False)  # once is enough
    monkeypatch.setattr(cpu, "_native", SimpleNamespace(Plan=recording.plan, kernels=_native.kernels))


@pytest.fixture(scope="session")
def recording(request):
    found = Recording(request.config.option.strict_plans)
    yield found
    found.save(request.config.option.records)
