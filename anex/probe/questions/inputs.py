"""Programs of several inputs: sums, one query over a cache, and an FFN on a single position."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from ..._coremltools import builder
from ...build import graph
from ...errors import Error, brief
from ..record import Answer, Check, probe
from ..session import Session, errors, random

if TYPE_CHECKING:
    from coremltools.converters.mil.mil import Program, Var

DIM, HEADS, SIZE = 768, 12, 64
KEYS = 128


def heads(x: Any, length: int, channels: int = SIZE) -> Any:
    """[1, H*D, 1, S] as [1, H, S, D]."""
    mb = builder()
    return mb.transpose(x=mb.reshape(x=x, shape=(1, channels // SIZE, SIZE, length)), perm=(0, 1, 3, 2))


def attend(q: Any, k: Any, v: Any, mask: Any, length: int, channels: int = SIZE) -> Any:
    """One query over ``length`` keys; [1, H*D, 1, 1] out."""
    mb = builder()
    scores = mb.matmul(x=heads(q, 1, channels), y=heads(k, length, channels), transpose_y=True)
    scores = mb.mul(x=scores, y=np.float16(SIZE**-0.5))
    weights = mb.softmax(x=scores if mask is None else mb.add(x=scores, y=mask), axis=-1)
    mixed = mb.matmul(x=weights, y=heads(v, length, channels))
    return mb.reshape(x=mb.transpose(x=mixed, perm=(0, 1, 3, 2)), shape=(1, channels, 1, 1))


def reference(q: np.ndarray, k: np.ndarray, v: np.ndarray, mask: np.ndarray | None) -> np.ndarray:
    q, k, v = (a.astype(np.float64)[0, :, 0] for a in (q, k, v))
    scores = q.T @ k / np.sqrt(SIZE) + (0 if mask is None else mask.astype(np.float64).reshape(-1))
    weights = np.exp(scores - scores.max())
    mixed: np.ndarray = (v @ (weights / weights.sum()).T)[None, :, None]
    return mixed


@probe(
    "multi-input",
    question="Do programs of several inputs, alike and not, evaluate and give the right numbers?",
    source="test_multi_input (seed 003)",
    answers={"M4 (seed 003)": "PASS", "MDX": "status 0x1D"},
)
def multi_input(session: Session) -> Answer:
    mb = builder()
    one, cache = (1, SIZE, 1, 1), (1, SIZE, 1, KEYS)
    q, k, v = random("q", *one), random("k", *cache), random("v", *cache)
    mask = np.where(np.arange(KEYS) < KEYS // 2, 0, -1e4).astype(np.float16).reshape(1, 1, 1, KEYS)
    a, b = random("a", *cache), random("b", *cache)

    @graph(a=cache, b=cache)
    def add(a: Var, b: Var) -> Var:
        return mb.add(x=a, y=b)

    @graph(q=one, k=cache, v=cache)
    def plain(q: Var, k: Var, v: Var) -> Var:
        return attend(q, k, v, None, KEYS)

    @graph(q=one, k=cache, v=cache, mask=(1, 1, 1, KEYS))
    def masked(q: Var, k: Var, v: Var, mask: Var) -> Var:
        return attend(q, k, v, mask, KEYS)

    cases: dict[str, tuple[Program, dict[str, np.ndarray], np.ndarray]] = {
        "T1: two equal inputs, add": (add, {"a": a, "b": b}, a.astype(np.float64) + b),
        "T2: q, k, v of two sizes": (plain, {"q": q, "k": k, "v": v}, reference(q, k, v, None)),
        "T3: and a mask": (masked, {"q": q, "k": k, "v": v, "mask": mask}, reference(q, k, v, mask)),
    }
    checks, lines, refused = [], [], False
    for name, (program, given, wanted) in cases.items():
        try:
            ran = session.run(program, given)
        except Error as error:
            checks.append(Check(f"{name}, calls that fail", 1, 0))
            lines.append(f"{name}: {brief(error)}")
            refused = True
            continue
        checks.append(Check(name, errors(ran.only, wanted)[0], 0.01))
        lines.append(f"{name}: {'PASS' if checks[-1].passed else 'MISMATCH'}, {ran.ms:.4f} ms/eval")
    passed = sum(check.passed for check in checks)
    return Answer("refused" if refused else "evaluate" if passed == 3 else "mismatch",
                  f"{passed} of 3 programs of several inputs are right.", checks, lines)  # fmt: skip


def decode(length: int, weight: np.ndarray) -> Program:
    """One position's query from x, over a cache of ``length``, and the output product."""
    mb = builder()
    cache = (1, DIM, 1, length)

    @graph(x=(1, DIM, 1, 1), k=cache, v=cache, mask=(1, 1, 1, length))
    def attention(x: Var, k: Var, v: Var, mask: Var) -> Var:
        mixed = attend(mb.conv(x=x, weight=weight), k, v, mask, length, DIM)
        return mb.conv(x=mixed, weight=weight, name="y")

    return attention


@probe(
    "decode-attn",
    question="Does attention of one position over a cache give the known value, for several lengths?",
    source="test_decode_attn (seed 003)",
    answers={"M4 (seed 003)": "PASS: 0.5"},
)
def decode_attn(session: Session) -> Answer:
    identity = np.eye(DIM, dtype=np.float16)[:, :, None, None]
    checks, lines = [], []
    for length in (32, 64, 128, 256):
        valid = length // 2
        given = {
            "x": random("x", 1, DIM, 1, 1), "k": random("k", 1, DIM, 1, length),
            "v": np.where(np.arange(length) < valid, 0.5, 7.0).astype(np.float16) * np.ones((1, DIM, 1, 1), np.float16),
            "mask": np.where(np.arange(length) < valid, 0, -1e4).astype(np.float16).reshape(1, 1, 1, length),
        }  # fmt: skip
        ran = session.run(decode(length, identity), given)
        checks.append(Check(f"T={length}: all 0.5", errors(ran.only, np.full((1, DIM, 1, 1), 0.5))[0], 1e-3))
        lines.append(f"T={length}: {'PASS' if checks[-1].passed else 'FAIL'}, compile {ran.compile_ms:.1f} ms, "
                     f"{ran.ms:.4f} ms/eval, surface {DIM * 64} bytes, stride 64")  # fmt: skip
    passed = sum(check.passed for check in checks)
    return Answer(
        "right" if passed == len(checks) else "wrong", f"{passed} of {len(checks)} lengths give 0.5.", checks, lines
    )


@probe(
    "ffn-seq1",
    question="Is GPT-2's feed-forward block right on a single position?",
    source="test_ffn_seq1 (seed 003)",
    answers={"M4 (seed 003)": "PASS, with surfaces of 49,152 bytes at least"},
)
def ffn_seq1(session: Session) -> Answer:
    mb, hidden = builder(), 4 * DIM
    w1, w2 = random("w1", hidden, DIM, scale=DIM**-0.5), random("w2", DIM, hidden, scale=hidden**-0.5)

    @graph(x=(1, DIM, 1, 1))
    def ffn(x: Var) -> Var:
        h = mb.gelu(x=mb.conv(x=x, weight=w1[:, :, None, None]), mode="TANH_APPROXIMATION")
        return mb.conv(x=h, weight=w2[:, :, None, None], name="y")

    x = random("x", 1, DIM, 1, 1)
    ran = session.run(ffn, {"x": x})
    h = w1.astype(np.float64) @ x.astype(np.float64)[0, :, 0]
    gelu = 0.5 * h * (1 + np.tanh(np.sqrt(2 / np.pi) * (h + 0.044715 * h**3)))
    most, _ = errors(ran.only[0, :, 0], w2.astype(np.float64) @ gelu)
    nonzero = int(np.count_nonzero(ran.only))
    return Answer(
        "right" if most < 0.01 else "wrong",
        f"{nonzero} of {DIM} channels are not zero, max error {most:.5f}, {ran.ms:.4f} ms/eval.",
        (Check("max abs error", most, 0.01), Check("channels that are zero", DIM - nonzero, DIM // 100)),
        data={"ms": ran.ms, "nonzero": nonzero, "max_error": most},
    )  # fmt: skip
