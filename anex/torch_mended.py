"""What coremltools' torch frontend makes into something else than torch computes, made right where the builder builds
it (or in torch: ``torch_plain``)."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from coremltools.converters.mil.mil import Var


def faithful(mb: Any, op: Any, arguments: dict[str, Any]) -> Var | None:
    """The op made of others, under its name; None where the frontend does right."""
    make = FAITHFUL.get(op.__name__)
    return None if make is None else make(mb, **arguments)


def _sub(mb: Any, x: Any, y: Any, **rest: Any) -> Var | None:
    """``x - constant`` as ``x + (-constant)``: a pass that fuses it with a convolution negates the constant in place,
    for all who have it, the torch module among them."""
    if varies(y) or not varies(x):
        return None
    constant = value(y)
    if not isinstance(constant, np.ndarray) or constant.dtype.kind != "f" or constant.size <= 1:
        return None
    made: Var = mb.add(x=x, y=-constant, **rest)
    return made


def _inverse(mb: Any, x: Any, epsilon: Any = None, **rest: Any) -> Var | None:
    """torch's 1 / x adds no epsilon; Core ML's adds 1e-4 unless told, 0.1 % at 0.1."""
    return None if epsilon is not None else mb.real_div(x=1.0, y=x, **rest)


def _matmul(mb: Any, x: Any, y: Any, name: str = "", **rest: Any) -> Var | None:
    """A vector on the right is a matrix of one column; coremltools knows none there."""
    if len(y.shape) != 1:
        return None
    column = mb.expand_dims(x=y, axes=[1])
    if len(x.shape) > 1:
        return mb.squeeze(x=mb.matmul(x=x, y=column, **rest), axes=[-1], name=name)
    row = mb.expand_dims(x=x, axes=[0])
    return mb.squeeze(x=mb.matmul(x=row, y=column, **rest), axes=[0, 1], name=name)


def _arg(op: str) -> Callable[..., Any]:
    def make(mb: Any, x: Any, axis: Any = None, keep_dims: Any = False, name: str = "") -> Var | None:
        """Without an axis torch counts through all elements; Core ML takes the last axis then."""
        if value(axis) is not None or len(x.shape) == 1:
            return None
        found = getattr(mb, op)(x=mb.reshape(x=x, shape=[-1]), axis=0, keep_dims=True)
        if value(keep_dims):
            return mb.reshape(x=found, shape=[1] * len(x.shape), name=name)
        return mb.squeeze(x=found, axes=[0], name=name)

    return make


def value(given: Any) -> Any:
    return given.val if hasattr(given, "val") else given


def varies(given: Any) -> bool:
    from coremltools.converters.mil.mil import Var

    return isinstance(given, Var) and given.val is None


FAITHFUL: dict[str, Callable[..., Any]] = {
    "sub": _sub, "inverse": _inverse, "matmul": _matmul,
    "reduce_argmax": _arg("reduce_argmax"), "reduce_argmin": _arg("reduce_argmin"),
}  # fmt: skip
