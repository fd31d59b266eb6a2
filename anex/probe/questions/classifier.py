"""The classifier of Stories110M on the engine: final norm, 32,000 rows, softmax over them, and back."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np

from ..._coremltools import builder
from ...bench.tables import lm_head
from ...build import graph
from ...errors import CompileError, brief
from ..record import Answer, Check, probe
from ..session import Session, errors, random

if TYPE_CHECKING:
    from coremltools.converters.mil.mil import Program, Var

DIM, VOCAB, SEQ = 768, 32000, 256
SMALL_VOCAB, SMALL_SEQ, SMALL_HEAD = 4000, 32, 4096
EPSILON = 1e-5


def norm(weight: np.ndarray, seq: int) -> Program:
    mb = builder()

    @graph(x=(1, DIM, 1, seq))
    def rmsnorm(x: Var) -> Var:
        square = mb.reduce_mean(x=mb.mul(x=x, y=x), axes=[1], keep_dims=True)
        return mb.mul(x=mb.mul(x=x, y=mb.rsqrt(x=square, epsilon=np.float16(EPSILON))), y=weight)

    return rmsnorm


def product(weight: np.ndarray, seq: int) -> Program:
    mb = builder()

    @graph(x=(1, weight.shape[1], 1, seq))
    def rows(x: Var) -> Var:
        return mb.conv(x=x, weight=weight[:, :, None, None])

    return rows


def softmax(vocab: int, seq: int) -> Program:
    mb = builder()

    @graph(x=(1, vocab, 1, seq))
    def over_vocabulary(x: Var) -> Var:
        return mb.softmax(x=x, axis=1)

    return over_vocabulary


def by_norm(x: np.ndarray, weight: np.ndarray) -> np.ndarray:
    wide = x.astype(np.float32)
    y: np.ndarray = wide / np.sqrt((wide * wide).mean(1, keepdims=True) + EPSILON) * weight.astype(np.float32)
    return y


def by_softmax(x: np.ndarray) -> np.ndarray:
    e = np.exp(x.astype(np.float32) - x.max(1, keepdims=True).astype(np.float32))
    y: np.ndarray = e / e.sum(1, keepdims=True)
    return y


def by_product(x: np.ndarray, weight: np.ndarray) -> np.ndarray:
    y: np.ndarray = (weight.astype(np.float32) @ x[0, :, 0].astype(np.float32))[None, :, None]
    return y


@probe(
    "classifier",
    question="Are the four parts of a 32,000-word classifier right on the engine?",
    source="test_classifier (seed 002)",
    answers={"M4 Max": "4 tests passed; the backward product is 3x slower than the CPU's"},
)
def classifier(session: Session) -> Answer:
    vocab, seq = (SMALL_VOCAB, SMALL_SEQ) if session.small else (VOCAB, SEQ)
    weight = random("embedding", vocab, DIM, scale=DIM**-0.5)
    gamma = (1 + random("gamma", 1, DIM, 1, 1, scale=0.1)).astype(np.float16)
    x, logits, d = (random(name, 1, n, 1, seq) for name, n in (("x", DIM), ("logits", vocab), ("d", vocab)))
    d = (d * np.float16(1e-2)).astype(np.float16)
    back = np.ascontiguousarray(weight.T)
    parts: dict[str, tuple[Program, np.ndarray, Callable[[], np.ndarray], float]] = {
        "final RMSNorm": (norm(gamma, seq), x, lambda: by_norm(x, gamma), 0.02),
        f"forward, {vocab} channels": (product(weight, seq), x, lambda: by_product(x, weight), 0.02),
        f"softmax over {vocab}": (softmax(vocab, seq), logits, lambda: by_softmax(logits), 1e-4),
        "backward": (product(back, seq), d, lambda: by_product(d, back), 0.02),
    }
    checks, lines = [], []
    for name, (program, given, by_numpy, limit) in parts.items():
        ran = session.run(program, {"x": given})
        start = time.perf_counter()
        wanted = by_numpy()
        numpy_ms = 1e3 * (time.perf_counter() - start)
        most, mean = errors(ran.only, wanted)
        checks.append(Check(f"{name}, max error", most, limit))
        took = f"compile OK, numpy {numpy_ms:.2f} ms, {session.device} {ran.ms:.3f} ms"
        verdict = "PASS" if checks[-1].passed else "FAIL"
        lines.append(f"{name}: {took}, max error {most:.6f}, mean {mean:.7f} {verdict}")
    passed = sum(check.passed for check in checks)
    return Answer(
        "right" if passed == 4 else "wrong", f"{passed} of 4 parts of the classifier are right.", checks, lines
    )


@probe(
    "lm-head",
    question="Is GPT-2's head of 50,257 rows right and fast as a 1x1 convolution?",
    source="test_lm_head_ane (seed 003)",
)
def head(session: Session) -> Answer:
    rows = SMALL_HEAD if session.small else lm_head.ROWS
    weight, x = lm_head.head(rows), lm_head.given().astype(np.float16)
    try:
        ran = session.run(lm_head.product("float16", "conv", rows), {"x": x.reshape(1, -1, 1, 1)})
    except CompileError as error:
        return Answer("refused", f"A convolution of {rows} rows does not compile: {brief(error)}.",
                      (Check("compilations that fail", 1, 0),))  # fmt: skip
    wide = weight.astype(np.float32)
    start = time.perf_counter()
    wanted = wide @ x[0].astype(np.float32)
    blas_ms = 1e3 * (time.perf_counter() - start)
    most, _ = errors(ran.only.reshape(-1), wanted)
    relative = most / float(np.abs(wanted).max())
    return Answer(
        "right" if relative < 0.01 else "wrong",
        f"BLAS {blas_ms:.2f} ms, compile {ran.compile_ms:.0f} ms, error {100 * relative:.3f} %, "
        f"{session.device} {ran.ms:.3f} ms, {blas_ms / ran.ms:.2f}x.",
        (Check("error, of the largest logit", relative, 0.01),),
        data={"blas_ms": blas_ms, "ms": ran.ms, "error": relative},
    )  # fmt: skip
