"""What ``anex bench all`` runs in the place of train_large: steps on one sequence, whose loss must fall.

Weights are those of ANE_MODEL_PATH, tokens those of ANE_DATA_PATH; without them random weights, and bytes of text that
comes with Python, which are tokens 3 to 258 of a Llama. ``small``: the model of ``train.py --tiny``.
"""

from __future__ import annotations

import os
import pydoc_data.topics
from collections.abc import Iterator
from typing import Any

import numpy as np
import stories_llama2c
import stories_reference
from stories_config import STORIES110M, TINY, Config, StoriesError, random_weights
from stories_data import Tokens
from stories_trainer import Options, Trainer

FIRST_BYTE = 3  # its token


class Same:
    """The same sequence for every step."""

    def __init__(self, tokens: np.ndarray, targets: np.ndarray) -> None:
        self.pair = tokens, targets

    def step(self, number: int) -> tuple[np.ndarray, np.ndarray]:
        return self.pair


def beginning(small: bool) -> tuple[Config, dict[str, Any]]:
    """The sizes and the weights to begin with."""
    path = os.environ.get("ANE_MODEL_PATH")
    if path and not small:
        return stories_llama2c.load(path)
    config = TINY if small else STORIES110M
    return config, random_weights(config)


def sequence(config: Config, small: bool) -> tuple[np.ndarray, np.ndarray]:
    """(tokens, targets)"""
    path = os.environ.get("ANE_DATA_PATH")
    if path and not small:
        return Tokens(path, config.seq_len, config.vocab_size).step(0)
    text = pydoc_data.topics.topics["while"] + pydoc_data.topics.topics["class"]
    numbers = np.frombuffer(text.encode()[: config.seq_len + 1], np.uint8).astype(np.int32) + FIRST_BYTE
    if numbers.max() >= config.vocab_size:
        raise StoriesError(f"{config.vocab_size} tokens have no bytes among them; name data by ANE_DATA_PATH")
    return numbers[:-1], numbers[1:]


def training(
    steps: int, device: str | None = None, small: bool = False, offload: tuple[str, ...] = ()
) -> Iterator[float]:
    """The loss of each step."""
    config, weights = beginning(small)
    trainer = Trainer(config, weights, Options(steps=steps, accum=1), device or "cpu", offload)
    before = trainer.engine.compiles
    for _ in range(steps):
        trainer.batch(Same(*sequence(config, small)))  # type: ignore[arg-type]
        yield trainer.loss
    if trainer.engine.compiles != before:
        raise StoriesError(f"{trainer.engine.compiles - before} programs were compiled again")


def expected(small: bool = False) -> float:
    """The loss of the first step, in float64."""
    config, weights = beginning(small)
    return stories_reference.loss(config, weights, *sequence(config, small))
