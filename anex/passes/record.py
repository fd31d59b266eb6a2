"""What a pass is, and the few moves all of them make on coremltools' programs."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from ..ops.rule import FAMILIES

if TYPE_CHECKING:
    from coremltools.converters.mil.mil import Function, Operation, Program, Var


@dataclass(frozen=True)
class Pass:
    """A rewriting of MIL programs, in place. ``chips``: where it runs unless switched on by name."""

    name: str
    statement: str
    source: tuple[str, ...]
    apply: Callable[[Program], None]
    default: bool = True
    chips: tuple[str, ...] = FAMILIES


class Before:
    """coremltools' builder, whose ops stand before ``op``: ``Before(op).add(x=x, y=y)``."""

    def __init__(self, op: Operation | None) -> None:
        self.op = op

    def __getattr__(self, op_type: str) -> Callable[..., Any]:
        from coremltools.converters.mil.mil import Builder

        def add(**arguments: Any) -> Any:
            return getattr(Builder, op_type)(before_op=self.op, **arguments)

        return add


def rewrite(program: Program, *op_types: str, to: Callable[[Operation, Any], Var | None]) -> None:
    """Replace ops of these types by what ``to(op, builder)`` makes of them; None leaves one as it is."""
    for function in program.functions.values():
        with function:
            for op in list(function.operations):
                if op.op_type in op_types and op.outputs[0].val is None:
                    result = to(op, Before(op))
                    if result is not None:
                        replace(function, op, result)


def replace(function: Function, op: Operation, new: Var) -> None:
    """Let ``new`` stand for the result of ``op``, under its name, and drop ``op``."""
    old = op.outputs[0]
    name, returned = old.name, old in function.outputs
    function.replace_uses_of_var_after_op(anchor_op=op, old_var=old, new_var=new)
    function.remove_ops([op])
    if returned or new.op is not None:
        new.name = name


def replace_input(
    function: Function, old: Var, shape: tuple[int, ...], dtype: Any, inner: Callable[[Any, Var], Var]
) -> None:
    """Let the input ``old`` be of ``shape`` and ``dtype``; ``inner(builder, input)`` gives it its old form."""
    from coremltools.converters.mil.mil import Builder

    with function:
        placeholder = Builder.placeholder(shape=shape, dtype=dtype, name=old.name)
        new = placeholder.outputs[0]
        first = next(iter(function.operations), None)
        given = inner(Before(first), new)
        function.replace_uses_of_var_after_op(anchor_op=None, old_var=old, new_var=given)
        _set_inputs(function, {
            name: (new, placeholder) if var is old else (var, function.placeholder_inputs[name])
            for name, var in function.inputs.items()
        })  # fmt: skip


def replace_output(function: Function, old: Var, outer: Callable[[Any, Var], Var]) -> None:
    """Let ``outer(builder, old)`` be returned in the place of the output ``old``, under its name."""
    with function:
        new = outer(Before(None), old)
        name = old.name
        function.set_outputs([new if var is old else var for var in function.outputs])
        old.name, new.name = f"{name}_inner", name


def rename_input(function: Function, old: str, new: str) -> None:
    function.inputs[old].name = function.placeholder_inputs[old].name = new
    _set_inputs(function, {
        new if name == old else name: (var, function.placeholder_inputs[name]) for name, var in function.inputs.items()
    })  # fmt: skip


def _set_inputs(function: Function, inputs: dict[str, tuple[Var, Any]]) -> None:
    """Variables and placeholders by name; coremltools keeps them in two dicts."""
    function._input_dict = {name: var for name, (var, _) in inputs.items()}
    function.placeholder_inputs.clear()
    function.placeholder_inputs.update({name: placeholder for name, (_, placeholder) in inputs.items()})


def tensor_inputs(function: Function) -> Iterator[tuple[str, Var]]:
    """The inputs that are no states, by name."""
    from coremltools.converters.mil.mil import types

    yield from [(name, var) for name, var in function.inputs.items() if not types.is_state(var.sym_type)]


def like(var: Var, value: Any) -> Any:
    """A constant of the dtype of ``var``."""
    from coremltools.converters.mil.mil import types

    return np.asarray(value).astype(types.nptype_from_builtin(var.dtype))[()]


def is_float(var: Var) -> bool:
    from coremltools.converters.mil.mil import types

    return var.dtype in (types.fp16, types.fp32)


def apple(*names: str) -> Callable[[Program], None]:
    """coremltools' own passes, one after the other."""

    def apply(program: Program) -> None:
        from coremltools.converters.mil.mil.passes.pass_registry import PASS_REGISTRY

        for name in names:
            PASS_REGISTRY[name](program)

    return apply
