"""Ops that give a tensor another shape or order; the views among them touch no memory."""

from __future__ import annotations

import numpy as np

from . import shape_vjp as back
from .acceptance import CATALOGUE, SWEPT, conditional, native_but_refused, ran, refused
from .limits import CONCAT, ON_M1, PAD
from .record import define, nothing, outputs_twice

define("reshape", bytes=nothing, ane=[conditional("up to rank 5", SWEPT, "FRG"), ON_M1], vjp=back.reshaped)
define(
    "reshape_like",
    bytes=nothing,
    ane=[native_but_refused(fix="use reshape", cure="rewrite_refused")],
    vjp=back.reshaped,
)
define("expand_dims", bytes=nothing, ane=[conditional("up to rank 5", SWEPT, "FRG")], vjp=back.reshaped)
define("squeeze", bytes=nothing, ane=[ran(0)], vjp=back.reshaped)
define("flatten2d", bytes=nothing, ane=[ran(0)], vjp=back.reshaped)
define(
    "identity", bytes=nothing, ane=[native_but_refused(fix="leave it out", cure="rewrite_refused")], vjp=back.passed()
)
define("transpose", ane=[conditional("up to rank 4 in front of a matmul", SWEPT, "FRG"), ON_M1], vjp=back.transpose)
define("depth_to_space", ane=[ran(0)], vjp=back.inverse_by("space_to_depth", block_size="block_size"))
define("space_to_depth", ane=[ran(0)], vjp=back.inverse_by("depth_to_space", block_size="block_size"))
define(
    "pixel_shuffle", ane=[ran(0)], vjp=back.inverse_by("pixel_unshuffle", np.uint32, downscale_factor="upscale_factor")
)
define("pixel_unshuffle", ane=[ran(0)], vjp=back.inverse_by("pixel_shuffle", upscale_factor="downscale_factor"))
define(
    "batch_to_space",
    ane=[conditional("the batch divides by the block", SWEPT, "FRG")],
    vjp=back.inverse_by("space_to_batch", block_shape="block_shape", paddings="crops"),
)
define(
    "space_to_batch",
    ane=[conditional("as a first or last op", SWEPT, "FRG")],
    vjp=back.inverse_by("batch_to_space", block_shape="block_shape", crops="paddings"),
)
define("reverse", ane=[ran(0)], vjp=back.reverse)
define("reverse_sequence", ane=[refused()], vjp=back.reverse_sequence)
define(
    "concat", ane=[conditional("contested on the private path", SWEPT, "ORI", "MDX"), CONCAT, ON_M1], vjp=back.concat
)
define("stack", ane=[conditional("up to rank 5", SWEPT, "FRG"), CONCAT], vjp=back.stack)
define("split", ane=[ran(0), ON_M1], vjp=back.split)
define("tile", ane=[ran(0)], vjp=back.tile)
define("pad", ane=[conditional("constant padding; reflection from M2 on", SWEPT, CATALOGUE), PAD, ON_M1], vjp=back.pad)
define("crop", bytes=outputs_twice, ane=[ran(0)], vjp=back.crop)
define("sliding_windows", ane=[refused()], vjp=back.sliding_windows)
define("band_part", ane=[refused(cure="rewrite_refused")], vjp=back.band_part)
