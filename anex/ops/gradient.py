"""What ``define(..., vjp=...)`` holds: how the gradient goes back through an op, or why it does not.

A rule is a function ``rule(mb, use, dy)``. ``mb`` is coremltools' builder, where Python's numbers take the dtype of
the tensors beside them; ``use`` the op as it stands in the program; ``dy`` the gradient of its output, of the
output's shape and dtype (a list, None where nobody asks, of an op with several). It returns, for each input that
it has a gradient for, a function that makes it: what nobody asks for is never built. A gradient may be broader
than its input, where the op broadcasts: it is summed, and brought to the input's dtype, by whoever asked for it.
"""

from __future__ import annotations

import contextlib
import functools
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np

if TYPE_CHECKING:
    from coremltools.converters.mil.mil import Operation, Var

Thunk: TypeAlias = Callable[[], Any]  # a Var, or of a variadic input a list of Vars or of functions that make them
Rule: TypeAlias = Callable[[Any, "Use", Any], Mapping[str, Thunk]]


@dataclass(frozen=True)
class NoGradient:
    """Why an op has no rule. ``is_zero``: its gradient is zero (or nowhere defined) for every input, and is left out;
    otherwise a program that needs it is refused with this reason."""

    reason: str
    is_zero: bool = True


@dataclass(frozen=True)
class ByParts:
    """The op in terms of others, through which the gradient goes: ``make(mb, use)`` gives its outputs.

    Built a second time for the way back: for ops that are cheap, or rare.
    """

    make: Callable[[Any, Use], Any]


@dataclass(frozen=True)
class ByBlocks:
    """An op of blocks: the gradient goes back through the one that ran, inside a block of its own."""


Vjp: TypeAlias = "Rule | NoGradient | ByParts | ByBlocks"

INTEGER = NoGradient("computes with integers or truth values, which have no gradient")
CONSTANT = NoGradient("its operands are constants, which have no gradient")
STEPS = NoGradient("is constant but for steps: its gradient is zero wherever it has one")
RANDOM = NoGradient("its values are random and follow from no tensor")
COMPARES = NoGradient("chooses by comparing: what it gives are indices")


class Use:
    """One use of an op, in the program that is being built: its operands by name, its outputs, its constants."""

    def __init__(self, op: Operation, resolve: Callable[[Var], Var]) -> None:
        self.op, self._resolve = op, resolve

    @property
    def op_type(self) -> str:
        return str(self.op.op_type)

    def __getitem__(self, name: str) -> Any:
        """The operand ``name``: a Var, a list of them, or None where it is left out."""
        given = self.op.inputs.get(name)
        if isinstance(given, (list, tuple)):
            return [self._resolve(var) for var in given]
        return None if given is None else self._resolve(given)

    def given(self, name: str) -> bool:
        return self.op.inputs.get(name) is not None

    def shape(self, name: str) -> tuple[int, ...]:
        """The shape of an operand, without asking for its values."""
        return tuple(map(int, self.op.inputs[name].shape))

    def shapes(self, name: str) -> list[tuple[int, ...]]:
        return [tuple(map(int, var.shape)) for var in self.op.inputs[name]]

    def value(self, name: str, otherwise: Any = None) -> Any:
        """A constant operand's value."""
        var = self.op.inputs.get(name)
        return otherwise if var is None or var.val is None else var.val

    def is_constant(self, name: str) -> bool:
        """Whether the operand was known when the program was built, or is left out."""
        var = self.op.inputs.get(name)
        return var is None or var.val is not None

    def output(self, i: int = 0) -> Any:
        """What the op made."""
        return self._resolve(self.op.outputs[i])

    @property
    def output_shape(self) -> tuple[int, ...]:
        return tuple(map(int, self.op.outputs[0].shape))

    def __str__(self) -> str:
        return f"{self.op_type} {self.op.name!r}"


def once(make: Callable[[], Any]) -> Callable[[], Any]:
    """A part that several gradients share: made at the first call."""
    return functools.cache(make)


def numpy_dtype(var: Var) -> Any:
    """float16 or float32."""
    from coremltools.converters.mil.mil import types

    return np.dtype(types.nptype_from_builtin(var.dtype))


def constant_like(var: Var, value: Any) -> Any:
    """A constant in the dtype of ``var``."""
    return np.asarray(value).astype(numpy_dtype(var))[()]


MANY = 65536


def zeros_like(mb: Any, var: Var) -> Any:
    """Zeros of the shape and dtype of ``var``; many are made when the program runs, not kept in it."""
    shape = [int(n) for n in var.shape]
    if math.prod(shape) > MANY:
        with contextlib.suppress(ValueError, TypeError, AttributeError):  # fill_like came with iOS16
            return mb.fill_like(ref_tensor=var, value=constant_like(var, 0.0))
    return mb.const(val=np.zeros(shape, numpy_dtype(var)))
