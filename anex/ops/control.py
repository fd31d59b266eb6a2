"""Control flow, whose blocks cost what their ops do as often as they run, and states."""

from __future__ import annotations

from .record import define

define("cond")
define("while_loop")
define("read_state")
define("coreml_update_state")
