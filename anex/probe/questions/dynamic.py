"""Weights that change without a compilation: packed beside the activations in one input."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from ..._coremltools import builder
from ...bench.timing import measure
from ...build import graph
from ..record import Answer, Check, probe
from ..session import Session, errors, random

if TYPE_CHECKING:
    from coremltools.converters.mil.mil import Program, Var

IN, OUT, SEQ = 256, 256, 64
TILES = (32, 64, 128, 256)


def packed(into: int, out: int, width: int) -> Program:
    """x [1, IN, 1, SEQ + OUT]: activations and the transposed weights of one product side by side."""
    mb = builder()

    @graph(x=(1, into, 1, width + out))
    def product(x: Var) -> Var:
        acts = mb.slice_by_size(x=x, begin=[0, 0, 0, 0], size=[1, into, 1, width])
        weights = mb.slice_by_size(x=x, begin=[0, 0, 0, width], size=[1, into, 1, out])
        a = mb.reshape(x=acts, shape=(1, 1, into, width))
        w = mb.transpose(x=mb.reshape(x=weights, shape=(1, 1, into, out)), perm=(0, 1, 3, 2))
        return mb.reshape(x=mb.matmul(x=w, y=a), shape=(1, out, 1, width), name="y")

    return product


def pack(acts: np.ndarray, weight: np.ndarray) -> np.ndarray:
    """acts [IN, SEQ] and weight [OUT, IN] as the input of ``packed``."""
    together: np.ndarray = np.concatenate([acts, weight.T], axis=1)[None, :, None].astype(np.float16)
    return together


@probe(
    "dynamic-matmul",
    question="Do packed weights change the result without a compilation, and what does a tile cost?",
    source="test_dynamic_matmul (seed 002)",
)
def dynamic_matmul(session: Session) -> Answer:
    acts = random("acts", IN, SEQ)
    weights = {"identity": np.eye(OUT, IN), "2x": 2 * np.eye(OUT, IN), "random": random("w", OUT, IN, scale=IN**-0.5)}
    before = session.compiled
    rans = session.run_each(packed(IN, OUT, SEQ), [{"x": pack(acts, w)} for w in weights.values()])
    checks = [
        Check(f"{name}, max error", errors(ran.only[0, :, 0], w.astype(np.float64) @ acts.astype(np.float64))[0], 0.01)
        for (name, w), ran in zip(weights.items(), rans, strict=True)
    ]
    checks.append(Check("compilations for three weights", session.compiled - before, 1))
    lines = ["tile_oc  tiles  compile  eval/ms  GFLOP/s"]
    for tile in TILES:
        ran = session.run(packed(IN, tile, SEQ), {"x": pack(acts, random("w", tile, IN))})
        count = OUT // tile
        lines.append(f"{tile:7}  {count:5}  {ran.compile_ms:4.1f} ms  {count * ran.ms:7.4f}  "
                     f"{2 * IN * OUT * SEQ / (count * ran.ms) / 1e6:7.1f}")  # fmt: skip
    wide, weight = acts.astype(np.float32), weights["random"].astype(np.float32)
    blas = measure(lambda: weight @ wide, session.effort)
    lines.append(f"numpy's BLAS: {blas.ms:.4f} ms, {2 * IN * OUT * SEQ / blas.ms / 1e6:.1f} GFLOP/s")
    changed = all(check.passed for check in checks)
    results = "three right results" if changed else "and not all results are right"
    return Answer("dynamic" if changed else "wrong", f"One compilation, three weights, {results}.", checks, lines)
