"""A graph planned twice, fused and strict, and numpy's idea of some activations."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import anex
from anex import _native
from anex.devices.cpu import lower

RTOL = {"float16": 1e-2, "float32": 1e-4}


class Case:
    """A graph of named inputs, its float64 value, and its plans: fused, and strict."""

    def __init__(self, build: Callable[..., Any], *, dtype: str = "float32", isa: str | None = None, **inputs: Any):
        self.inputs = {n: v if v.dtype.kind in "bi" else v.astype(dtype) for n, v in inputs.items()}
        self.dtype = dtype
        self.graph = anex.graph(**{n: anex.spec(v.shape, v.dtype) for n, v in self.inputs.items()})(build)
        self.function = self.graph.functions["main"]
        compiled = anex.compile(self.graph)
        self.fused = lower(self.function, compiled.inputs, compiled.outputs, isa)
        self.strict = lower(self.function, compiled.inputs, compiled.outputs, isa, strict=True)

    @property
    def nodes(self) -> int:
        return int(self.fused.stats()["nodes"])

    def run(self, plan: _native.Plan) -> tuple[np.ndarray, ...]:
        found = plan.run(tuple(self.inputs.values()))
        return tuple(np.asarray(t) for t in (found if isinstance(found, tuple) else (found,)))

    def check(self, expected: Any = None, nodes: int | None = None) -> Case:
        """Fused equals unfused and, when given, somebody else's value; it took `nodes` nodes."""
        fused, strict = self.run(self.fused), self.run(self.strict)
        for x, y in zip(fused, strict, strict=True):
            close(x, y, self.dtype)
        if expected is not None:
            for x, y in zip(fused, expected if isinstance(expected, tuple) else (expected,), strict=True):
                close(x, y, self.dtype)
        if nodes is not None:
            assert self.nodes == nodes
        return self


def close(found: np.ndarray, expected: np.ndarray, dtype: str) -> None:
    assert found.shape == expected.shape
    if found.dtype.kind in "bi":
        np.testing.assert_array_equal(found, expected)
        return
    expected = expected.astype(np.float64)
    scale = np.abs(expected[np.isfinite(expected)]).max(initial=1e-3)
    np.testing.assert_allclose(found.astype(np.float64), expected, rtol=RTOL[dtype], atol=RTOL[dtype] * scale)


erf = np.vectorize(math.erf, otypes=[np.float64])


def sigmoid(x: np.ndarray) -> np.ndarray:
    return 1 / (1 + np.exp(-x))


def softmax(x: np.ndarray) -> np.ndarray:
    e = np.exp(x - x.max(-1, keepdims=True))
    return e / e.sum(-1, keepdims=True)


def gelu(x: np.ndarray) -> np.ndarray:
    return 0.5 * x * (1 + erf(x / np.sqrt(2)))


def silu(x: np.ndarray) -> np.ndarray:
    return x / (1 + np.exp(-x))


def pointwise(weight: np.ndarray, x: np.ndarray) -> np.ndarray:
    return np.einsum("oc,nchw->nohw", weight[:, :, 0, 0].astype(np.float64), x.astype(np.float64))


each_dtype = pytest.mark.parametrize("dtype", ["float16", "float32"])
each_isa = pytest.mark.parametrize("isa", _native.instruction_sets())
