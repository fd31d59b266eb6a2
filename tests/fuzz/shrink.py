"""The smallest program that still fails, and its MIL text."""

from __future__ import annotations

import copy

import numpy as np

import anex

from .check import Wrong, check, quiet
from .graph import DTYPES, Graph, build
from .maker import Maker


def failure(graph: Graph, seed: int) -> Exception | None:
    """What is wrong with a program; None: nothing, or it is no program."""
    try:
        check(graph, seed)
    except (Wrong, anex.Error) as error:
        return error
    except Exception:  # coremltools' or the reference's: cut too far
        return None
    return None


def shrink(graph: Graph, maker: Maker, seed: int) -> tuple[Graph, Exception | None]:
    """Fewer and fewer steps, as long as it fails."""
    error = failure(graph, seed)
    value = getattr(error, "value", None)
    candidates = [graph.needed([value])] if value else []
    for i in range(len(graph.steps) - 1, 0, -1):
        candidates.append(graph.needed([name for step in graph.steps[:i] for name in step.results]))
    for smaller in candidates:
        if (found := failure(smaller, seed)) is not None and len(smaller.steps) < len(graph.steps):
            graph, error = smaller, found
    shrunk = True
    while shrunk:
        shrunk = False
        for step in graph.steps:
            smaller = without(graph, step.name, maker)
            if smaller and (found := failure(smaller, seed)) is not None:
                graph, error, shrunk = smaller, found, True
                break
    return graph, error


def without(graph: Graph, name: str, maker: Maker) -> Graph | None:
    """The program with a step's results as inputs instead; None if they cannot be."""
    smaller = copy.copy(graph)
    smaller.inputs, smaller.steps = dict(graph.inputs), [step for step in graph.steps if step.name != name]
    read = {n for step in smaller.steps for n in step.reads()}
    for result in next(step for step in graph.steps if step.name == name).results:
        value = maker.values[result]
        if result in read and (not value.ndim or any(result in w.results for w in maker.weights)):
            return None
        if result in read:
            smaller.inputs[result] = np.asarray(value).astype(DTYPES[maker.dtypes[result]])
    if not smaller.steps:
        return None
    return smaller.needed([n for step in smaller.steps for n in step.results])


def text(graph: Graph) -> str:
    """MIL text of a program; the steps as they were made if there is none."""
    try:
        with quiet():
            return anex.compile(build(graph, graph.sinks()), device="cpu").mil
    except Exception as error:
        return "\n".join(map(str, graph.steps)) + f"\n(no MIL text: {error})"
