"""What measurements near by say about a prediction, and how sure it is (Gaussian process regression).

The logarithm of a time is physics at its most probable parameters, plus what those parameters may be off by
(their slopes, under the priors of ``physics``), plus a smooth error of the form itself, shared the more the more
alike two programs, chips and kinds of work are, plus what one run has of its own (its clock, its host), plus noise.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace

import numpy as np
import numpy.typing as npt

from .chips import Chip
from .fitting import DEGREES, slopes_of
from .physics import NAMES, NUMBERS, Array, Batch, Parameters, Terms, logs, terms
from .work import BLOCKS, PATHS, Load

Index = npt.NDArray[np.intp]
Groups = Sequence[Index]
_STARTS = [i for i, name in enumerate(NAMES) if name.startswith("start_")]
_COPIES = [i for i, name in enumerate(NAMES) if name.startswith(("in_", "out_"))]


@dataclass(frozen=True)
class Hyper:
    """Spreads are of logarithms, lengths of features in their own units.

    ``form``: spread of the smooth error; ``run``: of a run's. ``other_chip``, ``other_kind``: how much of the smooth
    error two chips, or kinds of work, share. ``size``, ``mix``, ``layer``: lengths in log time, in the shares that
    make up the time, and in log channels and positions. ``run_mix``: the length of a run's error in shares;
    ``run_start``, ``run_copy``: spread of a run's factor on the start and on the copies, as a machine's clock and
    system have them. ``noise``: by path; ``noise_block``: what blocks of many ops have beside, whose layouts the
    compiler chooses.
    """

    parameters: float = 1.0
    form: float = 0.12
    other_chip: float = 0.3
    other_kind: float = 0.3
    size: float = 1.5
    mix: float = 0.5
    layer: float = 2.0
    run: float = 0.1
    run_mix: float = 0.7
    run_start: float = 0.15
    run_copy: float = 0.15
    noise_private: float = 0.08
    noise_e5rt: float = 0.03
    noise_coreml: float = 0.03
    noise_block: float = 0.1


@dataclass(frozen=True)
class Points:
    """Loads as the regression sees them."""

    base: Array  # log ms by physics
    slopes: Array
    size: Array
    mix: Array
    layer: Array
    chip: npt.NDArray[np.intp]
    generation: npt.NDArray[np.intp]
    kind: npt.NDArray[np.intp]
    path: npt.NDArray[np.intp]
    run: npt.NDArray[np.intp]
    block: npt.NDArray[np.bool_]
    terms: Terms

    def __len__(self) -> int:
        return len(self.base)


class Names:
    """A number for every name, the same wherever it is asked."""

    def __init__(self) -> None:
        self.known: dict[str, int] = {}

    def __call__(self, name: str) -> int:
        return self.known.setdefault(name, len(self.known))


def points(
    parameters: Parameters, chips: Sequence[Chip], paths: Sequence[str], loads: Sequence[Load], kinds: Sequence[str],
    runs: Sequence[str], names: Names,
) -> Points:  # fmt: skip
    """``kinds``: what each load is called; ``runs``: who measured it, empty for nobody."""
    batch = Batch(chips, paths, loads)
    by_load = logs(parameters, chips)
    found = terms(by_load, batch)
    base = np.log(found.total)
    widest = np.zeros((len(loads), 2))
    for i, load in enumerate(loads):
        heavy = max(load.works, key=lambda work: (work.flops, work.bytes), default=None)
        if heavy is not None:
            widest[i] = np.log2(1 + max(heavy.channels)), np.log2(1 + heavy.positions)
    nobody = len(loads)
    return Points(
        base=base, slopes=slopes_of(by_load, batch, base), size=base,
        mix=np.sqrt(np.maximum(found.bounds(), 0) / found.total[:, None]), layer=widest,
        chip=np.array([names("chip " + chip.name) if chip.known else -1 for chip in chips], np.intp),
        generation=np.array([chip.generation if chip.known else 0 for chip in chips], np.intp),
        kind=np.array([names("kind " + kind) for kind in kinds], np.intp), path=batch.path,
        run=np.array([names("run " + run) if run else -1 - i % (nobody + 1) for i, run in enumerate(runs)], np.intp),
        block=np.array([load.kind in BLOCKS for load in loads], bool), terms=found,
    )  # fmt: skip


def covariance(a: Points, b: Points, hyper: Hyper) -> Array:
    """Of what physics leaves, between two sets of loads; noise is apart."""
    same_chip = (a.chip[:, None] == b.chip[None]) & (a.chip[:, None] >= 0)
    same_generation = (a.generation[:, None] == b.generation[None]) & (a.generation[:, None] > 0)
    spreads = np.array([[n.population, n.generation, n.chip] for n in NUMBERS.values()])

    def linear(column: int) -> Array:
        found: Array = (a.slopes * spreads[:, column] ** 2) @ b.slopes.T
        return found

    by_parameters = linear(0) + same_generation * linear(1) + same_chip * linear(2)
    mix = _distance(a.mix, b.mix)
    near = np.exp(
        -_distance(a.size[:, None], b.size[:, None]) / (2 * hyper.size**2)
        - mix / (2 * hyper.mix**2) - _distance(a.layer, b.layer) / (2 * hyper.layer**2)
    )  # fmt: skip
    alike = np.where(same_chip, 1, hyper.other_chip) * (a.path[:, None] == b.path[None])
    alike = alike * np.where(a.kind[:, None] == b.kind[None], 1, hyper.other_kind)
    factors = hyper.run_start**2 * np.outer(_start(a), _start(b)) + hyper.run_copy**2 * np.outer(_copy(a), _copy(b))
    run = (a.run[:, None] == b.run[None]) * (hyper.run**2 * np.exp(-mix / (2 * hyper.run_mix**2)) + factors)
    found: Array = hyper.parameters**2 * by_parameters + hyper.form**2 * near * alike + run
    return found


def _start(at: Points) -> Array:
    """How much the start is of each time."""
    found: Array = at.slopes[:, _STARTS].sum(1)
    return found


def _copy(at: Points) -> Array:
    """How much the copies are, as a part."""
    found: Array = -at.slopes[:, _COPIES].sum(1)
    return found


def _distance(a: Array, b: Array) -> Array:
    """Squared, of every pair."""
    found: Array = np.maximum((a**2).sum(1)[:, None] + (b**2).sum(1)[None] - 2 * a @ b.T, 0)
    return found


def noise(at: Points, hyper: Hyper) -> Array:
    found: Array = np.array([getattr(hyper, f"noise_{path}") for path in PATHS])[at.path]
    both: Array = np.hypot(found, hyper.noise_block * at.block)
    return both


def target(at: Points, parameters: Parameters, chips: Sequence[Chip], ms: Array) -> Array:
    """What the regression explains: the error of physics, plus what its fitted parameters moved it by."""
    return np.log(ms) - at.base + offset(at, parameters, chips)


def offset(at: Points, parameters: Parameters, chips: Sequence[Chip]) -> Array:
    moved = logs(parameters, chips) - Parameters.prior().population
    found: Array = (at.slopes * moved).sum(1)
    return found


class Kriging:
    """The regression on known loads."""

    def __init__(self, known: Points, target: Array, hyper: Hyper, outlying: Array | None = None) -> None:
        """``outlying``: by how much the noise of each is larger than its path's, 1 for most."""
        self.known, self.hyper = known, hyper
        self.target = target
        self.outlying = np.ones(len(known)) if outlying is None else outlying
        full = covariance(known, known, hyper)
        self.matrix = full + np.diag((noise(known, hyper) * self.outlying) ** 2 + 1e-8)
        self.inverse = np.linalg.inv(self.matrix)
        self.weights = self.inverse @ target

    def predict(self, new: Points) -> tuple[Array, Array]:
        """Mean and variance of ``target`` of new loads, noise included."""
        between = covariance(new, self.known, self.hyper)
        known = ((between @ self.inverse) * between).sum(1)
        variance = _with_itself(new, self.hyper) - known + noise(new, self.hyper) ** 2
        return between @ self.weights, np.maximum(variance, 1e-6)

    def left_out(self, groups: Groups) -> tuple[Array, Array]:
        """Error and variance of each known load, predicted without any of its group."""
        error, variance = np.empty(len(self.known)), np.empty(len(self.known))
        usual = noise(self.known, self.hyper) ** 2
        for group in groups:
            block = np.linalg.inv(self.inverse[np.ix_(group, group)])
            error[group] = block @ self.weights[group]
            variance[group] = np.diag(block) - (self.outlying[group] ** 2 - 1) * usual[group]
        return error, np.maximum(variance, 1e-6)

    def robust(self, groups: Groups, rounds: int = 4) -> Kriging:
        """The same with outliers told apart: the noise of each as a Student's t has it."""
        found = self
        for _ in range(rounds):
            error, variance = found.left_out(groups)
            scale = np.sqrt(variance)
            outlying = np.sqrt((DEGREES + (error / scale) ** 2) / (DEGREES + 1))
            found = Kriging(found.known, found.target, found.hyper, np.maximum(outlying, 1))
        return found


def _with_itself(at: Points, hyper: Hyper) -> Array:
    """The diagonal of ``covariance(at, at)``, but that what nobody knows of a chip varies in full."""
    spreads = np.array([[n.population, n.generation, n.chip] for n in NUMBERS.values()]) ** 2
    run = hyper.run**2 + (hyper.run_start * _start(at)) ** 2 + (hyper.run_copy * _copy(at)) ** 2
    found: Array = hyper.parameters**2 * (at.slopes**2 @ spreads.sum(1)) + hyper.form**2 + run
    return found


def choose(known: Points, target: Array, groupings: Sequence[Groups], start: Hyper, rounds: int = 3) -> Hyper:
    """The spreads and lengths under which left-out groups are the most probable, by steps along each.

    ``groupings``: several ways to leave out, such as configurations and runs; all count.
    """

    def score(hyper: Hyper) -> float:
        model = Kriging(known, target, hyper).robust(groupings[0], 2)
        return sum(_surprise(model, groups) for groups in groupings) + _unusual(hyper)

    best, now, step = start, score(start), 1.6
    for _ in range(rounds):
        for name in asdict(start):
            for factor in (step, 1 / step):
                while True:
                    value = getattr(best, name) * factor
                    if name.startswith("other_") and value > 1:
                        break
                    tried = replace(best, **{name: value})
                    if (after := score(tried)) >= now - 1e-3:
                        break
                    best, now = tried, after
        step = step**0.6
    return best


def _surprise(model: Kriging, groups: Groups) -> float:
    """Minus the log of the left-out probability, with heavy tails."""
    error, variance = model.left_out(groups)
    found = 0.5 * np.log(variance) + (DEGREES + 1) / 2 * np.log1p(error**2 / variance / DEGREES)
    return float(found.sum())


def _unusual(hyper: Hyper) -> float:
    guesses = asdict(Hyper())
    return sum(float(np.log(value / guesses[name])) ** 2 for name, value in asdict(hyper).items()) / 2
