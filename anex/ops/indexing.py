"""Slices, gathers and scatters: what they do not choose they do not read."""

from __future__ import annotations

from . import indexing_vjp as back
from .acceptance import SWEPT, conditional, native_but_refused, refused
from .gradient import COMPARES
from .limits import ON_M1, SLICE
from .record import define, indexed, nbytes, outputs_twice, per_input_element

GATHER = "slice and concatenate for constant indices, multiply by one-hot rows, or look up on the host"

define(
    "slice_by_index",
    bytes=outputs_twice,
    ane=[conditional("exact from M4 on; strides are taken", SWEPT, "FRG"), *SLICE, ON_M1],
    vjp=back.slice_by_index,
)
define(
    "non_zero",
    flops=per_input_element(1),
    bytes=lambda op: nbytes(op.inputs["x"]),  # and as many rows as it finds
    ane=[refused(fix="find them on the host")],
    vjp=COMPARES,
)
define(
    "slice_by_size",
    bytes=outputs_twice,
    ane=[conditional("exact from M4 on", SWEPT, "FRG"), *SLICE, ON_M1],
    vjp=back.slice_by_size,
)
define("slice_update", ane=[native_but_refused(fix="concatenate what stays with what is new")], vjp=back.slice_update)
define(
    "gather",
    bytes=indexed,
    ane=[conditional("contested", SWEPT, "FRG", "S04"), native_but_refused(fix=GATHER)],
    vjp=back.gather,
)
define("gather_along_axis", bytes=indexed, ane=[native_but_refused(fix=GATHER)], vjp=back.gather_along_axis)
define("gather_nd", bytes=indexed, ane=[native_but_refused(fix=GATHER)], vjp=back.gather_nd)
define("scatter", ane=[refused()], vjp=back.scatter)
define("scatter_along_axis", ane=[refused()], vjp=back.scatter_along_axis)
define("scatter_nd", ane=[refused()], vjp=back.scatter_nd)
