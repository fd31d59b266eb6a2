"""Which sentences mean the same? Prints their cosine similarities: ``python examples/minilm [--device cpu]``."""

from __future__ import annotations

import argparse
import time

from encoder import Encoder

SENTENCES = (
    "A man is eating food.",
    "Someone is having a meal.",
    "The Neural Engine runs fused kernels in half precision.",
    "Matrix products on Apple's accelerator use float16.",
    "It rained all day in the mountains.",
)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--device", default="cpu", help="cpu or ane")
    parser.add_argument("sentences", nargs="*", default=SENTENCES)
    options = parser.parse_args()

    start = time.perf_counter()
    encoder = Encoder(device=options.device)
    vectors = encoder.encode(options.sentences)  # compiles what it needs
    ready = time.perf_counter()
    vectors = encoder.encode(options.sentences)
    took = (time.perf_counter() - ready) / len(options.sentences)

    similarity = vectors @ vectors.T
    width = min(60, max(map(len, options.sentences)))
    for i, (sentence, row) in enumerate(zip(options.sentences, similarity, strict=True), 1):
        print(f"{i}  {sentence[:width]:{width}}", *(f"{value:6.3f}" for value in row))
    print(f"\nall-MiniLM-L6-v2 on device={options.device!r}: load, build and compile {ready - start:.1f} s,", end=" ")
    print(f"then {took * 1e3:.2f} ms a sentence")


if __name__ == "__main__":
    main()
