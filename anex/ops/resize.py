"""Resizing and sampling of images."""

from __future__ import annotations

from typing import TYPE_CHECKING

from .record import define, outputs_twice, per_element, size, value

if TYPE_CHECKING:
    from coremltools.converters.mil.mil import Operation

BILINEAR = 9  # three interpolations a + t * (b - a)


def by_mode(op: Operation) -> int:
    """``resize`` says LINEAR or NEAREST_NEIGHBOR, ``resample`` and ``affine`` bilinear or nearest."""
    mode = str(value(op, "interpolation_mode") or value(op, "sampling_mode", "bilinear")).lower()
    return 0 if mode.startswith("nearest") else BILINEAR * size(op.outputs[0])


define("upsample_nearest_neighbor")
define("resize_nearest_neighbor")
define("upsample_bilinear", flops=per_element(BILINEAR))
define("resize_bilinear", flops=per_element(BILINEAR))
define("resize", flops=by_mode)
define("resample", flops=by_mode)
define("affine", flops=by_mode)
define("crop_resize", flops=per_element(BILINEAR), bytes=outputs_twice)
