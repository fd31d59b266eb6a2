"""A training step of Stories110M, examples/stories110m, and its optimizer alone: batch 1, float32 weights and moments.

torch has the same model with its fastest parts: its own attention, RMSNorm and cross entropy, and fused AdamW.
"""

from __future__ import annotations

import sys
import zlib
from collections.abc import Iterator, Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from ..case import Case, Contender, Goal, Limit, Setting, Work
from ..torch_stories import Stories

EXAMPLE = Path(__file__).parents[2] / "examples" / "stories110m"
RATE, DECAY = 3e-4, 0.1
BYTES = 28  # of an AdamW step, each weight: four numbers read, three written


def _config() -> Any:
    if str(EXAMPLE) not in sys.path:
        sys.path.insert(0, str(EXAMPLE))
    from stories_config import STORIES110M

    return STORIES110M


class Drawn(Mapping[str, np.ndarray]):
    """Normal float32 numbers by name, drawn when they are asked for, so that nobody has them twice in memory."""

    def __init__(self, shapes: Mapping[str, tuple[int, ...]], scale: float, norms: float = 0.0) -> None:
        self.shapes, self.scale, self.norms = shapes, scale, norms

    def __getitem__(self, name: str) -> np.ndarray:
        found = np.random.default_rng(zlib.crc32(name.encode())).standard_normal(self.shapes[name], np.float32)
        found *= np.float32(self.scale)
        if "norm" in name:
            found += np.float32(self.norms)
        return found

    def __iter__(self) -> Iterator[str]:
        return iter(self.shapes)

    def __len__(self) -> int:
        return len(self.shapes)


def small() -> Any:
    """A model for tests, of the same kind."""
    return replace(_config(), dim=32, hidden_dim=48, n_layers=2, n_heads=4, n_kv_heads=2, vocab_size=100, seq_len=16)


def _start(config: Any) -> Drawn:
    """Weights to begin with: about as llama2.c begins."""
    return Drawn(config.shapes(), 0.02, norms=1.0)


def _sequence(config: Any) -> tuple[np.ndarray, np.ndarray]:
    numbers = np.random.default_rng(0).integers(0, config.vocab_size, config.seq_len + 1).astype(np.int32)
    return numbers[:-1], numbers[1:]


def _decays(shapes: Mapping[str, tuple[int, ...]]) -> dict[str, float]:
    return {name: DECAY for name, shape in shapes.items() if len(shape) > 1}


def _told(loss: float, gradients: Mapping[str, Any]) -> np.ndarray:
    """The loss, and how large each gradient was: as logarithms, or the largest would hide the others."""
    norms = [np.linalg.norm(np.asarray(each, np.float64)) for each in gradients.values()]
    return np.array([loss, *np.log(norms)], np.float32)


# ---- the step -----------------------------------------------------------------------------------------


def step(config: Any = None) -> Case:
    config = config or _config()
    from stories_report import Flops

    def ours(setting: Setting) -> Work:
        from stories_step import Step

        from anex import optim

        engine = Step(config, _start(config))
        optimizer = optim.AdamW(engine.weights, lr=RATE, weight_decay=_decays(config.shapes()))
        tokens, targets = _sequence(config)
        losses: list[float] = []

        def call() -> None:
            losses.append(engine(tokens, targets))
            optimizer.step(engine.gradients)

        return Work(call, lambda: _told(losses[-1], engine.gradients))

    def theirs(setting: Setting, *, compiled: bool) -> Work:
        import torch

        model = Stories(config, _start(config))
        matrices = [p for p in model.parameters() if p.ndim > 1]
        others = [p for p in model.parameters() if p.ndim == 1]
        groups = [{"params": matrices, "weight_decay": DECAY}, {"params": others, "weight_decay": 0.0}]
        optimizer = torch.optim.AdamW(groups, lr=RATE, fused=True)
        tokens, targets = (torch.from_numpy(each.astype(np.int64)) for each in _sequence(config))
        forward: Any = torch.compile(model) if compiled else model
        losses: list[float] = []

        def call() -> None:
            optimizer.zero_grad(set_to_none=True)
            loss = forward(tokens, targets)
            loss.backward()
            optimizer.step()
            losses.append(loss.item())

        def answer() -> np.ndarray:
            return _told(losses[-1], {name: model.weight(name).grad.numpy() for name in config.shapes()})

        return Work(call, answer)

    flops = Flops(config)
    attention = 4 * config.n_layers * config.seq_len**2 * config.dim  # of the way there, which is not in the total
    torchs = ("torch eager fp32", "torch compile fp32")
    return Case(
        f"a training step of {config.parameters() / 1e6:.1f} M weights, sequence of {config.seq_len}, AdamW",
        {
            "anex fp32": ours,
            "torch eager fp32": partial(theirs, compiled=False),
            "torch compile fp32": partial(theirs, compiled=True),
        },
        goals=[goal for peer in torchs
               for goal in (Goal("anex fp32", peer, 1.25), Goal("anex fp32", peer, 1.0, "memory"))],
        limits=[Limit("fma", flops.total + attention)],
        tolerance=1e-3,
        memory=True,
    )  # fmt: skip


# ---- the optimizer ------------------------------------------------------------------------------------


def adamw(config: Any = None) -> Case:
    config = config or _config()
    shapes = config.shapes()

    given = Drawn(shapes, 1e-3)  # gradients

    def told(weights: Mapping[str, Any]) -> np.ndarray:
        return np.concatenate([np.ravel(np.asarray(each))[:64] for each in weights.values()])

    def ours(setting: Setting) -> Work:
        import anex
        from anex import optim

        weights, gradients = ({name: anex.tensor(each, dtype="float32") for name, each in some.items()}
                              for some in (_start(config), given))  # fmt: skip
        optimizer = optim.AdamW(weights, lr=RATE, weight_decay=_decays(shapes))
        return Work(lambda: optimizer.step(gradients), lambda: told(weights))

    def theirs(setting: Setting, **way: bool) -> Work:
        import torch

        weights = {name: torch.nn.Parameter(torch.from_numpy(each)) for name, each in _start(config).items()}
        for name, weight in weights.items():
            weight.grad = torch.from_numpy(given[name])
        decays = _decays(shapes)
        groups = [{"params": [weights[name] for name in shapes if (name in decays) == decayed],
                   "weight_decay": DECAY * decayed} for decayed in (True, False)]  # fmt: skip
        optimizer = torch.optim.AdamW(groups, lr=RATE, **way)
        return Work(optimizer.step, lambda: told({name: weight.detach().numpy() for name, weight in weights.items()}))

    def with_way(**way: bool) -> Contender:
        return partial(theirs, **way)

    count = config.parameters()
    return Case(
        f"AdamW of {count / 1e6:.1f} M weights in {len(shapes)} tensors, float32",
        {
            "anex fp32": ours,
            "torch fused fp32": with_way(fused=True),
            "torch foreach fp32": with_way(foreach=True),
        },
        goals=[Goal("anex fp32", "torch fused fp32", 1.0), Goal("anex fp32", "torch foreach fp32", 2.0)],
        limits=[Limit("read", BYTES * count)],
        tolerance=1e-3,
        memory=True,
    )
