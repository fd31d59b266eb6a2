"""What a strict plan promises: the same bytes on every instruction set and number of threads."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Any

import numpy as np

import anex
from anex import _native
from anex.devices.cpu import lower

THREADS = (1, 2)


def everywhere(program: Any, arguments: Sequence[Any]) -> dict[tuple[str, int], list[np.ndarray]]:
    """The outputs of ``main``, planned strictly, by instruction set and number of threads."""
    compiled, function = anex.compile(program, device="cpu", strict=True), program.functions["main"]
    before, found = anex.get_num_threads(), {}
    try:
        for isa in _native.instruction_sets():
            plan = lower(function, compiled.inputs, compiled.outputs, isa, strict=True)
            for threads in THREADS:
                anex.set_num_threads(threads)
                result = plan.run(tuple(arguments))
                outputs = result if isinstance(result, tuple) else (result,)
                found[isa, threads] = [np.array(y) for y in outputs]
    finally:
        anex.set_num_threads(before)
    return found


def same_everywhere(program: Any, arguments: Sequence[Any]) -> list[np.ndarray]:
    """Those outputs, which must be one and the same to the last bit; any NaN is as good as another."""
    found = everywhere(program, arguments)
    first, *others = found
    for other, i in itertools.product(others, range(len(found[first]))):
        left, right = found[first][i], found[other][i]
        assert same_bits(left, right), f"output {i}: {first} and {other} differ: {difference(left, right)}"
    return found[first]


def same_bits(a: np.ndarray, b: np.ndarray) -> bool:
    """Equal to the last bit, the sign of zero included; any NaN is as good as another."""
    a, b = a.reshape(-1), b.reshape(-1)
    if a.dtype.kind != "f":
        return np.array_equal(a, b)
    bits = {2: np.uint16, 4: np.uint32}[a.dtype.itemsize]
    return bool(((a.view(bits) == b.view(bits)) | (np.isnan(a) & np.isnan(b))).all())


def difference(left: np.ndarray, right: np.ndarray) -> str:
    where = np.flatnonzero(left.reshape(-1) != right.reshape(-1))
    some = [f"{left.reshape(-1)[i]!r} != {right.reshape(-1)[i]!r}" for i in where[:3]]
    return f"{len(where)} of {left.size} elements, first {', '.join(some)}"
