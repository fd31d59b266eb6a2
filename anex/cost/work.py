"""What the model knows of a program: how much of which kind of work, and what goes in and out."""

from __future__ import annotations

from dataclasses import dataclass

MIB = 2**20
HEAD = 64  # the width of an attention head in every published block

# The kinds of work that cost differently. Products have FLOP and weights, the others touch bytes.
PRODUCTS = ("conv1x1", "conv", "linear", "matmul")
PASSES = ("softmax", "layer_norm", "rms_norm", "norm", "elementwise", "table", "reduce", "pool", "scores", "flat")
KINDS = (*PRODUCTS, *PASSES)

# Loads of many ops between which the compiler chooses layouts.
BLOCKS = ("encoder_block", "fused_block", "sdpa", "mlp", "whole_model", "unknown", "train_step_ane_part")

# How weights are kept: the rate at which their stored bytes stream differs.
SCHEMES = ("fp16", "w8", "w8a8", "int4lut", "lut6", "sparse")
# Ways into the engine: the in-memory model of the private framework, Espresso's e5rt with its copies, Core ML.
PATHS = ("private", "e5rt", "coreml")


@dataclass(frozen=True)
class Work:
    """Ops of one kind in a row: ``flops`` and ``bytes`` of them all, ``weight_bytes`` as stored.

    ``positions``: how many columns a product has (batch times pixels or tokens). ``channels``: in and out.
    ``bytes``: what a pass over intermediate data touches; for a product, the operands of one batch item, which tile.
    Of elementwise ops, ``table`` are those that are looked up, as gelu is, and ``flat`` those on tensors of rank 2 and
    several rows between products, whose layout the engine changes back and forth.
    """

    kind: str
    flops: float = 0.0
    weight_bytes: float = 0.0
    bytes: float = 0.0
    positions: float = 1.0
    channels: tuple[int, int] = (0, 0)
    scheme: str = "fp16"
    count: int = 1


@dataclass(frozen=True)
class Load:
    """One call of one program: its works, the bytes of its inputs and outputs, and its starts (1 when fused).

    ``kind`` is what a reader would call the whole: a workload of the published measurements, or "program".
    """

    works: tuple[Work, ...]
    in_bytes: float
    out_bytes: float
    kind: str = "program"
    dispatches: int = 1

    @property
    def flops(self) -> float:
        return sum(work.flops for work in self.works)

    @property
    def weight_bytes(self) -> float:
        return sum(work.weight_bytes for work in self.works)


def attention_works(tokens: float, width: float, batch: float = 1.0, head: float = HEAD) -> list[Work]:
    """Scores of every head: two products of runtime values, a softmax, and the passes over what lies between."""
    scores = 2 * tokens * tokens * (width / head) * batch
    return [Work("matmul", 4 * tokens * tokens * width * batch, bytes=scores, positions=tokens),
            Work("softmax", bytes=scores), Work("scores", bytes=scores)]  # fmt: skip
