"""A training run: steps, batches of them, updates, checkpoints; and the same again from a checkpoint."""

from __future__ import annotations

import math
import time
from collections import Counter
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from stories_breakdown import shares, spread
from stories_checkpoint import Checkpoint
from stories_config import Config, StoriesError
from stories_data import Tokens
from stories_report import Report, Sums
from stories_step import Step

import anex
from anex import optim

SCHEDULES = {"constant": None, "cosine": optim.warmup_cosine, "linear": optim.warmup_linear}


@dataclass(frozen=True)
class Options:
    """What a run is decided by, beside its weights and data; a checkpoint keeps them."""

    steps: int = 10000
    lr: float = 3e-4
    accum: int = 10  # steps of a batch: their gradients' mean is one update
    warmup: int = 0  # updates
    schedule: str = "constant"
    weight_decay: float = 0.0  # of matrices
    clip: float = 0.0  # the most that the norm of all gradients may be; 0: any
    seed: int = 42  # of the places in the data

    def __post_init__(self) -> None:
        not_below_0 = (self.warmup, self.weight_decay, self.clip)
        if min(self.steps, self.accum) < 1 or not self.lr > 0 or min(not_below_0) < 0:
            raise StoriesError(f"{self}: steps, accum and lr are above 0, warmup, weight decay and clip not below it")
        if self.schedule not in SCHEDULES:
            raise StoriesError(f"--schedule {self.schedule}: there are {', '.join(SCHEDULES)}")

    def rate(self, update: int) -> float:
        """Of update ``update``, from 0."""
        schedule = SCHEDULES[self.schedule]
        if schedule is None:
            return self.lr * min(1.0, (update + 1) / self.warmup) if self.warmup else self.lr
        return schedule(update, peak=self.lr, steps=math.ceil(self.steps / self.accum), warmup=self.warmup)


class Trainer:
    """Weights, what changes them, and where the run stands."""

    def __init__(
        self, config: Config, weights: Mapping[str, np.ndarray], options: Options, device: str = "cpu",
        offload: tuple[str, ...] = (),
    ) -> None:  # fmt: skip
        self.start = time.perf_counter()
        self.config, self.options = config, options
        self.engine = Step(config, weights, device, offload)
        decay = {name: options.weight_decay for name, shape in config.shapes().items() if len(shape) > 1}
        self.optimizer = optim.AdamW(
            self.engine.weights, lr=options.lr, weight_decay=decay, clip_norm=options.clip or None
        )
        self.step, self.loss, self.skipped = 0, math.nan, 0
        self.sums, self.before = Sums(), Sums()
        self.parts: dict[str, float] = {}
        if device == "ane":  # the masters are of the weights as given, not as float16 has them
            self._put(weights, {})

    @classmethod
    def resume(
        cls, path: Path, changed: Mapping[str, Any], device: str = "cpu", offload: tuple[str, ...] = ()
    ) -> Trainer:
        """Go on from a checkpoint. ``changed``: options that differ from those it has."""
        saved = Checkpoint.load(path)
        options = replace(Options(**saved.run["options"]), **changed)
        made = cls(saved.config, saved.weights, options, device, offload)
        made._put(saved.weights, saved.state, saved.run["updates"])
        made.step, made.loss, made.skipped = saved.run["step"], saved.run["loss"], saved.run["skipped"]
        made.before = Sums(**saved.run["sums"])
        return made

    def weights(self) -> dict[str, Any]:
        """In float32: the masters, where the programs read float16."""
        return {name: self.optimizer.state.get(f"master.{name}", w) for name, w in self.engine.weights.items()}

    def save(self, path: Path) -> None:
        state = {name: value for name, value in self.optimizer.state.items() if not name.startswith("master.")}
        run = {
            "options": asdict(self.options), "step": self.step, "loss": self.loss, "skipped": self.skipped,
            "updates": self.optimizer.steps, "sums": self.totals().as_dict(),
        }  # fmt: skip
        Checkpoint(self.config, self.weights(), state, run).save(path)

    def totals(self) -> Sums:
        """Of this run and those before it."""
        self.sums.wall_ms = (time.perf_counter() - self.start) * 1e3
        return Sums(*(a + b for a, b in zip(asdict(self.before).values(), asdict(self.sums).values(), strict=True)))

    def batch(self, tokens: Tokens, report: Report | None = None) -> Counter[str]:
        """Up to ``accum`` steps and one update; the milliseconds they took, ``update`` being the last."""
        begin, steps, options = time.perf_counter(), 0, self.options
        times = self.engine.times = Counter()
        while steps < options.accum and self.step < options.steps:
            self.loss = self.engine(*tokens.step(self.step))
            if not math.isfinite(self.loss):
                raise StoriesError(f"the loss of step {self.step} is {self.loss}; a smaller --lr may help")
            if options.accum > 1:
                with self.engine.timed("elem"):
                    self.optimizer.accumulate(self.engine.gradients)
            steps += 1
            spread(times, self.parts)
            if report:
                first = not self.sums.steps and steps == 1
                report.step(self.step, self.loss, times, steps, self.engine.compiles, first)
            self.step += 1
        with self.engine.timed("update"):
            given = None if options.accum > 1 else self.engine.gradients
            rate = options.rate(self.optimizer.steps)
            self.skipped += not self.optimizer.step(given, rate, loss_scale=self.engine.loss_scale)
        train_ms = (time.perf_counter() - begin) * 1e3
        if report:
            compile_ms = self.engine.compile_ms if not self.sums.steps else 0.0
            shown = times + Counter({"elem": times["update"]})  # type: ignore[dict-item]
            report.batch(steps, compile_ms, train_ms, shown, self.engine.compiles)
        self.sums.compile_ms = self.engine.compile_ms
        self.sums.train_ms += train_ms
        self.sums.steps += steps
        self.sums.batches += 1
        return times

    def look(self, tokens: Tokens) -> None:
        """Measure where the time of the CPU's program goes."""
        if self.engine.device == "cpu":
            self.parts = shares(self.engine, *tokens.step(self.step))

    def _put(self, weights: Mapping[str, Any], state: Mapping[str, Any], updates: int = 0) -> None:
        whole = {name: state.get(name, value) for name, value in self.optimizer.state.items()}
        whole |= {name: weights[name.removeprefix("master.")] for name in whole if name.startswith("master.")}
        self.optimizer.load(whole, updates)


def compilations() -> int:
    """Those that the Neural Engine's compiler did for this process."""
    return anex.cache.budget().compiles
