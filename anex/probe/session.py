"""Running programs for a probe: compiled for its device, timed, and given back as arrays."""

from __future__ import annotations

import time
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from ..bench.timing import Effort, Timing, measure
from ..creation import empty, tensor
from ..program import compile

if TYPE_CHECKING:
    from coremltools.converters.mil.mil import Program


@dataclass(frozen=True)
class Ran:
    """What a program gave, by name of output, and what it took: milliseconds to compile, and of each call."""

    outputs: Mapping[str, np.ndarray]
    compile_ms: float
    timing: Timing | None
    stats: Mapping[str, Any]

    @property
    def ms(self) -> float:
        return self.timing.ms if self.timing else float("nan")

    @property
    def only(self) -> np.ndarray:
        """The output of a program that has one."""
        (array,) = self.outputs.values()
        return array


@dataclass
class Session:
    """``device`` and how often calls are timed. ``small``: smaller sizes, where the published ones take long;
    ``compiled`` counts compilations; ``asked``: answers to questions of the self-test, by id."""

    device: str
    effort: Effort = field(default_factory=lambda: Effort(5, 100, 2.0))
    small: bool = False
    compiled: int = 0
    asked: dict[str, Mapping[str, Any]] = field(default_factory=dict)

    def run(
        self, program: Program, inputs: Mapping[str, np.ndarray], *, timed: bool = True, without: Sequence[str] = ()
    ) -> Ran:
        """Compile ``program``, call it with ``inputs`` by name, and time it unless told otherwise.

        ``without``: passes that would rewrite on the way to the engine what the question is about.
        """
        (ran,) = self.run_each(program, [inputs], timed=timed, without=without)
        return ran

    def run_each(
        self, program: Program, several: list[Mapping[str, np.ndarray]], *, timed: bool = False,
        without: Sequence[str] = (),
    ) -> list[Ran]:  # fmt: skip
        """Compile once, call with each of several inputs: what came out of each."""
        as_written = {"passes": dict.fromkeys(without, False), "unchecked": True}
        options: dict[str, Any] = as_written if without and self.device == "ane" else {}
        start = time.perf_counter()
        with compile(program, device=self.device, **options) as compiled:
            self.compiled += 1
            compile_ms = 1e3 * (time.perf_counter() - start)
            found = []
            for inputs in several:
                given = {
                    name: tensor(np.ascontiguousarray(inputs[name]), dtype=spec.dtype)
                    for name, spec in compiled.inputs.items()
                }
                out = tuple(empty(spec.shape, dtype=spec.dtype) for spec in compiled.outputs.values())
                into = out[0] if len(out) == 1 else out
                compiled(**given, out=into)
                timing = measure(lambda: compiled(**given, out=into), self.effort) if timed else None  # noqa: B023
                arrays = {name: np.array(each) for name, each in zip(compiled.outputs, out, strict=True)}
                found.append(Ran(arrays, compile_ms, timing, dict(compiled.stats())))
        return found


def random(name: str, *shape: int, scale: float = 1.0) -> np.ndarray:
    """fp16 normal numbers, the same each time for a name and a shape."""

    made: np.ndarray = (scale * np.random.default_rng(zlib.crc32(name.encode())).standard_normal(shape)).astype(
        np.float16
    )
    return made


def errors(found: np.ndarray, wanted: np.ndarray) -> tuple[float, float]:
    """The largest and the mean absolute error; NaN where one is."""
    difference = np.abs(found.astype(np.float64) - wanted)
    return float(difference.max()), float(difference.mean())
