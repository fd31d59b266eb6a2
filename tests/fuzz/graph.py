"""A program as data: inputs with their values, and steps that name what they read."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any

import coremltools as ct
import numpy as np
from coremltools.converters.mil.mil import Builder as mb
from coremltools.converters.mil.mil import Function, Program, types

DTYPES = {
    "fp16": np.float16, "fp32": np.float32, "int32": np.int32, "bool": np.bool_,
    "int8": np.int8, "uint8": np.uint8, "int16": np.int16, "uint16": np.uint16,
}  # fmt: skip
# these give a mask and what it leaves, which nothing but the op that makes them dense may read: both are one step
SPARSE = {"constexpr_lut_to_sparse", "constexpr_sparse_blockwise_shift_scale"}
MIL_NAMES = {np.dtype(dtype): name for name, dtype in DTYPES.items()}


@dataclass(frozen=True)
class Ref:
    """A value, by its name."""

    name: str


@dataclass
class Step:
    """One op. Arguments: a Ref, a list of them, a Block or a constant; results are named name, or name_0, name_1, …"""

    op: str
    name: str
    arguments: dict[str, Any]
    results: tuple[str, ...] = ()

    def reads(self) -> list[str]:
        values = [v for argument in self.arguments.values() for v in (argument if is_list(argument) else [argument])]
        inner = [name for v in values if isinstance(v, Block) for name in v.reads()]
        return [v.name for v in values if isinstance(v, Ref)] + inner


@dataclass
class Block:
    """What a branch or the body of a loop computes, of its parameters and of values around it."""

    parameters: tuple[str, ...]
    steps: list[Step]
    results: list[Ref]
    half: bool = False  # something in it is rounded to float16

    def reads(self) -> list[str]:
        """The values around it."""
        made = {*self.parameters, *(name for step in self.steps for name in step.results)}
        read = [name for step in self.steps for name in step.reads()] + [ref.name for ref in self.results]
        return [name for name in dict.fromkeys(read) if name not in made]


@dataclass
class Bound:
    """A block, and what the values around it are."""

    block: Block
    value: Callable[[str], Any]
    moved: Callable[[Any], Any] = lambda value: value  # what becomes of each result in it

    def run(self, given: Iterable[Any], do: Callable[[Step, Callable[[str], Any]], Iterable[Any]]) -> list[Any]:
        known = dict(zip(self.block.parameters, given, strict=True))

        def value(name: str) -> Any:
            return known[name] if name in known else self.value(name)

        for step in self.block.steps:
            known.update(zip(step.results, map(self.moved, do(step, value)), strict=True))
        return [value(ref.name) for ref in self.block.results]


@dataclass
class Graph:
    inputs: dict[str, np.ndarray] = field(default_factory=dict)
    steps: list[Step] = field(default_factory=list)
    opset: str = "iOS18"
    wild: bool = False  # with infinities and NaN among the inputs
    states: dict[str, np.ndarray] = field(default_factory=dict)  # as they are before the program runs

    def needed(self, wanted: Iterable[str]) -> Graph:
        """Only what these values depend on."""
        names, steps = set(wanted), []
        for step in reversed(self.steps):
            if names & set(step.results):
                names |= set(step.reads())
                steps.append(step)
        inputs, states = ({n: v for n, v in given.items() if n in names} for given in (self.inputs, self.states))
        return Graph(inputs, steps[::-1], self.opset, self.wild, states)

    def sinks(self) -> list[str]:
        """Results that nobody reads."""
        read = {name for step in self.steps for name in step.reads()}
        return [name for step in self.steps for name in step.results if name not in read]


def is_list(argument: Any) -> bool:
    return isinstance(argument, list) and bool(argument) and any(isinstance(v, Ref) for v in argument)


def resolve(arguments: Mapping[str, Any], value: Callable[[str], Any]) -> dict[str, Any]:
    """The arguments with Refs replaced by what ``value`` says of their names, and Blocks bound to it."""

    def one(argument: Any) -> Any:
        if isinstance(argument, Block):
            return Bound(argument, value)
        return value(argument.name) if isinstance(argument, Ref) else argument

    return {name: [one(v) for v in a] if is_list(a) else one(a) for name, a in arguments.items()}


def mil_type(dtype: Any) -> Any:
    return types.type_mapping.numpy_type_to_builtin_type(np.dtype(dtype))


def placeholders(inputs: Mapping[str, Any], states: Mapping[str, Any] = MappingProxyType({})) -> dict[str, Any]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        made = {n: mb.placeholder(v.shape, dtype=mil_type(v.dtype), allow_rank0_input=True) for n, v in inputs.items()}
        kept = {n: mb.state_tensor_placeholder(v.shape, dtype=mil_type(v.dtype)) for n, v in states.items()}
        return made | kept


def add(step: Step, value: Callable[[str], Any]) -> list[Any]:
    """Build the step in the function that is open; the variables it gives."""
    arguments = {name: traced(given) for name, given in resolve(step.arguments, value).items()}
    if step.op in SPARSE:
        mask, values = getattr(mb, step.op)(**arguments)
        return [mb.constexpr_sparse_to_dense(nonzero_data=values, mask=mask, name=step.name)]
    result = getattr(mb, step.op)(**arguments, name=step.name)
    return list(result) if isinstance(result, (list, tuple)) else [result]


def traced(argument: Any) -> Any:
    """A bound block as the function that coremltools calls to build it."""
    if not isinstance(argument, Bound):
        return argument

    def function(*given: Any) -> Any:
        results = argument.run(given, add)
        return results[0] if len(results) == 1 else tuple(results)

    return function


def build(graph: Graph, outputs: Iterable[str]) -> Program:
    """The MIL program that gives these values."""
    program = Program()
    with Function(placeholders(graph.inputs, graph.states), ct.target[graph.opset]) as function:
        made = dict(function.inputs)
        for step in graph.steps:
            made.update(zip(step.results, add(step, made.__getitem__), strict=True))
        for name in outputs:
            made[name].set_name(name)
        function.set_outputs([made[name] for name in outputs])
    program.add_function("main", function)
    return program


def remember(step: Step, values: dict[str, Any]) -> None:
    """What a step leaves in its state, where ``values`` are what is known after it."""
    if step.op == "coreml_update_state":
        values[step.arguments["state"].name] = values[step.results[0]]
