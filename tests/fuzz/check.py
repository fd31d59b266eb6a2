"""One program, every way it can run, against the reference.

Strict, with every value an output: each op is held against the reference of the very values it was given,
so that nothing adds up; and its bytes must not depend on threads or on the instruction set.
As users run it (fused, only some values are outputs): against the reference of the whole program.

How far a value may be off depends on its condition, which is measured, not known: the reference is
computed again with its operands moved by an ulp or so, up and down, and what that changes, times a
constant, is allowed. Where it changes an integer, a bool or a large part of a float, as behind `floor`
or a difference of equals, there is nothing to compare; `compared` counts what was.
"""

from __future__ import annotations

import contextlib
import logging
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from strict_case import difference, same_bits

import anex
from anex import _native
from anex.devices.cpu import lower

from .graph import Bound, Graph, Step, build, remember, resolve
from .reference import evaluate
from .reference_control import unlikely

UNIT = {"float16": 2.0**-11, "float32": 2.0**-24}
LEAST = {"float16": 2.0**-24, "float32": 2.0**-126}  # below, digits are lost
THREADS = (1, 2, 3, 8)  # the slower instruction sets: one and two of them
# results that are exact for any operands, so that no operand is moved: they must be equal to the last bit
EXACT = {
    "abs", "sign", "ceil", "floor", "round", "relu", "relu6", "clip", "maximum", "minimum", "select", "threshold",
    "greater", "greater_equal", "less", "less_equal", "equal", "not_equal", "logical_not", "logical_and", "logical_or",
    "logical_xor", "reshape", "reshape_like", "expand_dims", "squeeze", "flatten2d", "identity", "shape", "transpose",
    "reverse", "reverse_sequence", "depth_to_space", "space_to_depth", "pixel_shuffle", "pixel_unshuffle",
    "space_to_batch", "batch_to_space", "concat", "stack", "split", "tile", "pad", "crop", "sliding_windows",
    "band_part", "fill_like", "one_hot", "slice_by_index", "slice_by_size", "slice_update", "gather", "gather_nd",
    "gather_along_axis", "reduce_max", "reduce_min", "reduce_argmax", "reduce_argmin", "max_pool", "topk", "argsort",
    "upsample_nearest_neighbor", "resize_nearest_neighbor", "cast", "constexpr_lut_to_dense",
    "constexpr_sparse_to_dense", "constexpr_cast", "constexpr_lut_to_sparse", "fill", "range_1d",
}  # fmt: skip
DISCRETE = {"quantize", "floor_div", "mod"}
BLOCKS = {"cond", "while_loop"}
RANDOM = {"random_uniform", "random_normal", "random_bernoulli", "random_categorical"}
CELLS = {"lstm", "gru", "rnn"}  # errors add up from step to step
# which of equal elements comes first, and which are equal, depends on how they were rounded: compared op by op only
ORDER = {"topk", "argsort", "reduce_argmax", "reduce_argmin", "equal", "not_equal"}
FIXED = {"source_val", "start", "end", "step"}  # constants that the kind or the shape of a result depends on
PLACES = {"coordinates", "transform_matrix"}  # where to sample is computed in float32


class Wrong(AssertionError):
    """A program gave something else; ``value`` is the name of it, if it is one value's."""

    def __init__(self, message: str, value: str | None = None) -> None:
        super().__init__(message)
        self.value = value


@dataclass
class Count:
    programs: int = 0
    ops: int = 0
    elements: int = 0
    compared: int = 0


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """coremltools' advice is not about us."""
    log = logging.getLogger("coremltools")
    before = log.level
    log.setLevel(logging.ERROR)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            yield
        finally:
            log.setLevel(before)


@contextlib.contextmanager
def threads(n: int) -> Iterator[None]:
    before = _native.get_num_threads()
    _native.set_num_threads(n)
    try:
        yield
    finally:
        _native.set_num_threads(before)


def check(graph: Graph, seed: int = 0, count: Count | None = None) -> None:
    """Raise Wrong if this program gives anything but what it should, one way or another."""
    count = count or Count()
    with quiet():
        check_whole(graph, seed, count, check_strict(graph, seed, count))
    count.programs += 1
    count.ops += len(graph.steps)


# ---- strict: op by op, and the same bytes everywhere ----------------------------------------


def check_strict(graph: Graph, seed: int, count: Count) -> dict[str, np.ndarray]:
    """The random numbers that were drawn, by name."""
    names = [name for step in graph.steps for name in step.results]
    program = build(graph, names)
    compiled = anex.compile(program, device="cpu")
    function, takes = program.functions["main"], {**compiled.inputs, **compiled.states}

    best, *others = isas = _native.instruction_sets()
    plans = {isa: lower(function, takes, compiled.outputs, isa, strict=True) for isa in isas}
    names += graph.states

    def run(isa: str, workers: int) -> list[np.ndarray]:
        states = [anex.tensor(graph.states[name]) for name in compiled.states]
        with threads(workers):
            found = plans[isa].run((*graph.inputs.values(), *states))
        after = dict(zip(compiled.states, states, strict=True))
        found = found if isinstance(found, tuple) else (found,)
        return [np.array(t) for t in (*found, *(after[name] for name in graph.states))]

    first = run(best, 1)
    runs = [*((best, n) for n in THREADS[1:]), *((isa, n) for isa in others for n in THREADS[:2])]
    for isa, workers in runs:
        for name, left, right in zip(names, first, run(isa, workers), strict=True):
            if not same_bits(left, right):
                raise Wrong(f"{name}: {isa} with {workers} threads gives other bits than {best} with 1:"
                            f" {difference(left, right)}", name)  # fmt: skip
    found = dict(zip(names, first, strict=True))
    values, rng = {**graph.inputs, **found, **graph.states}, np.random.default_rng(seed)
    for step in graph.steps:
        check_step(step, graph.opset, values, rng, count)
        remember(step, values)
    for name in graph.states:
        if not same_bits(found[name], values[name]):
            raise Wrong(f"state {name} is not what was written last: {difference(found[name], values[name])}")
    return {name: values[name] for step in graph.steps if step.op in RANDOM for name in step.results}


def check_step(step: Step, opset: str, values: dict[str, np.ndarray], rng: Any, count: Count) -> None:
    found = [values[name] for name in step.results]
    if step.op in RANDOM and (why := unlikely(step.op, found[0], resolve(step.arguments, values.__getitem__))):
        raise Wrong(f"{step.op} {step.name} drew {why}", step.name)
    if step.op in RANDOM:
        return
    wanted = evaluate(step.op, opset, resolve(step.arguments, values.__getitem__))
    moved = []
    if step.op not in EXACT:
        # the engine computes in float32, with polynomials and sums of its own order
        up = {name: rng.choice([-1.0, 1.0], values[name].shape) for name in step.reads()}
        unit = 2.0**-9 if step.op in DISCRETE else 2.0**-22
        for sign in (-1, 1):
            given = resolve(step.arguments, nudged(values, up, sign * unit))
            moved.append(
                evaluate(step.op, opset, displaced(given, sign * 2.0**-23, 0))
            )  # less: it cannot undo the first
    for i, (name, y) in enumerate(zip(step.results, found, strict=True)):
        times = 128 if step.op in CELLS else 4 if step.op in BLOCKS else 16
        compare(f"{step.op} {name}", name, y, wanted[i], [m[i] for m in moved], times, count)


def nudged(values: dict[str, np.ndarray], up: dict[str, np.ndarray], unit: float) -> Callable[[str], np.ndarray]:
    def value(name: str) -> np.ndarray:
        v = values[name]
        return v.astype(np.float64) * (1 + unit * up[name]) if v.dtype.kind == "f" else v

    return value


def displaced(arguments: dict[str, Any], unit: float, seed: int) -> dict[str, Any]:
    """The arguments with floating constants moved too, each its own way."""
    rng, moved = np.random.default_rng(seed), {}
    for name, v in arguments.items():
        if isinstance(v, Bound):
            moved[name] = replace(v, moved=inside(rng, v.block.half)) if unit else v
            continue
        floating = isinstance(v, (np.ndarray, np.floating)) and v.dtype.kind == "f" and name not in FIXED
        by = unit * (4 if name in PLACES else 1) * rng.choice([-1.0, 1.0], np.shape(v)) if floating and unit else None
        moved[name] = v if by is None else (np.asarray(v, np.float64) * (1 + by))[()]
    return moved


def inside(rng: Any, half: bool) -> Callable[[Any], Any]:
    """Moves what is computed in a block by two units: nobody sees how it was rounded."""
    unit = 2 * UNIT["float16" if half else "float32"]

    def move(value: Any) -> Any:
        value = np.asarray(value)
        return value * (1 + unit * rng.choice([-1.0, 1.0], value.shape)) if value.dtype.kind == "f" else value

    return move


# ---- as users run it ------------------------------------------------------------------------


def check_whole(graph: Graph, seed: int, count: Count, drawn: dict[str, np.ndarray]) -> None:
    """``drawn``: the random numbers, which are the same here."""
    rng = np.random.default_rng(seed)
    names = [name for step in graph.steps for name in step.results]
    sinks = set(graph.sinks())
    wanted = [name for name in names if name in sinks or rng.random() < 0.15]
    program = anex.compile(build(graph, wanted), device="cpu")

    def run() -> dict[str, np.ndarray]:
        state = program.make_state() if graph.states else None
        for name, value in graph.states.items():
            np.asarray(state[name])[...] = value
        result = program(*graph.inputs.values(), state=state)
        found = zip(wanted, result if isinstance(result, tuple) else (result,), strict=True)
        return {name: np.array(y) for name, y in (*found, *((name, state[name]) for name in graph.states))}

    found = run()
    with threads(1):
        again = run()
    for name, y in found.items():
        if not same_bits(y, again[name]):
            raise Wrong(f"{name}: one thread gives other bits", name)
    exact = follow(graph, None, 0, drawn)
    moved = []
    if graph.wild:  # where it overflows depends on what was fused
        return
    unsure: set[str] = set()
    for step in graph.steps:
        if step.op in ORDER or unsure.intersection(step.reads()):
            unsure.update(name for name in step.results if exact[name].dtype.kind != "f")
    pairs = 8 if any(step.op in DISCRETE for step in graph.steps) else 3  # of many values, some are near an edge
    for pair in range(pairs):
        for sign in (-1, 1):
            moved.append(follow(graph, np.random.default_rng(seed + pair), sign, drawn))
    for name in found:
        if found[name].shape != exact[name].shape:
            raise Wrong(f"{name} of the whole: shape {found[name].shape}, not {exact[name].shape}", name)
        if name in unsure:
            continue
        compare(f"{name} of the whole", name, found[name], exact[name], [m[name] for m in moved], 8, count)


def follow(graph: Graph, rng: Any, sign: int, drawn: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """The reference of every value; with ``rng``, each float moved by a few units of its dtype."""
    values: dict[str, np.ndarray] = {**graph.inputs, **graph.states}
    unit = {name: UNIT.get(v.dtype.name, 0) for name, v in values.items()}
    for step in graph.steps:
        given = resolve(step.arguments, values.__getitem__)
        results = evaluate(step.op, graph.opset, displaced(given, sign * 2.0**-22, len(values)))
        coarsest = max([unit[name] for name in step.reads()], default=0) or UNIT["float16"]
        for name, y in zip(step.results, results, strict=True):
            unit[name] = UNIT["float16"] if step.arguments.get("dtype") == "fp16" else coarsest
            if rng is not None and y.dtype.kind == "f":
                with np.errstate(all="ignore"):
                    least = 2.0**-24 if unit[name] == UNIT["float16"] else 2.0**-126
                    y = y + (y * unit[name] + (y != 0) * least) * (3 * sign * rng.choice([-1.0, 1.0], y.shape))
            values[name] = drawn.get(name, y)
        remember(step, values)
    return values


# ---- comparing ------------------------------------------------------------------------------


def compare(what: str, name: str, found: np.ndarray, wanted: np.ndarray, moved: list[np.ndarray], times: float,
            count: Count) -> None:  # fmt: skip
    """``moved``: the reference for other operands, near these. None: the result is exact."""
    if found.shape != wanted.shape:
        raise Wrong(f"{what}: shape {found.shape}, not {wanted.shape}", name)
    count.elements += found.size
    if found.dtype.kind != "f":
        stable = np.ones(found.shape, bool)
        for other in moved:
            stable &= other == wanted
        count.compared += int(stable.sum())
        if (bad := stable & (found != wanted)).any():
            raise Wrong(f"{what}: {describe(found, wanted, bad)}", name)
        return
    with np.errstate(all="ignore"):
        y = wanted.astype(np.float64)
        narrow = y.astype(found.dtype).astype(np.float64)
        y = np.where(np.isfinite(narrow), y, narrow)
        spread = np.zeros(y.shape)
        for other in moved:
            spread = np.maximum(spread, np.abs(other - wanted))
        unit, least = UNIT[found.dtype.name], LEAST[found.dtype.name]
        if moved:
            typical = float(np.nanmean(np.where(np.isfinite(spread), spread, np.nan))) if spread.size else 0
            allowed = (1.01 * unit + 4 * UNIT["float32"]) * np.abs(y) + least + times * (spread + typical)
        else:
            allowed = np.where(y == narrow, 0, unit * np.abs(y) * 1.01 + least)
        known = np.isfinite(y) & np.isfinite(spread)
        stable = known & (allowed <= 0.05 * np.abs(y).max(initial=0, where=known) + 64 * least)
        off = np.abs(found.astype(np.float64) - y)
        bad = stable & ~(off <= allowed)
        strange = ~np.isfinite(y) & ~moved_away(y, moved)
        bad |= strange & ~((found.astype(np.float64) == y) | (np.isnan(y) & np.isnan(found)))
    count.compared += int((stable | strange).sum())
    if bad.any():
        worst = float((off[bad] / np.maximum(allowed[bad], 1e-300)).max())
        raise Wrong(f"{what}: {describe(found, y, bad)}; {worst:.1f} times what is allowed", name)


def moved_away(y: np.ndarray, moved: list[np.ndarray]) -> np.ndarray:
    """Where an infinity or NaN is not one for operands nearby."""
    away = np.zeros(y.shape, bool)
    for other in moved:
        away |= ~((other == y) | (np.isnan(other) & np.isnan(y)))
    return away


def describe(found: np.ndarray, wanted: np.ndarray, bad: np.ndarray) -> str:
    where = np.flatnonzero(bad.reshape(-1))
    some = [f"{found.reshape(-1)[i]!s} not {wanted.reshape(-1)[i]!s} at {i}" for i in where[:4]]
    return f"{len(where)} of {found.size} {found.dtype} elements wrong: {', '.join(some)}"
