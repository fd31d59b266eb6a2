"""What ``verify`` finds, as values; ``print`` shows them as ``text`` does."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from ..comparison.compare import OpDifference
from ..comparison.metrics import Difference, plain
from ..placement import Explanation
from .cliffs import Cliff
from .constants import DIFFERS, NOT_RESIDENT, OK, UNREADABLE

if TYPE_CHECKING:
    from ..quantization import Quantized

MAX_ERROR = 0.01  # relative error of an output; fp16 programs that are right stay below 0.005
MAX_ERROR_QUANTIZED = 0.1


@dataclass(frozen=True)
class Verification:
    """``print`` it, or keep ``to_json()``; ``exit_code`` is the command's.

    ``outputs``: of the whole program, as it is run, from the reference's. ``ops``: of each op that the reference has
    too, in program order. ``modules``: against torch, of what submodules returned, by path. ``not_run``: why there are
    no numbers, else "". ``residency`` is simulated (``anex.explain``).
    """

    device: str
    against: str
    chip: str
    seed: int | None
    max_error: float
    min_residency: float | None
    outputs: Mapping[str, Difference]
    ops: tuple[OpDifference, ...]
    modules: Mapping[str, Difference]
    cliffs: tuple[Cliff, ...]
    explanation: Explanation
    quantized: Quantized | None
    not_run: str = ""

    @property
    def residency(self) -> float:
        """Of 1, the ops that stay on the Neural Engine of ``chip``."""
        return self.explanation.residency

    @property
    def error(self) -> float:
        """The largest relative error of an output."""
        return max((each.relative for each in self.outputs.values()), default=0.0)

    @property
    def differs(self) -> bool:
        return not self.error <= self.max_error

    @property
    def diverging(self) -> tuple[OpDifference, ...]:
        """The ops whose results are off by more than ``max_error``, in order."""
        return tuple(op for op in self.ops if not op.total.relative <= self.max_error)

    @property
    def first(self) -> OpDifference | None:
        """The first of them."""
        return next(iter(self.diverging), None)

    @property
    def culprit(self) -> OpDifference | None:
        """The op to look at: up to and with the first that diverges, the one with the largest error of its own."""
        first = self.first
        if first is None or first.makes:
            return first
        before = self.ops[: self.ops.index(first) + 1]
        return max(before, key=lambda op: op.own.relative if op.own else 0.0)

    @property
    def resident(self) -> bool:
        return self.min_residency is None or self.residency >= self.min_residency

    @property
    def exit_code(self) -> int:
        """0; 1 where the numbers differ; 3 where too few ops are resident; 4 where the program cannot be run."""
        if self.differs:
            return DIFFERS
        if not self.resident:
            return NOT_RESIDENT
        return UNREADABLE if self.not_run else OK

    def __str__(self) -> str:
        from .text import lines

        return "\n".join(lines(self))

    def to_json(self) -> str:
        return json.dumps(self.as_dict(), indent=1)

    def as_dict(self) -> dict[str, Any]:
        """Everything, in plain values; what is infinite or no number is None."""
        first, culprit = self.first, self.culprit
        return {
            "format": "anex.verification",
            "version": 1,
            "device": self.device,
            "against": self.against,
            "chip": self.chip,
            "seed": self.seed,
            "exit_code": self.exit_code,
            "not_run": self.not_run,
            "max_error": self.max_error,
            "error": plain(self.error),
            "differs": self.differs,
            "min_residency": self.min_residency,
            "residency": self.residency,
            "residency_simulated": True,
            "first_diverging": first.name if first else None,
            "culprit": culprit.name if culprit else None,
            "outputs": {name: plain(asdict(each)) for name, each in self.outputs.items()},
            "modules": {name: plain(asdict(each)) for name, each in self.modules.items()},
            "ops": [plain(asdict(op)) | {"makes": op.makes} for op in self.ops],
            "cliffs": [plain(asdict(each)) for each in self.cliffs],
            "off_device": [op.name for op in self.explanation.ops if op.unit != self.explanation.device],
            "quantized": self.quantized.as_dict() if self.quantized else None,
        }
