"""Files of tokens, uint16 one after another, as the published pretokenised TinyStories have them."""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path

import numpy as np
from stories_config import StoriesError


class Tokens:
    """A file of tokens, mapped, and the sequence that each step takes from it.

    Which one depends on the seed and the number of the step alone, so that a resumed run sees the same.
    """

    def __init__(self, path: str | os.PathLike[str], seq_len: int, vocab_size: int, seed: int = 42) -> None:
        path = Path(path)
        size = path.stat().st_size
        if size % 2 or size < 2 * (seq_len + 1):
            raise StoriesError(
                f"{path} is {size} bytes; a file of uint16 tokens for sequences of {seq_len} has an even number of "
                f"bytes, {2 * (seq_len + 1)} at least"
            )
        self.path, self.seq_len, self.vocab_size, self.seed = path, seq_len, vocab_size, seed
        self.data = np.memmap(path, "<u2", "r")

    def __len__(self) -> int:
        return len(self.data)

    def step(self, number: int) -> tuple[np.ndarray, np.ndarray]:
        """(tokens [seq_len], targets [seq_len]), int32, of step ``number``."""
        rng = np.random.default_rng([self.seed, number])
        at = int(rng.integers(len(self.data) - self.seq_len))
        found = self.data[at : at + self.seq_len + 1].astype(np.int32)
        if found.max() >= self.vocab_size:
            raise StoriesError(
                f"{self.path}: token {found.max()} near position {at}; the model has {self.vocab_size}: was the file "
                "made with its tokenizer?"
            )
        return found[:-1], found[1:]


def save_tokens(path: str | os.PathLike[str], numbers: Iterable[int]) -> None:
    """Write a file of tokens."""
    array = np.fromiter(numbers, np.int64)
    if len(array) and not 0 <= array.min() <= array.max() < 1 << 16:
        raise StoriesError(f"tokens {array.min()} to {array.max()}; the file's uint16 ends at 65535")
    array.astype("<u2").tofile(path)
