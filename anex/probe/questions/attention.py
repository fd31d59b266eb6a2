"""Attention: decomposed, as one op, with which masks, as convolutions, fused, and one query over a cache."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from ..._coremltools import builder
from ...bench.record import Config
from ...bench.running import measured
from ...bench.tables.fused import comparisons
from ...build import graph
from ..record import Answer, Check, probe
from ..session import Session, errors, random

if TYPE_CHECKING:
    from coremltools.converters.mil.mil import Program, Var

HEADS, SEQ, SIZE = 12, 64, 64
SHAPE = (1, HEADS, SEQ, SIZE)
AS_ONE = "sdpa_decompose"  # the pass that would leave nothing of the op that is asked about
HIDDEN_BY_MASK = -1e4  # far below any score, and finite in fp16


def causal(length: int = SEQ) -> np.ndarray:
    mask: np.ndarray = np.triu(np.full((length, length), HIDDEN_BY_MASK, np.float16), 1)
    return mask


def reference(q: np.ndarray, k: np.ndarray, v: np.ndarray, mask: np.ndarray | None) -> np.ndarray:
    """In float64."""
    q, k, v = (a.astype(np.float64) for a in (q, k, v))
    scores = q @ np.swapaxes(k, -1, -2) / np.sqrt(q.shape[-1])
    scores = scores if mask is None else scores + mask.astype(np.float64)
    weights = np.exp(scores - scores.max(-1, keepdims=True))
    mixed: np.ndarray = weights / weights.sum(-1, keepdims=True) @ v
    return mixed


def operands() -> dict[str, np.ndarray]:
    return {name: random(name, *SHAPE) for name in ("q", "k", "v")}


def decomposed(mask: np.ndarray) -> Program:
    mb = builder()

    @graph(q=SHAPE, k=SHAPE, v=SHAPE)
    def attention(q: Var, k: Var, v: Var) -> Var:
        scores = mb.matmul(x=mb.mul(x=q, y=np.float16(SIZE**-0.5)), y=k, transpose_y=True)
        return mb.matmul(x=mb.softmax(x=mb.add(x=scores, y=mask), axis=-1), y=v, name="y")

    return attention


def one_op(mask: np.ndarray | None) -> Program:
    mb = builder()

    @graph(q=SHAPE, k=SHAPE, v=SHAPE)
    def attention(q: Var, k: Var, v: Var) -> Var:
        given = {} if mask is None else {"attn_mask": mask}
        return mb.scaled_dot_product_attention(query=q, key=k, value=v, **given, name="y")

    return attention


@probe(
    "causal-attn",
    question="Do decomposed attention and the one op agree under a causal mask?",
    source="test_ane_causal_attn (seed 002)",
    answers={"M4, M5": "the one op ignores the mask: decompose it"},
)
def causal_attn(session: Session) -> Answer:
    given, mask = operands(), causal()
    wanted = reference(**given, mask=mask)
    apart, one = session.run(decomposed(mask), given), session.run(one_op(mask), given, without=[AS_ONE])
    flops = 4 * HEADS * SEQ * SEQ * SIZE
    lines = [
        f"{name}: {ran.ms:.3f} ms/eval, {flops / ran.ms / 1e6:.1f} GFLOPS, max diff {errors(ran.only, wanted)[0]:.5f}"
        for name, ran in (("decomposed", apart), ("SDPA", one))
    ]
    most, differ = errors(apart.only, wanted)[0], errors(one.only, apart.only.astype(np.float64))[0]
    agree = differ < 0.02
    return Answer(
        "agree" if agree else "differ",
        f"Decomposed and one op {'agree' if agree else 'DIFFER'}: max {differ:.5f}.",
        (Check("decomposed, max error", most, 0.02), Check("one op against decomposed", differ, 0.02)), lines,
        {"max_error": most, "difference": differ}, expected=not agree and most < 0.02,
    )  # fmt: skip


def mask_styles() -> dict[str, np.ndarray | None]:
    mask = causal()
    return {
        "none": None, "[S, S]": mask, "[1, 1, S, S]": mask[None, None],
        "[1, H, S, S]": np.broadcast_to(mask, (1, HEADS, SEQ, SEQ)).copy(),
        "[S, S] bool": mask == 0,
    }  # fmt: skip


@probe(
    "sdpa-mask",
    question="Which forms of mask does scaled_dot_product_attention heed?",
    source="test_ane_sdpa5 (seed 002)",
    answers={"M4, M5 (seed 003)": "causal masking is ignored by the hardware"},
)
def sdpa_mask(session: Session) -> Answer:
    given = operands()
    open_, masked = reference(**given, mask=None), reference(**given, mask=causal())
    found, lines, checks = {}, [], []
    for style, mask in mask_styles().items():
        ran = session.run(one_op(mask), given, timed=False, without=[AS_ONE])
        to_open, to_masked = errors(ran.only, open_)[0], errors(ran.only, masked)[0]
        found[style] = "causal" if to_masked < 0.02 else "non-causal" if to_open < 0.02 else "none"
        lines.append(f"mask {style}: {found[style]} (max diff to causal {to_masked:.4f}, to unmasked {to_open:.4f})")
        checks.append(Check(f"mask {style}", to_open if mask is None else to_masked, 0.02))
    heeded = [style for style, verdict in found.items() if verdict == "causal"]
    key = "heeded" if len(heeded) == len(found) - 1 else "ignored" if not heeded else "some"
    return Answer(
        key,
        f"Masks are {key}: {', '.join(heeded) or 'no form'} of {len(found) - 1}.",
        checks,
        lines,
        found,
        expected=key == "ignored",
    )


def by_convolution(k: np.ndarray, v: np.ndarray) -> Program:
    """K and V of one sequence as the weights of grouped convolutions, [1, H*D, 1, S] in and out."""
    mb = builder()
    keys = k.reshape(HEADS * SEQ, SIZE, 1, 1)
    values = np.ascontiguousarray(np.swapaxes(v[0], -1, -2)).reshape(HEADS * SIZE, SEQ, 1, 1)

    @graph(q=(1, HEADS * SIZE, 1, SEQ))
    def attention(q: Var) -> Var:
        scores = mb.conv(x=mb.mul(x=q, y=np.float16(SIZE**-0.5)), weight=keys, groups=HEADS)
        apart = mb.add(x=mb.reshape(x=scores, shape=(HEADS, SEQ, 1, SEQ)), y=causal().T[None, :, None])
        weights = mb.reshape(x=mb.softmax(x=apart, axis=1), shape=(1, HEADS * SEQ, 1, SEQ))
        return mb.conv(x=weights, weight=values, groups=HEADS, name="y")

    return attention


@probe(
    "conv-attn",
    question="Is attention right as grouped convolutions with K and V as weights?",
    source="test_conv_attn3 (seed 002)",
)
def conv_attn(session: Session) -> Answer:
    given = operands()
    flat = np.ascontiguousarray(np.swapaxes(given["q"][0], -1, -2)).reshape(1, HEADS * SIZE, 1, SEQ)
    ran = session.run(by_convolution(given["k"], given["v"]), {"q": flat})
    wanted = np.swapaxes(reference(**given, mask=causal())[0], -1, -2).reshape(1, HEADS * SIZE, 1, SEQ)
    most, mean = errors(ran.only, wanted)
    return Answer(
        "right" if most < 0.02 else "wrong",
        f"Grouped convolutions, {HEADS} heads of {SIZE}, {SEQ} positions: compile {ran.compile_ms:.1f} ms, "
        f"{ran.ms:.3f} ms/eval, max error {most:.5f}.",
        (Check("max abs error", most, 0.02),), data={"ms": ran.ms, "max_error": most, "mean_error": mean},
    )  # fmt: skip


def compared(session: Session, label: str) -> Answer:
    """One program against several of a transformer layer's parts, as ``anex bench fused`` has them."""
    fused, separate, _ = comparisons(256)[label]

    def differ(outputs: Mapping[str, Any]) -> Mapping[str, float]:
        pairs = zip(outputs["fused"], outputs["separate"], strict=True)
        return {"max_diff": max(errors(a, b.astype(np.float64))[0] for a, b in pairs)}

    config = Config(label, {}, {"fused": fused, "separate": separate}, check=differ)
    row = measured(config, session.device, session.effort, "M4")
    if row.failed:
        return Answer("failed", f"{label}: {'; '.join(row.failed.values())}.", (Check("failures", 1, 0),))
    speedup = row.ms("separate") / row.ms("fused")
    return Answer(
        "agree" if row.found["max_diff"] < 0.02 else "differ",
        f"{label}: fused {row.ms('fused'):.3f} ms, separate {row.ms('separate'):.3f} ms, speed-up {speedup:.2f}x.",
        (Check("fused against separate, max diff", row.found["max_diff"], 0.02),),
        data={"fused_ms": row.ms("fused"), "separate_ms": row.ms("separate"), "speedup": speedup},
    )  # fmt: skip


for _name, _label, _source in (
    ("fused-qkv", "QKV (3 to 1)", "test_fused_qkv (seed 002)"),
    ("fused-attn", "attention (4 to 1)", "test_full_fused (seed 002)"),
):

    def _ask(session: Session, label: str = _label) -> Answer:
        return compared(session, label)

    _register: Callable[[Callable[[Session], Answer]], Any] = probe(
        _name, question=f"Do one program and several agree, and what does it save: {_label}?", source=_source
    )
    _register(_ask)
