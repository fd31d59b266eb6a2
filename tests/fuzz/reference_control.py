"""Blocks, states, and how random numbers must be spread. See reference.py."""

from __future__ import annotations

import numpy as np

from .reference import own

LIKELY = 3.0  # of Kolmogorov and Smirnov's statistic: above it once in 10**7 draws
DEVIATIONS = 6.0


@own("cond")
def cond(op, pred, _true_fn, _false_fn):
    return tuple((_true_fn if pred else _false_fn)())


@own("while_loop")
def while_loop(op, loop_vars, _cond, _body):
    while _cond(*loop_vars)[0]:
        loop_vars = _body(*loop_vars)
    return tuple(loop_vars)


@own("read_state")
def read_state(op, input):
    return input


@own("coreml_update_state")
def coreml_update_state(op, state, value):
    return value


# ---- random numbers -------------------------------------------------------------------------


@own("random_uniform", "random_normal", "random_bernoulli")
def random(op, shape, seed, **given):
    """Some numbers of the kind; which, is the engine's to choose."""
    rng = np.random.default_rng(seed)
    if op == "random_uniform":
        return rng.uniform(given["low"], given["high"], shape)
    if op == "random_normal":
        return rng.normal(given["mean"], given["stddev"], shape)
    return (rng.random(shape) < given["prob"]).astype(np.float64)


def probabilities(x, mode):
    p = np.atleast_2d(np.float64(x))
    p = p if mode == "probs" else np.exp(p - p.max(-1, keepdims=True))
    return p / p.sum(-1, keepdims=True)


@own("random_categorical")
def random_categorical(op, x, mode, size, seed):
    rng, p = np.random.default_rng(seed), probabilities(x, mode)
    drawn = np.stack([rng.choice(len(row), size, p=row) for row in p]).astype(np.float64)
    return drawn[0] if np.ndim(x) == 1 else drawn


def unlikely(op, found, arguments):
    """Why these numbers are not what the op should draw; None if they may be."""
    y = found.astype(np.float64).ravel()
    if op == "random_uniform":
        low, high = float(arguments["low"]), float(arguments["high"])
        if not ((y >= low) & (y <= high)).all():
            return f"outside {low} to {high}"
        return distance(y, (y - low) / (high - low))
    if op == "random_normal":
        from scipy.special import ndtr

        return distance(y, ndtr((y - float(arguments["mean"])) / float(arguments["stddev"])))
    if op == "random_bernoulli":
        return counted(y, np.array([1 - float(arguments["prob"]), float(arguments["prob"])]))
    p = probabilities(arguments["x"], arguments["mode"])
    rows = y.reshape(len(p), -1)
    return next((why for row, each in zip(rows, p, strict=True) if (why := counted(row, each))), None)


def distance(y, wanted):
    """Kolmogorov and Smirnov's statistic: ``wanted`` is the distribution function at y."""
    wanted, n = np.sort(wanted), y.size
    steps = np.arange(n + 1) / n
    far = max((steps[1:] - wanted).max(), (wanted - steps[:-1]).max())
    rounded = 2.0**-9  # equal float16 numbers are one step of many
    if (far - rounded) * n**0.5 > LIKELY:
        return f"{far:.3f} from the distribution function, of {n} numbers"
    return None


def counted(y, p):
    counts = np.array([(y == i).sum() for i in range(len(p))])
    if counts.sum() != y.size:
        return f"not one of {len(p)} numbers"
    if (np.abs(counts - y.size * p) > DEVIATIONS * np.sqrt(y.size * p * (1 - p)) + 2 + 1e-3 * y.size).any():
        return f"{counts / y.size} for {p}"
    return None
