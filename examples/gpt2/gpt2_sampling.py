"""Which token comes next: greedy, or drawn at a temperature from the most likely ones."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np


@dataclass
class Sampler:
    """``temperature`` 0 is greedy. ``top_k`` 0 and ``top_p`` 1 leave all tokens in; ``repetition_penalty`` above 1
    makes tokens that were there already less likely, as in CTRL (Keskar et al. 2019): positive logits are divided by
    it, negative ones multiplied. ``seed`` None: another text each time.
    """

    temperature: float = 0.8
    top_k: int = 0
    top_p: float = 1.0
    repetition_penalty: float = 1.0
    seed: int | None = None
    rng: np.random.Generator = field(init=False, repr=False)

    def __post_init__(self) -> None:
        if not 0 <= self.temperature < math.inf:
            raise ValueError(f"temperature is {self.temperature}, and begins at 0 (greedy)")
        if self.top_k < 0:
            raise ValueError(f"top-k is {self.top_k}, and begins at 0 (all tokens)")
        if not 0 < self.top_p <= 1:
            raise ValueError(f"top-p is {self.top_p}, and lies above 0, up to 1 (all tokens)")
        if not 0 < self.repetition_penalty < math.inf:
            raise ValueError(f"the repetition penalty is {self.repetition_penalty}, and lies above 0; 1 is none")
        if self.seed is not None and self.seed < 0:
            raise ValueError(f"the seed is {self.seed}, and begins at 0")
        self.rng = np.random.default_rng(self.seed)

    def choose(self, logits: np.ndarray, before: Sequence[int]) -> int:
        """The next token by its ``logits`` [V] float32, after the tokens ``before``."""
        if self.repetition_penalty != 1 and len(before):
            seen = np.unique(np.asarray(before))
            logits = logits.copy()
            logits[seen] = np.where(
                logits[seen] > 0, logits[seen] / self.repetition_penalty, logits[seen] * self.repetition_penalty
            )
        if self.temperature == 0:
            return int(np.argmax(logits))
        tokens, weights = self.candidates(logits)
        return int(self.rng.choice(tokens, p=weights))

    def candidates(self, logits: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """The tokens that may come, likeliest first, and their probabilities (float64, sum 1)."""
        if 0 < self.top_k < len(logits):
            tokens = np.argpartition(logits, -self.top_k)[-self.top_k :]
            tokens = tokens[np.argsort(-logits[tokens], kind="stable")]
        else:
            tokens = np.argsort(-logits, kind="stable")
        scores = logits[tokens].astype(np.float64) / self.temperature
        weights = np.exp(scores - scores[0])
        weights /= weights.sum()
        if self.top_p < 1:  # the fewest whose sum reaches top_p
            kept = int(np.searchsorted(np.cumsum(weights), self.top_p)) + 1
            tokens, weights = tokens[:kept], weights[:kept]
        return tokens, weights / weights.sum()
