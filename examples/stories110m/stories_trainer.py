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
from stories_parallel import of_rank_0
from stories_report import Report, Sums
from stories_step import Step

import anex
from anex import optim
from anex.distributed import Alone, Group

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
    """Weights, what changes them, and where the run stands.

    ``group``: the processes that share the steps of each batch, and all have the same weights.
    """

    def __init__(
        self, config: Config, weights: Mapping[str, np.ndarray], options: Options, device: str = "cpu",
        offload: tuple[str, ...] = (), group: Group | None = None,
    ) -> None:  # fmt: skip
        self.start = time.perf_counter()
        self.config, self.options, self.group = config, options, group or Alone()
        if options.accum < self.group.size:
            raise StoriesError(
                f"--accum {options.accum}: a batch of so few steps is not enough for {self.group.size} workers; "
                f"--accum {self.group.size} is the least"
            )
        self.engine = Step(config, weights, device, offload)
        decay = {name: options.weight_decay for name, shape in config.shapes().items() if len(shape) > 1}
        self.optimizer = optim.AdamW(
            self.engine.weights, lr=options.lr, weight_decay=decay, clip_norm=options.clip or None,
            group=self.group,
        )  # fmt: skip
        self.step, self.loss, self.skipped = 0, math.nan, 0
        self.sums, self.before = Sums(), Sums()
        self.parts: dict[str, float] = {}
        if device == "ane":  # the masters are of the weights as given, not as float16 has them
            self._put(weights, {})

    @classmethod
    def resume(
        cls, path: Path, changed: Mapping[str, Any], device: str = "cpu", offload: tuple[str, ...] = (),
        group: Group | None = None,
    ) -> Trainer:  # fmt: skip
        """Go on from a checkpoint. ``changed``: options that differ from those it has. Rank 0 reads the file."""
        saved = of_rank_0(group or Alone(), lambda: Checkpoint.load(path))
        options = replace(Options(**saved.run["options"]), **changed)
        made = cls(saved.config, saved.weights, options, device, offload, group)
        made._put(saved.weights, saved.state, saved.run["updates"])
        made.step, made.loss, made.skipped = saved.run["step"], saved.run["loss"], saved.run["skipped"]
        made.before = Sums(**saved.run["sums"])
        return made

    def align(self) -> None:
        """Give every worker the weights and the optimizer's state of rank 0."""
        self.group.broadcast([*self.engine.weights.values(), *self.optimizer.state.values()])

    def weights(self) -> dict[str, Any]:
        """In float32: the masters, where the programs read float16."""
        return {name: self.optimizer.state.get(f"master.{name}", w) for name, w in self.engine.weights.items()}

    def save(self, path: Path) -> None:
        """Rank 0 writes it. Unlike processors may round apart; if they did, all go on with what is saved."""
        if not self.group.agree(self.engine.weights.values()):
            self.align()
        if self.group.rank:
            return
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
            found = self._round(tokens, min(self.group.size, options.accum - steps, options.steps - self.step))
            spread(times, self.parts)
            for self.loss in found:
                if not math.isfinite(self.loss):
                    raise StoriesError(f"the loss of step {self.step} is {self.loss}; a smaller --lr may help")
                steps += 1
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

    def _round(self, tokens: Tokens, count: int) -> list[float]:
        """The losses of the next ``count`` steps, of which each worker does one, the first ``count`` of them."""
        rank, losses = self.group.rank, np.zeros(count)
        if rank < count:
            losses[rank] = self.engine(*tokens.step(self.step + rank))
            if self.options.accum > 1:
                with self.engine.timed("elem"):
                    self.optimizer.accumulate(self.engine.gradients)
        with self.engine.timed("io"):
            self.group.all_reduce([losses])
        return losses.tolist()

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
