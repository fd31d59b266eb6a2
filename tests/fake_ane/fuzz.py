"""Mutated MIL texts and weight files for the evaluator, in a process that a sanitizer ends where it finds fault.

``python -m fake_ane.fuzz LIBRARY ROUNDS TEXT...``, with ``tests`` on the path, prints how many were refused.
"""

from __future__ import annotations

import random
import re
import struct
import sys
from pathlib import Path

import numpy as np

from . import interpreter

PATH = "@model_path/weights/weight.bin"
WORDS = "( ) [ ] { } < > , ; = ? -> - 0 1 2 -1 64 99999999999 1e9 0x1p-3 inf nan true fp16 fp32 int32 uint8 bool string"
WORDS += " tensor state list tuple dict BLOBFILE const x y w add conv reshape axis val name values [1] [0,3] ([1,4])"


def weights(rng: random.Random) -> bytes:
    """One record of 16 halves, and now and then something else."""
    values = np.linspace(-1, 1, 16, dtype="float16").tobytes()
    data = bytearray(struct.pack("<II56x", 1, 2) + struct.pack("<IIQQQ32x", 0xDEADBEEF, 1, 32, 128, 0) + values)
    if rng.random() < 0.3:
        data[rng.randrange(len(data))] = rng.randrange(256)
    return bytes(data[: rng.randrange(len(data))] if rng.random() < 0.1 else data)


def mutated(text: str, rng: random.Random) -> bytes:
    for _ in range(rng.choice((1, 1, 1, 2, 4))):
        at, end = rng.randrange(len(text)), rng.randrange(len(text))
        kind = rng.choice((0, 1, 2, 3, 4, 4, 4, 4, 5, 6, 6, 6, 6))
        if kind == 0:
            text = text[:at] + rng.choice(WORDS.split()) + text[at:]
        elif kind == 1:
            text = text[:at] + rng.choice(WORDS.split()) + text[at + rng.randrange(6) :]
        elif kind == 2:
            text = text[:at] + text[at + rng.randrange(1, 40) :]
        elif kind == 3:
            text = text[:at] + text[end : end + rng.randrange(40)] + text[at:]
        elif kind == 4:  # one number for another
            digits = [i for i, c in enumerate(text) if c.isdigit()]
            at = rng.choice(digits)
            text = text[:at] + str(rng.choice((0, 1, 2, 3, 4, 7, 8, 16, 999))) + text[at + 1 :]
        elif kind == 6:  # one operand for another
            names = list(re.finditer(r"(?<== )\w+(?=[,)])", text))
            if names:
                name = rng.choice(names)
                text = text[: name.start()] + rng.choice(names).group() + text[name.end() :]
        else:
            text = text[:at] + chr(rng.randrange(256)) + text[at + 1 :]
        text = text or " "
    return text.encode("latin-1")


def main(library: str, rounds: str, *texts: str) -> None:
    loaded, rng, refused = interpreter.load(Path(library)), random.Random(7), 0
    sources = [Path(path).read_text() for path in texts]
    for _ in range(int(rounds)):
        data = mutated(rng.choice(sources), rng)
        try:
            program = interpreter.Program(loaded, data, {PATH: weights(rng)})
        except ValueError as error:
            refused += bool(str(error))
            continue
        for f in range(len(program.functions)):
            shapes = program.ports(False, f)
            if sum(np.prod(shape, dtype="float64") for shape, _ in shapes.values()) < 1e5:
                inputs = {name: np.ones(shape, dtype) for name, (shape, dtype) in shapes.items()}
                try:
                    program.run(inputs, f)
                except (RuntimeError, MemoryError):
                    refused += 1
    print(refused)


if __name__ == "__main__":
    main(*sys.argv[1:])
