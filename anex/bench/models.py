"""``gen_int8_bench``: the two models of seed 000 as packages, for Core ML and its profilers."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from .. import store
from .programs import conv_chain, int8_chain

DEPTH, CHANNELS, SIZE = 128, 512, 64
FILES = {"fp16": "int8_compute_fp16_512.mlpackage", "w8a8": "int8_compute_w8a8_512.mlpackage"}
MAKERS = {"fp16": conv_chain, "w8a8": int8_chain}


def write(folder: Path) -> Iterator[Path]:
    """The packages, each as it is written: 128 convolutions of 512 channels at 64x64, float16 inputs and outputs.

    Both say opset iOS 18, for a fair comparison.
    """
    folder.mkdir(parents=True, exist_ok=True)
    for name, make in MAKERS.items():
        path = folder / FILES[name]
        store.save(make(DEPTH, CHANNELS, SIZE, SIZE), path)
        yield path


def explanation(channels: int = CHANNELS, height: int = SIZE, width: int = SIZE) -> str:
    """Why W8A8 is faster, in bytes a layer (seed 000): what follows from the sizes, not what was measured.

    >>> print(explanation().splitlines()[1])
      FP16: L2 --[4.00 MiB]--> MAC --[4.00 MiB]--> L2, weights 0.50 MiB
    """
    act, weights = channels * height * width / 2**20, channels * channels / 2**20
    return "\n".join([
        f"One layer of {channels} channels at {height}x{width}:",
        f"  FP16: L2 --[{2 * act:.2f} MiB]--> MAC --[{2 * act:.2f} MiB]--> L2, weights {2 * weights:.2f} MiB",
        f"  INT8: L2 --[{act:.2f} MiB]--> MAC --[{act:.2f} MiB]--> L2, weights {weights:.2f} MiB",
        "quantize and dequantize between the layers tell the compiler to keep activations as int8 in L2: half the",
        "traffic of the on-chip memory, which is what bounds the float16 chain. Weights are stored as int8 and widened",
        "when they are compiled. A relu is fused into the convolution's output stage and costs nothing.",
        "Without the pairs activations stay float16: int8 weights alone bring memory, not speed (see weight-only).",
    ])  # fmt: skip
