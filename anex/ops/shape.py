"""Ops that give a tensor another shape or order; the views among them touch no memory."""

from __future__ import annotations

from .acceptance import CATALOGUE, SWEPT, conditional, native_but_refused, ran, refused
from .limits import CONCAT, ON_M1, PAD
from .record import define, nothing, outputs_twice

define("reshape", bytes=nothing, ane=[conditional("up to rank 5", SWEPT, "FRG"), ON_M1])
define("reshape_like", bytes=nothing, ane=[native_but_refused(fix="use reshape", cure="rewrite_refused")])
define("expand_dims", bytes=nothing, ane=[conditional("up to rank 5", SWEPT, "FRG")])
define("squeeze", bytes=nothing, ane=[ran(0)])
define("flatten2d", bytes=nothing, ane=[ran(0)])
define("identity", bytes=nothing, ane=[native_but_refused(fix="leave it out", cure="rewrite_refused")])
define("transpose", ane=[conditional("up to rank 4 in front of a matmul", SWEPT, "FRG"), ON_M1])
define("depth_to_space", ane=[ran(0)])
define("space_to_depth", ane=[ran(0)])
define("pixel_shuffle", ane=[ran(0)])
define("pixel_unshuffle", ane=[ran(0)])
define("batch_to_space", ane=[conditional("the batch divides by the block", SWEPT, "FRG")])
define("space_to_batch", ane=[conditional("as a first or last op", SWEPT, "FRG")])
define("reverse", ane=[ran(0)])
define("reverse_sequence", ane=[refused()])
define("concat", ane=[conditional("contested on the private path", SWEPT, "ORI", "MDX"), CONCAT, ON_M1])
define("stack", ane=[conditional("up to rank 5", SWEPT, "FRG"), CONCAT])
define("split", ane=[ran(0), ON_M1])
define("tile", ane=[ran(0)])
define("pad", ane=[conditional("constant padding; reflection from M2 on", SWEPT, CATALOGUE), PAD, ON_M1])
define("crop", bytes=outputs_twice, ane=[ran(0)])
define("sliding_windows", ane=[refused()])
define("band_part", ane=[refused(cure="rewrite_refused")])
