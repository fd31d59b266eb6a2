"""Recurrent ops: the products of every step; the gates are small beside them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from . import recurrent_vjp as back
from .acceptance import refused
from .record import define, shape, size

if TYPE_CHECKING:
    from coremltools.converters.mil.mil import Operation

WEIGHTS = ("weight_ih", "weight_hh", "weight_ih_back", "weight_hh_back")


def recurrence(op: Operation) -> int:
    """x: [steps, batch, in]; every weight meets every step."""
    steps, batch = shape(op.inputs["x"])[:2]
    return 2 * steps * batch * sum(size(op.inputs[name]) for name in WEIGHTS if op.inputs.get(name) is not None)


define(
    "rnn",
    flops=recurrence,
    ane=[
        refused(
            "is recurrent, and the engine has no loop",
            fix="unroll it in products and activations, or run it on the host",
        )
    ],
    vjp=back.rnn,
)
define(
    "gru",
    flops=recurrence,
    ane=[
        refused(
            "is recurrent, and the engine has no loop",
            fix="unroll it in products and activations, or run it on the host",
        )
    ],
    vjp=back.gru,
)
define(
    "lstm",
    flops=recurrence,
    ane=[
        refused(
            "is recurrent, and the engine has no loop",
            fix="unroll it in products and activations, or run it on the host",
        )
    ],
    vjp=back.lstm,
)
