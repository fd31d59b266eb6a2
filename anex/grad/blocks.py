"""Building blocks of training programs, for use where a program is built (in ``anex.graph``, say)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from ..ops.record import dtype_name, shape

if TYPE_CHECKING:
    from coremltools.converters.mil.mil import Var


def global_norm(values: Sequence[Var], *, mb: Any = None) -> Var:
    """The square root of the sum of all squares of all ``values``, summed in float32: (1,) float32."""
    mb = _builder(mb)
    total = None
    for value in values:
        wide = value if dtype_name(value) == "fp32" else mb.cast(x=value, dtype="fp32")
        part = mb.reduce_sum_square(x=wide, axes=list(range(len(shape(value)))), keep_dims=True)
        part = mb.reshape(x=part, shape=[1])
        total = part if total is None else mb.add(x=total, y=part)
    norm: Var = mb.sqrt(x=total)
    return norm


def clip_by_global_norm(
    values: Sequence[Var], limit: float, *, loss_scale: Var | float | None = None, mb: Any = None
) -> tuple[list[Var], Var]:
    """``values`` times min(1, limit / their global norm), and that norm, (1,) float32.

    ``loss_scale``: what the values are multiplied by; the norm is of the values without it. They keep it.
    """
    mb = _builder(mb)
    norm = global_norm(values, mb=mb)
    if loss_scale is not None:
        norm = mb.real_div(x=norm, y=loss_scale)
    factor = mb.real_div(x=float(limit), y=mb.maximum(x=norm, y=float(limit)))
    clipped = []
    for value in values:
        own = factor if dtype_name(value) == "fp32" else mb.cast(x=factor, dtype=dtype_name(value))
        clipped.append(mb.mul(x=value, y=mb.reshape(x=own, shape=[1] * max(1, len(shape(value))))))
    return clipped, norm


def _builder(mb: Any) -> Any:
    from coremltools.converters.mil.mil import Builder

    return Builder if mb is None else mb
