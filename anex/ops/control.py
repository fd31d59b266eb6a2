"""Control flow, whose blocks cost what their ops do as often as they run, and states."""

from __future__ import annotations

from .acceptance import CATALOGUE, SWEPT, conditional, contested, refused
from .record import define

NO_LOOPS = (f"{SWEPT}: refused", "HOL")
STATEFUL = contested(
    "nobody bound states on the private path", f"{SWEPT}: refused alone", f"{CATALOGUE}: native",
    fix="pass what the program keeps as inputs and outputs", confidence="medium",
)  # fmt: skip

define("cond", ane=[refused("cannot branch", fix="compute both branches and select", source=NO_LOOPS)])
define("while_loop", ane=[refused("cannot loop", fix="unroll it, or loop on the host", source=NO_LOOPS)])
define("read_state", ane=[conditional("needs states bound to the program", SWEPT, CATALOGUE), STATEFUL])
define("coreml_update_state", ane=[conditional("needs states bound to the program", CATALOGUE), STATEFUL])
