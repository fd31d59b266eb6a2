"""What a case of the op suite is: one use of one op, with inputs that are the same in every run.

A case is data until it is built: importing the table costs neither numpy nor coremltools.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np
    from coremltools.converters.mil.mil import Program

# Of the largest expected magnitude; a float16 has 11 bits, so two units in its last place.
TOLERANCE = 2e-3


@dataclass(frozen=True)
class Values:
    """An array to be drawn. ``kind``: ``uniform`` in [low, high], or ``distinct``: evenly spaced there, shuffled."""

    shape: tuple[int, ...]
    dtype: str = "float16"
    low: float = -2
    high: float = 2
    is_input: bool = True
    kind: str = "uniform"

    def draw(self, seed: str) -> np.ndarray:
        import numpy as np

        rng = np.random.default_rng(zlib.crc32(seed.encode()))
        if self.kind == "distinct":
            count = int(np.prod(self.shape))
            return rng.permutation(np.linspace(self.low, self.high, count)).reshape(self.shape).astype(self.dtype)
        if self.dtype.startswith("float"):
            return rng.uniform(self.low, self.high, self.shape).astype(self.dtype)
        whole = rng.integers(int(self.low), int(self.high) + 1, self.shape)
        if self.dtype in ("uint1", "uint2", "uint4", "int4"):
            from coremltools.converters.mil.mil import types

            return np.asarray(whole.astype(types.nptype_from_builtin(types.string_to_builtin(self.dtype))))
        return whole.astype(self.dtype)


def array(*shape: int, low: float = -2, high: float = 2) -> Values:
    """A float16 input."""
    return Values(shape, low=low, high=high)


def distinct(*shape: int) -> Values:
    """A float16 input without two equal values near each other: for ops that sort."""
    return Values(shape, low=-4, high=4, kind="distinct")


def whole(*shape: int, low: int = 0, high: int = 1, dtype: str = "int32") -> Values:
    """Integers as an input."""
    return Values(shape, dtype, low, high)


def weights(*shape: int, low: float = -1, high: float = 1, dtype: str = "float16") -> Values:
    """Values that are fixed when the program is compiled."""
    return Values(shape, dtype, low, high, is_input=False)


Make = Callable[[Any, Mapping[str, Any]], Any]


@dataclass(frozen=True)
class Case:
    """``make(mb, arguments)`` builds the op; left out, the builder is called with the arguments as they are."""

    op: str
    number: int
    arguments: Mapping[str, Any]
    tolerance: float = TOLERANCE
    opset: str = "iOS18"
    make: Make | None = None
    state: tuple[int, ...] | None = None  # the shape of a float16 state called "state"
    is_random: bool = False
    inputs: dict[str, Values] = field(init=False, default_factory=dict)

    def __post_init__(self) -> None:
        for name, value in self.arguments.items():
            several = value if isinstance(value, (list, tuple)) else (value,)
            for i, each in enumerate(several):
                if isinstance(each, Values) and each.is_input:
                    self.inputs[name if each is value else f"{name}_{i}"] = each

    @property
    def id(self) -> str:
        return f"{self.op}-{self.number}"

    @property
    def label(self) -> str:
        """The shapes of the inputs: ``x=[1,64,1,64]``."""
        return ", ".join(f"{name}=[{','.join(map(str, values.shape))}]" for name, values in self.inputs.items())

    def values(self) -> dict[str, np.ndarray]:
        return {name: values.draw(f"{self.id} {name}") for name, values in self.inputs.items()}

    def build(self) -> Program:
        """A MIL program of the op. What are no floating numbers are cast to float16, which the ANE can return."""
        from ..._coremltools import coremltools

        with coremltools() as ct:
            from coremltools.converters.mil import Builder as mb
            from coremltools.converters.mil.mil import Function, Program, types

            placeholders = {
                name: mb.placeholder(given.shape, dtype=types.string_to_builtin(given.dtype.replace("float", "fp")))
                for name, given in self.inputs.items()
            }
            if self.state is not None:
                placeholders["state"] = mb.state_tensor_placeholder(self.state, types.fp16)
            program = Program()
            with Function(placeholders, getattr(ct.target, self.opset)) as function:
                given = {name: self._resolve(name, value, function) for name, value in self.arguments.items()}
                if self.state is not None:
                    given["state"] = function.inputs["state"]
                result = self.make(mb, given) if self.make else getattr(mb, self.op)(**given)
                results = list(result) if isinstance(result, (list, tuple)) else [result]
                outputs = [var if types.is_float(var.dtype) else mb.cast(x=var, dtype="fp16") for var in results]
                for i, var in enumerate(outputs):
                    var.name = "result" if len(outputs) == 1 else f"result_{i}"
                function.set_outputs(outputs)
            program.add_function("main", function)
            return program

    def _resolve(self, name: str, value: Any, function: Any) -> Any:
        if isinstance(value, Values):
            return function.inputs[name] if value.is_input else value.draw(f"{self.id} {name}")
        if isinstance(value, (list, tuple)) and any(isinstance(each, Values) for each in value):
            return [self._resolve(f"{name}_{i}", each, function) for i, each in enumerate(value)]
        return half(value) if isinstance(value, float) else value


def half(value: float) -> Any:
    """A float16 scalar: the builder makes float32 of Python's numbers."""
    import numpy as np

    return np.float16(value)


CASES: dict[str, list[Case]] = {}


_OPTIONS = ("tolerance", "opset", "make", "state", "is_random")


def case(op: str, **given: Any) -> None:
    """Enter one use of ``op``: its arguments, and those fields of ``Case`` that are not as usual."""
    cases = CASES.setdefault(op, [])
    options = {name: given.pop(name) for name in _OPTIONS if name in given}
    cases.append(Case(op, len(cases), given, **options))
