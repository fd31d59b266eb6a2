"""What ``quantize`` gives: the program, and what it costs and brings."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from ..comparison.compare import OpDifference
from ..comparison.metrics import Difference, plain

if TYPE_CHECKING:
    from coremltools.converters.mil.mil import Program


@dataclass(frozen=True)
class Layer:
    """One weight that was compressed: the argument of an op, its bytes before and after, and what it lost.

    ``weight``: of the values the op gets from those it had. ``result``: of what the op gives, where it was measured:
    ``own`` is what this layer's compression adds.
    """

    op: str
    name: str
    argument: str
    shape: tuple[int, ...]
    how: str
    bytes_before: int
    bytes_after: int
    weight: Difference
    result: OpDifference | None


@dataclass(frozen=True)
class Speed:
    """Predicted milliseconds of one call on one chip, before and after, with the 80 % interval and bound after."""

    chip: str
    before_ms: float
    after_ms: float
    low_ms: float
    high_ms: float
    bound_before: str
    bound_after: str

    @property
    def speedup(self) -> float:
        return self.before_ms / self.after_ms if self.after_ms else 1.0


@dataclass(frozen=True)
class Quantized:
    """``program`` is a MIL program as any other; ``print`` the report, or keep ``to_json()``.

    ``bytes_before``, ``bytes_after``: of the whole model, as it is saved. ``layers``: what was compressed, in program
    order; ``left``: weights above the threshold that were not, with the reason. ``outputs``: of the program from the
    original in float32. ``calibration``: the samples activations were calibrated on, and whether they were random.
    """

    program: Program
    scheme: str
    statement: str
    bytes_before: int
    bytes_after: int
    layers: tuple[Layer, ...]
    left: Mapping[str, str]
    quantized_activations: int
    outputs: Mapping[str, Difference]
    speeds: tuple[Speed, ...]
    calibration: str

    def save(self, path: str | os.PathLike[str]) -> None:
        """As ``anex.store.save``: a package for ``*.mlpackage``, else a folder of MIL text and weights."""
        from ..store import save

        save(self.program, path)

    def __str__(self) -> str:
        from .text import lines

        return "\n".join(lines(self))

    def to_json(self) -> str:
        return json.dumps(self.as_dict(), indent=1)

    def as_dict(self) -> dict[str, Any]:
        """Everything but the program, in plain values; what is infinite or no number is None."""
        found = {name: value for name, value in vars(self).items() if name not in ("program", "layers", "speeds")}
        return {
            "format": "anex.quantized",
            "version": 1,
            **{name: value for name, value in found.items() if name not in ("outputs", "left")},
            "left": dict(self.left),
            "outputs": {name: plain(asdict(each)) for name, each in self.outputs.items()},
            "speeds": [asdict(each) | {"speedup": each.speedup, "predicted": True} for each in self.speeds],
            "layers": [plain(asdict(each)) for each in self.layers],
        }
