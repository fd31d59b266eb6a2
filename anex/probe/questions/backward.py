"""Backward passes as programs: RMSNorm, and the fused products of an FFN."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from ..._coremltools import builder
from ...build import graph
from ..record import Answer, Check, probe
from ..session import Session, errors, random

if TYPE_CHECKING:
    from coremltools.converters.mil.mil import Program, Var

DIM, SEQ, HIDDEN = 768, 256, 2048
EPSILON = 1e-5


def rmsnorm_backward(weight: np.ndarray) -> Program:
    """dx of y = x / rms(x) * weight over the channels: dx = r (dy w - x mean(dy w x) r^2), r = 1 / rms(x)."""
    mb = builder()

    @graph(x=(1, DIM, 1, SEQ), dy=(1, DIM, 1, SEQ))
    def backward(x: Var, dy: Var) -> Var:
        square = mb.reduce_mean(x=mb.mul(x=x, y=x), axes=[1], keep_dims=True)
        r = mb.rsqrt(x=square, epsilon=np.float16(EPSILON))
        g = mb.mul(x=dy, y=weight)
        along = mb.reduce_mean(x=mb.mul(x=g, y=x), axes=[1], keep_dims=True)
        back = mb.mul(x=x, y=mb.mul(x=along, y=mb.mul(x=r, y=r)))
        return mb.mul(x=mb.sub(x=g, y=back), y=r, name="dx")

    return backward


def rmsnorm_backward_reference(x: np.ndarray, dy: np.ndarray, weight: np.ndarray) -> np.ndarray:
    x, dy, weight = (a.astype(np.float64) for a in (x, dy, weight))
    r = 1 / np.sqrt((x * x).mean(1, keepdims=True) + EPSILON)
    g = dy * weight
    dx: np.ndarray = r * (g - x * (g * x).mean(1, keepdims=True) * r * r)
    return dx


@probe(
    "rmsnorm-bwd",
    question="Is the backward pass of RMSNorm right as one program?",
    source="test_rmsnorm_bwd (seed 002)",
    answers={"M4 Max": "PASS"},
)
def rmsnorm_bwd(session: Session) -> Answer:
    x, dy = random("x", 1, DIM, 1, SEQ), random("dy", 1, DIM, 1, SEQ)
    weight = (1 + random("w", 1, DIM, 1, 1, scale=0.1)).astype(np.float16)
    ran = session.run(rmsnorm_backward(weight), {"x": x, "dy": dy})
    wanted = rmsnorm_backward_reference(x, dy, weight)
    most, mean = errors(ran.only, wanted)
    sample = [f"dx[{c},{s}]: {ran.only[0, c, 0, s]:.5f}, reference {wanted[0, c, 0, s]:.5f}"
              for c, s in ((0, 0), (1, 1), (100, 10), (DIM - 1, SEQ - 1))]  # fmt: skip
    return Answer(
        "right" if most < 0.05 else "wrong",
        f"RMSNorm backward of {DIM} x {SEQ}: {ran.ms:.3f} ms/eval, max error {most:.5f}, mean {mean:.6f}.",
        (Check("max abs error", most, 0.05), Check("mean abs error", mean, 0.01)), sample,
        {"ms": ran.ms, "max_error": most, "mean_error": mean},
    )  # fmt: skip


def ffn_backward(w1: np.ndarray, w3: np.ndarray) -> Program:
    """dx of both gates' products in one program: W1^T dh1 + W3^T dh3."""
    mb = builder()

    @graph(dh1=(1, HIDDEN, 1, SEQ), dh3=(1, HIDDEN, 1, SEQ))
    def backward(dh1: Var, dh3: Var) -> Var:
        first = mb.conv(x=dh1, weight=np.ascontiguousarray(w1.T)[:, :, None, None])
        return mb.add(x=first, y=mb.conv(x=dh3, weight=np.ascontiguousarray(w3.T)[:, :, None, None]), name="dx")

    return backward


@probe(
    "fused-bwd",
    question="Do the two backward products of an FFN give the right sum in one program?",
    source="test_fused_bwd (seed 002)",
)
def fused_bwd(session: Session) -> Answer:
    w1, w3 = (random(name, HIDDEN, DIM, scale=HIDDEN**-0.5) for name in ("w1", "w3"))
    dh1, dh3 = (random(name, 1, HIDDEN, 1, SEQ) for name in ("dh1", "dh3"))
    ran = session.run(ffn_backward(w1, w3), {"dh1": dh1, "dh3": dh3})
    wanted = sum(w.T.astype(np.float64) @ d[0, :, 0].astype(np.float64) for w, d in ((w1, dh1), (w3, dh3)))
    most, mean = errors(ran.only[0, :, 0], np.asarray(wanted))
    gflops = 4 * DIM * HIDDEN * SEQ / ran.ms / 1e6
    return Answer(
        "right" if most < 0.05 else "wrong",
        f"W1^T dh1 + W3^T dh3: compile {ran.compile_ms:.1f} ms, {ran.ms:.3f} ms/eval, {gflops:.1f} GFLOPS, "
        f"max error {most:.5f}.",
        (Check("max abs error", most, 0.05), Check("mean abs error", mean, 0.01)),
        data={"ms": ran.ms, "gflops": gflops, "max_error": most},
    )  # fmt: skip
