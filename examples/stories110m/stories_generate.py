"""One token after another: a program of a single position, keys and values as states."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from stories_config import Config, StoriesError
from stories_llama2c import angles
from stories_model import HIDDEN, Model

import anex
from anex import mb


class Generator:
    """Of a model on the CPU, in float32. ``next(token)`` is the logits [V] after it; ``length`` positions are taken."""

    def __init__(self, config: Config, weights: Mapping[str, np.ndarray]) -> None:
        self.config, self.weights, self.length = config, weights, 0
        self.program = anex.compile(program(config, weights))
        self.state = self.program.make_state()
        turn = angles(config)
        self.cos, self.sin = (made(turn).astype(np.float32) for made in (np.cos, np.sin))
        self.mask = np.full((1, config.seq_len), HIDDEN, np.float32)

    def next(self, token: int) -> np.ndarray:
        at = self.length
        if at >= self.config.seq_len:
            raise StoriesError(f"the model has {self.config.seq_len} positions, and all are taken")
        self.mask[0, at] = 0
        place = np.int32([0, at, 0])
        x = np.ascontiguousarray(self.weights["embedding"][token][None])
        logits = self.program(
            x=x, cos=self.cos[at : at + 1], sin=self.sin[at : at + 1], mask=self.mask, begin=place,
            end=np.int32([self.config.n_kv_heads, at + 1, self.config.head_size]), state=self.state,
        )  # fmt: skip
        self.length += 1
        return np.array(logits)[0]

    def generate(self, prompt: Sequence[int], tokens: int, choose: Callable[[np.ndarray], int]) -> Iterator[int]:
        """Up to ``tokens`` that follow ``prompt``, as far as there are positions."""
        if not prompt:
            raise StoriesError("a text begins with a token: give <s>")
        for token in prompt[:-1]:
            self.next(token)
        token = prompt[-1]
        for _ in range(min(tokens, self.config.seq_len - self.length)):
            token = choose(self.next(token))
            yield token


def program(config: Config, weights: Mapping[str, np.ndarray]) -> Any:
    """x [1, C] of a token and its position's angles and mask to logits [1, V]; what was before is in states."""
    import coremltools
    from coremltools.converters.mil.mil import Function, Program, types

    model = OneToken(config)
    inputs: dict[str, tuple[tuple[int, ...], Any]] = {
        "x": ((1, config.dim), types.fp32), "mask": ((1, config.seq_len), types.fp32),
        "cos": ((1, config.head_size // 2), types.fp32), "sin": ((1, config.head_size // 2), types.fp32),
        "begin": ((3,), types.int32), "end": ((3,), types.int32),
    }  # fmt: skip
    given = {name: mb.placeholder(shape, dtype=dtype) for name, (shape, dtype) in inputs.items()}
    kept = (config.n_kv_heads, config.seq_len, config.head_size)
    for i in range(config.n_layers):
        given |= {f"{kind}_{i}": mb.state_tensor_placeholder(kept, types.fp32) for kind in "kv"}
    made = Program()
    with Function(given, coremltools.target.iOS18) as main:
        model.given = dict(main.inputs)
        w = {name: mb.const(val=np.asarray(value)) for name, value in weights.items()}
        x = model.norm(model.body(model.given["x"], w), w["norm"], "rms_last")
        main.set_outputs([model.logits(x, w[config.classifier])])
    made.add_function("main", main)
    return made


class OneToken(Model):
    """The same ops for one position; keys and values of all are states, and the mask hides those to come."""

    given: dict[str, Any]

    def remembered(self, k: Any, v: Any, i: int) -> tuple[Any, Any]:
        begin, end = self.given["begin"], self.given["end"]

        def kept(name: str, new: Any) -> Any:
            state = self.given[f"{name}_{i}"]
            whole = mb.slice_update(x=mb.read_state(input=state), update=new, begin=begin, end=end)
            return mb.coreml_update_state(state=state, value=whole)

        return kept("k", k), kept("v", v)

    def mask(self, length: int) -> Any:
        return self.given["mask"]

    def turn(self, length: int) -> tuple[Any, Any]:
        return self.given["cos"], self.given["sin"]
