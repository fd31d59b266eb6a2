"""Passes that make a MIL program one the Neural Engine takes, and gets right.

``prepare(program)`` applies those that are on, in their order, to a copy. Values change by fp16 rounding
alone, except where a pass says by how much.
"""

from __future__ import annotations

import contextlib
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING

from .. import _coremltools
from .._coremltools import coremltools
from ..errors import ArgumentError
from ..load import from_proto
from ..ops.rule import family
from ..store import to_proto
from .attention import SDPA_DECOMPOSE, SOFTMAX_DECOMPOSE
from .forms import CONV_BIAS, GELU_TANH, LINEAR_TO_CONV, MATMUL_PAD_K32, PLAIN_INDICES, SUM_BY_MATMUL
from .ports import BOOL_PORTS, DEDUPLICATE, FINITE_CONSTANTS, FOLD, FP16_COMPUTE, PORT_NAMES, PORT_RANKS, carrier
from .record import Pass
from .refused import REWRITE_REFUSED

if TYPE_CHECKING:
    from coremltools.converters.mil.mil import Program

__all__ = ["PASSES", "Pass", "Ports", "Prepared", "carrier", "chosen", "prepare"]

PASSES: Mapping[str, Pass] = MappingProxyType({
    each.name: each
    for each in (
        PLAIN_INDICES, FOLD, PORT_RANKS, FINITE_CONSTANTS, FP16_COMPUTE, BOOL_PORTS, SDPA_DECOMPOSE,
        SOFTMAX_DECOMPOSE, GELU_TANH, REWRITE_REFUSED, LINEAR_TO_CONV, CONV_BIAS, SUM_BY_MATMUL, MATMUL_PAD_K32,
        DEDUPLICATE, PORT_NAMES,
    )
})  # fmt: skip


@dataclass(frozen=True)
class Ports:
    """What a function's inputs (states among them) and outputs are called now, by their declared names."""

    inputs: Mapping[str, str]
    outputs: Mapping[str, str]


@dataclass(frozen=True)
class Prepared:
    """A program ready for the Neural Engine, with the same functions, inputs and outputs in the same order.

    ``ports`` holds the names by function; ``inputs`` and ``outputs`` are those of the only function, or
    of ``main``. ``passes``: the names of the passes that ran. Shapes and dtypes that passes changed stand
    in the program: ``carrier`` of the declared shape, uint8 for bool.
    """

    program: Program
    ports: Mapping[str, Ports]
    passes: tuple[str, ...]

    @property
    def inputs(self) -> Mapping[str, str]:
        return self._main.inputs

    @property
    def outputs(self) -> Mapping[str, str]:
        return self._main.outputs

    @property
    def _main(self) -> Ports:
        return self.ports["main"] if "main" in self.ports else next(iter(self.ports.values()))


def chosen(switches: Mapping[str, bool] | None = None, chip: str = "h16g") -> tuple[str, ...]:
    """The passes that run on ``chip``, in order: the defaults, as ``switches`` change them.

    Raises ``ArgumentError`` for a name that no pass has.

    >>> "gelu_tanh" in chosen(), "gelu_tanh" in chosen({"gelu_tanh": False})
    (True, False)
    """
    switches = switches or {}
    if unknown := [str(name) for name in switches if name not in PASSES]:
        raise ArgumentError(f"passes {', '.join(unknown)}: the passes are {', '.join(PASSES)}")
    on = family(chip)
    return tuple(
        name for name, each in PASSES.items() if switches.get(name, each.default and on in each.chips)
    )  # fmt: skip


def prepare(program: Program, switches: Mapping[str, bool] | None = None, chip: str = "h16g") -> Prepared:
    """A copy of ``program`` that ``chip`` takes; ``program`` itself is never changed.

    ``switches`` turns passes on and off by name. The same program always gives the same MIL text.
    Raises ``ArgumentError`` for an unknown pass, ``CompileError`` for a program coremltools cannot export.
    """
    names = chosen(switches, chip)
    with coremltools():
        prepared = _copy(program)
        for name in names:
            PASSES[name].apply(prepared)
        _coremltools.legalise(prepared)
        _coremltools.validate(prepared)
        ports = {
            name: Ports(
                dict(zip(function.inputs, prepared.functions[name].inputs, strict=True)),
                {
                    old.name: new.name
                    for old, new in zip(function.outputs, prepared.functions[name].outputs, strict=True)
                },
            )
            for name, function in program.functions.items()
        }
    return Prepared(prepared, MappingProxyType(ports), names)


def _copy(program: Program) -> Program:
    """Through protobuf, as everything else that leaves a program: coremltools' objects do not copy well."""
    with tempfile.TemporaryDirectory(prefix="anex-") as folder, _outputs_apart(program):
        weights = Path(folder, "weights")
        weights.mkdir()
        proto = to_proto(program, weights).mlProgram
        parts = {name: from_proto(proto, Path(folder), function=name) for name in program.functions}
    copy = next(iter(parts.values()))
    functions = {name: part.functions["main"] for name, part in parts.items()}
    copy.functions.clear()
    for name, function in functions.items():
        copy.add_function(name, function)
    copy.default_function_name = program.default_function_name
    return copy


@contextlib.contextmanager
def _outputs_apart(program: Program) -> Iterator[None]:
    """Within the block no output is named as an input: builders allow it, MIL text does not."""
    renamed = []
    for function in program.functions.values():
        taken = {*function.inputs, *(var.name for var in function.outputs)}
        for var in function.outputs:
            if var.name in function.inputs and var is not function.inputs[var.name]:
                renamed.append((var, var.name))
                while var.name in taken:
                    var.name += "_out"
                taken.add(var.name)
    try:
        yield
    finally:
        for var, name in renamed:
            var.name = name
