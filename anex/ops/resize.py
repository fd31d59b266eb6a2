"""Resizing and sampling of images."""

from __future__ import annotations

from typing import TYPE_CHECKING

from . import resize_vjp as back
from .acceptance import CATALOGUE, SWEPT, conditional, native_but_refused, since
from .record import define, outputs_twice, per_element, size, value

if TYPE_CHECKING:
    from coremltools.converters.mil.mil import Operation

BILINEAR = 9  # three interpolations a + t * (b - a)


def by_mode(op: Operation) -> int:
    """``resize`` says LINEAR or NEAREST_NEIGHBOR, ``resample`` and ``affine`` bilinear or nearest."""
    mode = str(value(op, "interpolation_mode") or value(op, "sampling_mode", "bilinear")).lower()
    return 0 if mode.startswith("nearest") else BILINEAR * size(op.outputs[0])


define(
    "upsample_nearest_neighbor",
    ane=[conditional("native from M2 on", SWEPT, "HOL: factors up to 2 under old Core ML")],
    vjp=back.upsample_nearest_neighbor,
)
define(
    "resize_nearest_neighbor",
    ane=[conditional("native from M2 on", SWEPT, CATALOGUE)],
    vjp=back.resize_nearest_neighbor,
)
define(
    "upsample_bilinear",
    flops=per_element(BILINEAR),
    ane=[conditional("native from M2 on", SWEPT, "HOL: factors up to 2 under old Core ML")],
    vjp=back.upsample_bilinear,
)
define(
    "resize_bilinear",
    flops=per_element(BILINEAR),
    ane=[conditional("native from M2 on", SWEPT, CATALOGUE)],
    vjp=back.resize_bilinear,
)
define("resize", flops=by_mode, ane=[conditional("native from M2 on", SWEPT, CATALOGUE)], vjp=back.resize)
define(
    "resample",
    flops=by_mode,
    ane=[conditional("by the texture engine", "FRG"), since("h14", fix="sample on the host")],
    vjp=back.resample,
)
define(
    "affine",
    flops=by_mode,
    ane=[conditional("by the texture engine", SWEPT, "FRG"), since("h14", fix="sample on the host")],
    vjp=back.affine,
)
define(
    "crop_resize",
    flops=per_element(BILINEAR),
    bytes=outputs_twice,
    ane=[native_but_refused(fix="crop, then resize")],
    vjp=back.crop_resize,
)
