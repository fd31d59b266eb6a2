"""A program as data: inputs with their values, and steps that name what they read."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import coremltools as ct
import numpy as np
from coremltools.converters.mil.mil import Builder as mb
from coremltools.converters.mil.mil import Function, Program, types

DTYPES = {
    "fp16": np.float16, "fp32": np.float32, "int32": np.int32, "bool": np.bool_,
    "int8": np.int8, "uint8": np.uint8, "int16": np.int16, "uint16": np.uint16,
}  # fmt: skip
MIL_NAMES = {np.dtype(dtype): name for name, dtype in DTYPES.items()}


@dataclass(frozen=True)
class Ref:
    """A value, by its name."""

    name: str


@dataclass
class Step:
    """One op. Arguments: a Ref, a list of them, or a constant; results are named name, or name_0, name_1, ..."""

    op: str
    name: str
    arguments: dict[str, Any]
    results: tuple[str, ...] = ()

    def reads(self) -> list[str]:
        values = [v for argument in self.arguments.values() for v in (argument if is_list(argument) else [argument])]
        return [v.name for v in values if isinstance(v, Ref)]


@dataclass
class Graph:
    inputs: dict[str, np.ndarray] = field(default_factory=dict)
    steps: list[Step] = field(default_factory=list)
    opset: str = "iOS18"
    wild: bool = False  # with infinities and NaN among the inputs

    def needed(self, wanted: Iterable[str]) -> Graph:
        """Only what these values depend on."""
        names, steps = set(wanted), []
        for step in reversed(self.steps):
            if names & set(step.results):
                names |= set(step.reads())
                steps.append(step)
        return Graph({n: v for n, v in self.inputs.items() if n in names}, steps[::-1], self.opset, self.wild)

    def sinks(self) -> list[str]:
        """Results that nobody reads."""
        read = {name for step in self.steps for name in step.reads()}
        return [name for step in self.steps for name in step.results if name not in read]


def is_list(argument: Any) -> bool:
    return isinstance(argument, list) and bool(argument) and any(isinstance(v, Ref) for v in argument)


def resolve(arguments: Mapping[str, Any], value: Callable[[str], Any]) -> dict[str, Any]:
    """The arguments with Refs replaced by what ``value`` says of their names."""

    def one(argument: Any) -> Any:
        return value(argument.name) if isinstance(argument, Ref) else argument

    return {name: [one(v) for v in a] if is_list(a) else one(a) for name, a in arguments.items()}


def mil_type(dtype: Any) -> Any:
    return types.type_mapping.numpy_type_to_builtin_type(np.dtype(dtype))


def placeholders(inputs: Mapping[str, Any]) -> dict[str, Any]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return {
            name: mb.placeholder(v.shape, dtype=mil_type(v.dtype), allow_rank0_input=True) for name, v in inputs.items()
        }


def add(step: Step, value: Callable[[str], Any]) -> list[Any]:
    """Build the step in the function that is open; the variables it gives."""
    result = getattr(mb, step.op)(**resolve(step.arguments, value), name=step.name)
    return list(result) if isinstance(result, (list, tuple)) else [result]


def build(graph: Graph, outputs: Iterable[str]) -> Program:
    """The MIL program that gives these values."""
    program = Program()
    with Function(placeholders(graph.inputs), ct.target[graph.opset]) as function:
        made = dict(function.inputs)
        for step in graph.steps:
            made.update(zip(step.results, add(step, made.__getitem__), strict=True))
        for name in outputs:
            made[name].set_name(name)
        function.set_outputs([made[name] for name in outputs])
    program.add_function("main", function)
    return program
