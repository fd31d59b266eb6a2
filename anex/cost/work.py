"""What the model knows of a program: how much of which kind of work, and what goes in and out."""

from __future__ import annotations

from dataclasses import dataclass

MIB = 2**20

# The kinds of work that cost differently. Products have FLOP and weights, the others touch bytes.
PRODUCTS = ("conv1x1", "conv", "linear", "matmul")
PASSES = ("softmax", "layer_norm", "rms_norm", "norm", "elementwise", "table", "reduce", "pool", "scores")
KINDS = (*PRODUCTS, *PASSES)

# How weights are kept: the rate at which their stored bytes stream differs.
SCHEMES = ("fp16", "w8", "w8a8", "int4lut", "lut6", "sparse")
# Ways into the engine: the in-memory model of the private framework, Espresso's e5rt with its copies, Core ML.
PATHS = ("private", "e5rt", "coreml")


@dataclass(frozen=True)
class Work:
    """Ops of one kind in a row: ``flops`` and ``bytes`` of them all, ``weight_bytes`` as stored.

    ``positions``: how many columns a product has (batch times pixels or tokens). ``channels``: in and out.
    ``bytes``: what a pass over intermediate data touches; for a product, the operands of one batch item, which tile.
    Of elementwise ops, ``table`` are those that are looked up, as gelu is.
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
