"""GPT-2 on anex: prefill by bucket on the device of choice, then token by token on the CPU with a cache of keys
and values, as the published engine divides the work."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from gpt2_config import CheckpointError, read_config
from gpt2_graphs import Graphs
from gpt2_sampling import Sampler
from gpt2_tokenizer import Tokenizer
from gpt2_weights import Weights

import anex

BUCKETS = (32, 64, 128, 256, 512, 1024)
CHUNK = 512  # most positions that the CPU takes at once: more are no faster, and take more memory
HALVES = ("attention", "ffn")


class Window(NamedTuple):
    """Positions ``begin`` to ``end`` that go through the prefill at once, in the program of a bucket."""

    begin: int
    end: int
    bucket: int


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
        # what one token is given and gives, and views of it that last, as they cost more than filling them
        self.given = {name: anex.zeros(spec.shape, spec.dtype) for name, spec in self.decoder.inputs.items()}
        self.views = {name: np.asarray(tensor) for name, tensor in self.given.items()}
        self.views["end"][:] = 1, self.config.n_head, 0, self.config.head_size
        self.last = anex.zeros((1, self.config.n_embd), "float32")  # of a prompt, for the head
        self.logits = anex.zeros((1, self.config.vocab_size), "float32")
        self.length = 0  # positions in the cache
        self.tokenizer: Tokenizer | None = None

    @classmethod
    def load(
        cls, folder: Path, device: str = "cpu", bits: int = 16, layers: int | None = None, cache: str = "float32",
        done: Callable[[], object] = lambda: None,
    ) -> Engine:  # fmt: skip
        """With the weights and the tokenizer of a converted folder, or of Hugging Face's. ``done`` is called after each
        tensor."""
        config, tokenizer = read_config(folder), Tokenizer.from_folder(folder)
        if len(tokenizer) > config.vocab_size:
            raise CheckpointError(
                f"{folder}: the tokenizer has {len(tokenizer)} tokens, the model {config.vocab_size}; "
                "they are not of the same model"
            )
        weights = Weights.load(folder, bits, done)
        engine = cls(weights, device, layers, cache)
        engine.tokenizer = tokenizer
        return engine

    def _compile(self, graph: object, device: str) -> anex.Program:
        return anex.compile(graph, device=device)

    # ---- prefill ------------------------------------------------------------------------------

    def windows(self, length: int) -> list[Window]:
        """How a prompt of ``length`` tokens goes through the prefill."""
        positions = self.config.n_positions
        if not 0 < length <= positions:
            raise ValueError(f"a prompt has 1 to {positions} tokens, this one {length}")
        made, end = [], 0
        while end < length:
            rest = length - end
            bucket = next(each for each in self.buckets if each >= (min(rest, CHUNK) if self.graphs.native else rest))
            begin = min(end, positions - bucket)  # with some that went through already, if there is no room behind
            end = min(begin + bucket, length)
            made.append(Window(begin, end, bucket))
        return made

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
        for window in self.windows(len(ids)):
            given = ids[window.begin : window.end]
            x = self._on_cpu(given, window) if self.graphs.native else self._elsewhere(given, window)
        self.length = len(ids)
        mask = self.views["mask"]
        mask[..., : self.length], mask[..., self.length :] = True, False
        np.asarray(self.last)[0] = x[0, :, 0, self.length - 1 - window.begin]
        return np.asarray(self.head(self.last, out=self.logits))[0]

    def _on_cpu(self, ids: Sequence[int], window: Window) -> np.ndarray:
        """y [1, C, 1, S]; keys and values are in the cache then. Positions behind the last token are overwritten
        before anybody sees them."""
        places = np.arange(window.begin, window.begin + window.bucket, dtype=np.int32)
        seen = np.arange(self.config.n_positions) <= places[:, None]
        begin, end = self.views["begin"].copy(), self.views["end"].copy()
        begin[2], end[2] = window.begin, window.begin + window.bucket
        x: Any = np.pad(np.asarray(ids, np.int32), (0, window.bucket - len(ids)))
        for i, program in enumerate(self.prepare(window.bucket)):
            first = {} if i else {"places": places}
            x = program(x=x, begin=begin, end=end, mask=seen[None, None], **first, state=self.state)
        return np.asarray(x)

    def _elsewhere(self, ids: Sequence[int], window: Window) -> np.ndarray:
        """The same from embeddings, as a look-up in a table is no work for the Neural Engine; keys and values come
        back with y."""
        programs = self.prepare(window.bucket)
        rows = np.zeros((window.bucket, self.config.n_embd), np.float32)
        np.add(self._rows("wte", ids), self._rows("wpe", slice(len(ids))), out=rows[: len(ids)])
        x: Any = np.ascontiguousarray(rows.T, programs[0].inputs["x"].dtype)[None, :, None, :]
        for program in programs:
            outputs = program(x)
            x, *cache = outputs if isinstance(outputs, tuple) else (outputs,)
            for name, made in zip(list(program.outputs)[1:], cache, strict=True):
                np.asarray(self.state[name])[:, :, : len(ids)] = np.asarray(made)[:, :, : len(ids)]
        return np.asarray(x)

    def _rows(self, name: str, which: Sequence[int] | slice) -> np.ndarray:
        return self.weights.vector(name)[which].astype(np.float32)

    # ---- one token ----------------------------------------------------------------------------

    def decode(self, token: int) -> np.ndarray:
        """The logits [V] after one more token. A view, until the next call."""
        if self.length >= self.config.n_positions:
            raise ValueError(f"the model has {self.config.n_positions} positions, and all are taken")
        at, views = self.length, self.views
        views["x"][0], views["places"][0], views["mask"][..., at] = token, at, True
        views["begin"][2], views["end"][2] = at, at + 1
        self.decoder(*self.given.values(), state=self.state, out=self.logits)
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
