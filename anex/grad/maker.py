"""coremltools' builder as gradient rules see it: ops get names that say whose gradient they are, and are noted."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

from ..ops.record import dtype_name, shape

if TYPE_CHECKING:
    from coremltools.converters.mil.mil import Operation


class Maker:
    """``Maker().add(x=x, y=2.0)`` is ``mb.add``; what is made within ``noting()`` is listed."""

    def __init__(self) -> None:
        self.where = "grad"
        self._noted: list[list[Operation]] = []

    def __getattr__(self, op_type: str) -> Callable[..., Any]:
        from coremltools.converters.mil.mil import Builder

        def make(**arguments: Any) -> Any:
            arguments.setdefault("name", Builder._get_free_name(f"{self.where}_{op_type}"))
            result = getattr(Builder, op_type)(**arguments)
            op = (result[0] if isinstance(result, (list, tuple)) else result).op
            for noted in self._noted:
                noted.append(op)
            return result

        return make

    @contextlib.contextmanager
    def noting(self) -> Iterator[list[Operation]]:
        noted: list[Operation] = []
        self._noted.append(noted)
        try:
            yield noted
        finally:
            self._noted.remove(noted)

    @contextlib.contextmanager
    def named(self, where: str) -> Iterator[None]:
        before, self.where = self.where, where
        try:
            yield
        finally:
            self.where = before


def fit(mb: Any, gradient: Any, shape_: tuple[int, ...], dtype: str) -> Any:
    """``gradient``, which may be broader, summed to the shape that was broadcast to make it; in ``dtype``.

    The one place where broadcasting is undone: rules need not know of it. A gradient of fewer elements than the
    shape has (of a sum, say) is broadcast.
    """
    have = shape(gradient)
    if len(have) > len(shape_):
        lead = len(have) - len(shape_)
        gradient = mb.reduce_sum(x=gradient, axes=list(range(lead)), keep_dims=False)
        have = have[lead:]
    elif len(have) < len(shape_):
        have = (1,) * (len(shape_) - len(have)) + have
        gradient = mb.reshape(x=gradient, shape=list(have))
    axes = [i for i, (a, b) in enumerate(zip(have, shape_, strict=True)) if b == 1 and a != 1]
    if axes:
        gradient = mb.reduce_sum(x=gradient, axes=axes, keep_dims=True)
        have = shape(gradient)
    if have != shape_:
        gradient = mb.tile(x=gradient, reps=[b // a for a, b in zip(have, shape_, strict=True)])
    return gradient if dtype_name(gradient) == dtype else mb.cast(x=gradient, dtype=dtype)
