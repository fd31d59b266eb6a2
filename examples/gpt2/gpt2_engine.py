"""GPT-2 on anex: prefill by bucket on the device of choice, then token by token on the CPU with a cache of keys
and values, as the published engine divides the work."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from gpt2_config import CheckpointError
from gpt2_graphs import Graphs
from gpt2_sampling import Sampler
from gpt2_tokenizer import Tokenizer
from gpt2_weights import Weights

import anex

BUCKETS = (32, 64, 128, 256, 512, 1024)
HALVES = ("attention", "ffn")


@dataclass
class Step:
    """One token of a text in the making."""

    token: int
    position: int  # of the token, from 0
    seconds: float  # that it took, sampling included; of the first: the prefill


class Engine:
    """A model ready to continue texts: ``Engine.load(folder).generate(ids, 20, Sampler())``.

    ``device`` is where prefill runs. ``layers`` is how many layers one program of it holds; 0 stands for half a
    layer, attention or feed-forward, as the published engine has them. None: all of them, in one program.
    ``cache`` is the dtype of keys and values: float16 halves their memory, and moves logits by some thousandths.
    """

    def __init__(
        self, weights: Weights, device: str = "cpu", layers: int | None = None, cache: str = "float32"
    ) -> None:
        self.weights, self.config = weights, weights.config
        if layers is not None and layers < 0:
            raise ValueError(f"{layers} layers in a program; 0 stands for half a layer")
        self.device = device
        self.layers = self.config.n_layer if layers is None else layers
        self.graphs = Graphs(self.weights, device, cache)
        self.buckets = sorted({min(bucket, self.config.n_positions) for bucket in BUCKETS})
        if self.config.n_positions not in self.buckets:
            self.buckets.append(self.config.n_positions)
        self.compiled: dict[int, list[anex.Program]] = {}
        self.decoder = self._compile(self.graphs.decode(), "cpu")
        self.head = self._compile(self.graphs.head(), "cpu")
        self.state = self.decoder.make_state()
        positions = self.config.n_positions
        self.mask = anex.full((1, 1, 1, positions), -np.inf, cache)
        self.begin, self.end = (anex.zeros((4,), "int32") for _ in range(2))
        self.x = anex.zeros((1, self.config.n_embd), "float32")
        self.logits = anex.zeros((1, self.config.vocab_size), "float32")
        np.asarray(self.end)[:] = 1, self.config.n_head, 1, self.config.head_size
        self.length = 0  # positions in the cache
        self.tokenizer: Tokenizer | None = None

    @classmethod
    def load(
        cls, folder: Path, device: str = "cpu", bits: int = 16, layers: int | None = None, cache: str = "float32"
    ) -> Engine:
        """With the weights and the tokenizer of a converted folder, or of Hugging Face's."""
        weights, tokenizer = Weights.load(folder, bits), Tokenizer.from_folder(folder)
        if len(tokenizer) > weights.config.vocab_size:
            raise CheckpointError(
                f"{folder}: the tokenizer has {len(tokenizer)} tokens, the model {weights.config.vocab_size}; "
                "they are not of the same model"
            )
        engine = cls(weights, device, layers, cache)
        engine.tokenizer = tokenizer
        return engine

    def _compile(self, graph: object, device: str) -> anex.Program:
        return anex.compile(graph, device=device)

    # ---- prefill ------------------------------------------------------------------------------

    def bucket(self, length: int) -> int:
        """The number of positions that a prompt of ``length`` tokens is padded to."""
        if not 0 < length <= self.config.n_positions:
            raise ValueError(f"a prompt has 1 to {self.config.n_positions} tokens, this one {length}")
        return next(bucket for bucket in self.buckets if bucket >= length)

    def parts(self) -> list[list[tuple[int, str]]]:
        """What each program of the prefill holds: (layer, half) in order."""
        whole = [(layer, half) for layer in range(self.config.n_layer) for half in HALVES]
        step = 2 * self.layers or 1
        return [whole[at : at + step] for at in range(0, len(whole), step)]

    def prepare(self, bucket: int, done: Callable[[], object] = lambda: None) -> list[anex.Program]:
        """The bucket's programs, compiled at first use; ``done`` is called after each."""
        if bucket not in self.compiled:
            programs = []
            for part in self.parts():
                programs.append(self._compile(self.graphs.prefill(bucket, part), self.device))
                done()
            self.compiled[bucket] = programs
        return self.compiled[bucket]

    def prefill(self, ids: Sequence[int]) -> np.ndarray:
        """Start anew with ``ids``: fills the cache, gives the logits [V] after them. A view, until the next call."""
        length = len(ids)
        programs = self.prepare(self.bucket(length))
        x: Any = self.start(ids, programs[0].inputs["x"])
        for program in programs:
            if self.graphs.native:
                x = program(x, state=self.state)
                continue
            outputs = program(x)
            x, *cache = outputs if isinstance(outputs, tuple) else (outputs,)
            for name, made in zip(list(program.outputs)[1:], cache, strict=True):
                np.asarray(self.state[name])[:, :, :length] = np.asarray(made)[:, :, :length]
        self.length = length
        mask = np.asarray(self.mask)
        mask[..., :length], mask[..., length:] = 0, -np.inf
        np.asarray(self.x)[0] = np.asarray(x)[0, :, 0, length - 1]
        return np.asarray(self.head(self.x, out=self.logits))[0]

    def start(self, ids: Sequence[int], spec: anex.Spec) -> np.ndarray:
        """What the first program of a prefill takes: numbers of tokens, [S], or their embeddings and those of their
        places, [1, C, 1, S]. Zero after the last token. A look-up in a table is no work for the Neural Engine."""
        if self.graphs.native:
            return np.pad(np.asarray(ids, np.int32), (0, spec.shape[0] - len(ids)))
        x = np.zeros((spec.shape[3], self.config.n_embd), np.float32)
        np.add(self._rows("wte", ids), self._rows("wpe", slice(len(ids))), out=x[: len(ids)])
        return np.ascontiguousarray(x.T, spec.dtype)[None, :, None, :]

    def _rows(self, name: str, which: Sequence[int] | slice) -> np.ndarray:
        return self.weights.vector(name)[which].astype(np.float32)

    # ---- one token ----------------------------------------------------------------------------

    def decode(self, token: int) -> np.ndarray:
        """The logits [V] after one more token. A view, until the next call."""
        if self.length >= self.config.n_positions:
            raise ValueError(f"the model has {self.config.n_positions} positions, and all are taken")
        at = self.length
        np.add(self._rows("wte", [token])[0], self._rows("wpe", [at])[0], out=np.asarray(self.x)[0])
        np.asarray(self.mask)[..., at] = 0
        np.asarray(self.begin)[2], np.asarray(self.end)[2] = at, at + 1
        self.decoder(self.x, self.begin, self.end, self.mask, state=self.state, out=self.logits)
        self.length = at + 1
        return np.asarray(self.logits)[0]

    # ---- texts --------------------------------------------------------------------------------

    def generate(
        self, ids: Sequence[int], tokens: int, sampler: Sampler, stop: Sequence[int] | None = None
    ) -> Iterator[Step]:
        """Up to ``tokens`` more after ``ids``; ends after one of ``stop`` (else the model's end of text), which is not
        given, or when the positions are full."""
        stop = [self.config.eos_token_id] if stop is None else stop
        text = list(ids)
        start = time.perf_counter()
        for i in range(min(tokens, self.config.n_positions + 1 - len(text))):
            logits = self.decode(text[-1]) if i else self.prefill(text)
            token = sampler.choose(logits, text)
            if token in stop:
                return
            now = time.perf_counter()
            yield Step(token, len(text), now - start)
            text.append(token)
            start = time.perf_counter()
