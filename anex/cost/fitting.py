"""Fitting ``physics`` to measured milliseconds: the most probable parameters under their priors.

Errors are of the logarithm, as a factor of two is as wrong at 0.1 ms as at 100 ms, and heavy-tailed
(Student's t with 4 degrees of freedom), as clocks and background work make outliers.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from .chips import Chip
from .physics import GENERATION_COUNT, NAMES, NUMBERS, Array, Batch, Parameters, terms

NOISE = 0.07  # of a measurement, in logarithms; its tail is the t's
DEGREES = 4.0
STEPS = 60
ENOUGH = 1e-5


class Layout:
    """Where each parameter stands in one long vector; numbers that chips here never use are left out."""

    def __init__(self, chips: Sequence[Chip]) -> None:
        self.names = sorted({chip.name for chip in chips if chip.known})
        self.chip_index = np.array([self.names.index(c.name) if c.known else len(self.names) for c in chips])
        self.generation_index = np.array([c.generation - 1 if c.known else GENERATION_COUNT for c in chips])
        self.numbers, self.groups = len(NAMES), GENERATION_COUNT
        spreads = np.array([[n.population, n.generation, n.chip] for n in NUMBERS.values()])
        self.spread = np.concatenate(
            [spreads[:, 0], np.repeat(spreads[:, 1], self.groups), np.tile(spreads[:, 2], len(self.names))]
        )
        self.guess = Parameters.prior().population

    def logs(self, x: Array) -> Array:
        n, g = self.numbers, self.groups
        population = self.guess + x[:n]
        generation = np.concatenate([x[n : n + n * g].reshape(n, g).T, np.zeros((1, n))])
        chip = np.concatenate([x[n + n * g :].reshape(len(self.names), n), np.zeros((1, n))])
        found: Array = population + generation[self.generation_index] + chip[self.chip_index]
        return found

    def parameters(self, x: Array) -> Parameters:
        n, g = self.numbers, self.groups
        own = x[n + n * g :].reshape(len(self.names), n)
        return Parameters(
            self.guess + x[:n], x[n : n + n * g].reshape(n, g), {name: own[i] for i, name in enumerate(self.names)}
        )


def fit(chips: Sequence[Chip], batch: Batch, ms: Array) -> Parameters:
    """The parameters of every chip from all measurements."""
    layout = Layout(chips)
    target = np.log(ms)

    def residuals_and_slopes(x: Array) -> tuple[Array, Array]:
        logs = layout.logs(x)
        base = np.log(terms(logs, batch).total)
        slopes = slopes_of(logs, batch, base)  # by the load's own number
        return base - target, _spread_out(slopes, layout)

    return layout.parameters(_minimise(residuals_and_slopes, layout.spread))


def refit(parameters: Parameters, chip: Chip, batch: Batch, ms: Array) -> Parameters:
    """The same, but for one chip's own numbers, from measurements of it alone."""
    start = parameters.of(chip)
    spread = np.array([np.hypot(number.chip, number.generation) for number in NUMBERS.values()])
    target = np.log(ms)

    def residuals_and_slopes(x: Array) -> tuple[Array, Array]:
        logs = np.repeat((start + x)[None], batch.size, axis=0)
        base = np.log(terms(logs, batch).total)
        return base - target, slopes_of(logs, batch, base)

    x = _minimise(residuals_and_slopes, spread)
    own = parameters.chips.get(chip.name, np.zeros(len(NAMES))) + x
    return Parameters(parameters.population, parameters.generation, {**parameters.chips, chip.name: own})


def slopes_of(logs: Array, batch: Batch, base: Array, step: float = 1e-5) -> Array:
    slopes = np.empty_like(logs)
    for number in range(logs.shape[1]):
        moved = logs.copy()
        moved[:, number] += step
        slopes[:, number] = (np.log(terms(moved, batch).total) - base) / step
    return slopes


def _spread_out(slopes: Array, layout: Layout) -> Array:
    """Slopes by number of each load's chip, as slopes by place in the long vector."""
    loads, n = slopes.shape
    generation = np.zeros((loads, n, layout.groups + 1))
    chip = np.zeros((loads, len(layout.names) + 1, n))
    each = np.arange(loads)
    generation[each, :, layout.generation_index] = slopes
    chip[each, layout.chip_index] = slopes
    return np.concatenate(
        [slopes, generation[:, :, :-1].reshape(loads, -1), chip[:, :-1].reshape(loads, -1)], axis=1
    )  # fmt: skip


def _minimise(residuals_and_slopes: Callable[[Array], tuple[Array, Array]], spread: Array) -> Array:
    """Levenberg and Marquardt, with the weights of a Student's t."""
    x = np.zeros(len(spread))
    damping = 1e-2
    error, slopes = residuals_and_slopes(x)

    def loss(error: Array, x: Array) -> float:
        t = (DEGREES + 1) / 2 * np.log1p((error / NOISE) ** 2 / DEGREES)
        return float(t.sum() + 0.5 * ((x / spread) ** 2).sum())

    now = loss(error, x)
    for _ in range(STEPS):
        weight = (DEGREES + 1) / (DEGREES + (error / NOISE) ** 2) / NOISE**2
        # in units of the prior's spread the prior is the identity
        scaled = slopes * spread
        normal = scaled.T @ (scaled * weight[:, None])
        gradient = scaled.T @ (weight * error) + x / spread
        for _ in range(12):
            move = np.linalg.solve(normal + np.eye(len(x)) * (1 + damping), -gradient)
            tried = x + np.clip(move, -3, 3) * spread
            tried_error, tried_slopes = residuals_and_slopes(tried)
            if (after := loss(tried_error, tried)) < now:
                break
            damping *= 4
        else:
            return x
        gained, now = now - after, after
        x, error, slopes, damping = tried, tried_error, tried_slopes, damping / 3
        if gained < ENOUGH * max(1.0, now):
            break
    return x
