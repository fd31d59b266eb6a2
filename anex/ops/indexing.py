"""Slices, gathers and scatters: what they do not choose they do not read."""

from __future__ import annotations

from .record import define, indexed, outputs_twice

define("slice_by_index", bytes=outputs_twice)
define("slice_by_size", bytes=outputs_twice)
define("slice_update")
define("gather", bytes=indexed)
define("gather_along_axis", bytes=indexed)
define("gather_nd", bytes=indexed)
define("scatter")
define("scatter_along_axis")
define("scatter_nd")
