"""Ops that give a tensor another shape or order; the views among them touch no memory."""

from __future__ import annotations

from .record import define, nothing, outputs_twice

define("reshape", bytes=nothing)
define("reshape_like", bytes=nothing)
define("expand_dims", bytes=nothing)
define("squeeze", bytes=nothing)
define("flatten2d", bytes=nothing)
define("identity", bytes=nothing)
define("transpose")
define("depth_to_space")
define("space_to_depth")
define("pixel_shuffle")
define("pixel_unshuffle")
define("batch_to_space")
define("space_to_batch")
define("reverse")
define("reverse_sequence")
define("concat")
define("stack")
define("split")
define("tile")
define("pad")
define("crop", bytes=outputs_twice)
define("sliding_windows")
define("band_part")
