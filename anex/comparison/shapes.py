"""Programs whose inputs have no fixed shape, given one: the inputs' own, or the default that the file names."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from .._coremltools import coremltools
from ..devices.stepwise import is_static
from ..errors import ShapeError, UnsupportedError
from .runs import copied

if TYPE_CHECKING:
    from coremltools.converters.mil.mil import Program

Shapes = Mapping[str, "tuple[int, ...]"]


def fixed(program: Program, shapes: Shapes, function: str = "main") -> Program:
    """``program`` itself where its inputs have fixed shapes; otherwise a copy with those of ``shapes``.

    Raises ``ShapeError`` for an input of flexible shape that ``shapes`` says nothing of, or of another rank.
    """
    chosen = program.functions.get(function) or next(iter(program.functions.values()))
    flexible = [name for name, var in chosen.inputs.items() if not is_static(var)]
    if not flexible:
        return program
    if missing := [name for name in flexible if name not in shapes]:
        raise ShapeError(
            f"input {', '.join(missing)} has no fixed shape, and no default is known; give inputs of the shape you mean"
        )
    wanted = {name: tuple(map(int, shapes[name])) for name in flexible}
    for name, dims in wanted.items():
        there = chosen.inputs[name].shape
        if len(dims) != len(there) or any(
            isinstance(n, int) and n != given for n, given in zip(there, dims, strict=True)
        ):
            raise ShapeError(f"input {name!r}: the shape {dims} does not fit {tuple(map(str, there))}")
    copy = copied(program, function)
    with coremltools():
        from coremltools.converters.mil.mil.passes.graph_pass import PassOption
        from coremltools.converters.mil.mil.passes.pass_registry import PASS_REGISTRY

        fix = PASS_REGISTRY["common::materialize_symbolic_shape_program"]
        fix.set_options([PassOption("function_name_to_materialization_map", {"main": wanted})])
        try:
            fix.apply(copy)
        except Exception as error:  # anything: it builds the ops again
            raise UnsupportedError(f"with the shapes {wanted} the program cannot be built: {error}") from error
    return copy
