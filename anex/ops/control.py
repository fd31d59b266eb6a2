"""Control flow, whose blocks cost what their ops do as often as they run, and states."""

from __future__ import annotations

from .acceptance import CATALOGUE, SWEPT, conditional, contested, refused
from .gradient import ByBlocks, NoGradient
from .record import define

NO_LOOPS = (f"{SWEPT}: refused", "HOL")
STATEFUL = contested(
    "nobody bound states on the private path", f"{SWEPT}: refused alone", f"{CATALOGUE}: native",
    fix="pass what the program keeps as inputs and outputs", confidence="medium",
)  # fmt: skip

LOOP = NoGradient(
    "going back through a loop takes what every turn gave, and only the data say how many there are; unroll it",
    is_zero=False,
)
STATE = NoGradient(
    "what a state keeps acts on later calls; pass it as an input, and what it becomes as an output", is_zero=False
)

define("cond", ane=[refused("cannot branch", fix="compute both branches and select", source=NO_LOOPS)], vjp=ByBlocks())
define("while_loop", ane=[refused("cannot loop", fix="unroll it, or loop on the host", source=NO_LOOPS)], vjp=LOOP)
define("read_state", ane=[conditional("needs states bound to the program", SWEPT, CATALOGUE), STATEFUL], vjp=STATE)
define("coreml_update_state", ane=[conditional("needs states bound to the program", CATALOGUE), STATEFUL], vjp=STATE)
