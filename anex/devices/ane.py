"""The Apple Neural Engine. Its native binding is not part of this version."""

from __future__ import annotations

import platform
import sys
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, NoReturn

from ..errors import UnsupportedError

if TYPE_CHECKING:
    from coremltools.converters.mil.mil import Operation, Program

    from ..spec import Spec


class Ane:
    name = "ane"

    def unavailable(self) -> str | None:
        if sys.platform != "darwin":
            return f"this is {platform.system()}, and the Neural Engine is part of Apple silicon under macOS"
        if platform.machine() != "arm64":
            return "this Mac has an Intel processor, and the Neural Engine is part of Apple silicon"
        return "this version of anex has no binding to it yet"

    def objections(self, op: Operation) -> Sequence[str]:
        return [reason] if (reason := self.unavailable()) else []

    def compile(self, program: Program, inputs: Mapping[str, Spec], outputs: Mapping[str, Spec]) -> NoReturn:
        raise UnsupportedError(f"device='ane': {self.unavailable()}")
