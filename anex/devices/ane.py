"""The Apple Neural Engine: a program becomes MIL text and weights, and the system's compiler takes it from there."""

from __future__ import annotations

import platform
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .. import _native, cache, passes
from ..errors import ArgumentError, UnsupportedError
from ..ops.findings import ane_findings, program_findings, warn_contested
from . import info, isolate

if TYPE_CHECKING:
    from coremltools.converters.mil.mil import Operation, Program

    from ..ops.rule import Finding
    from . import Executable, Signature

QOS = {"real_time": 0, "background": 9, "utility": 17, "default": 21, "user_initiated": 25, "user_interactive": 33}
WAYS = ("evaluate", "direct", "real_time")
BLOB_PATH = "@model_path/weights/weight.bin"
NO_STATES = (
    "[state] nobody has bound states to a program compiled from text, and this device does not; "
    "pass what it keeps as an input and return it as an output"
)
PERF_STATS_MASK = 15  # every kind of counter


@dataclass(frozen=True)
class AneOptions:
    """How ``device="ane"`` compiles and runs a program.

    ``qos``: whom the hardware serves first, one of ``real_time``, ``background``, ``utility``, ``default``,
    ``user_initiated``, ``user_interactive``, or the system's number. ``isolate``: compile and run in a
    process of its own, which may fail and be restarted without losing this one. ``timeout``: seconds that
    such a process has to answer, whether it compiles or runs; then it is killed, the calls under way in it
    are a ``DeviceError``, and the next one starts another. ``way``: which of the
    framework's methods evaluates, ``"evaluate"``, ``"direct"`` or ``"real_time"``. ``passes``: rewrites
    of ``anex.mil.passes`` to turn on or off, by name. ``keep``: never unload it for other programs.
    ``perf_stats``: ask the hardware for its own clock and counters, which not every system tells.
    ``recompile``: compile even what the system has compiled already. ``unchecked``: hand the framework also
    what the rules of ``anex.ops`` refuse, and warn of nothing.
    """

    qos: int | str = "default"
    isolate: bool = False
    timeout: float | None = None
    way: str = "evaluate"
    passes: Mapping[str, bool] | None = None
    keep: bool = False
    perf_stats: bool = False
    recompile: bool = False
    unchecked: bool = False

    def __post_init__(self) -> None:
        if self.qos not in QOS and (
            isinstance(self.qos, bool) or not isinstance(self.qos, int) or not 0 <= self.qos < 64
        ):
            raise ArgumentError(f"qos={self.qos!r} is neither one of {', '.join(QOS)} nor a number from 0 to 63")
        if self.way not in WAYS:
            raise ArgumentError(f"way={self.way!r} is none of {', '.join(WAYS)}")
        for name in ("isolate", "keep", "perf_stats", "recompile", "unchecked"):
            if not isinstance(getattr(self, name), bool):
                raise ArgumentError(f"{name}={getattr(self, name)!r} is neither True nor False")
        if self.timeout is not None:
            if isinstance(self.timeout, bool) or not isinstance(self.timeout, (int, float)) or not self.timeout > 0:
                raise ArgumentError(f"timeout={self.timeout!r} is no number of seconds above 0")
            if not self.isolate:
                raise ArgumentError("timeout= needs isolate=True: only a process of its own can be ended")
        if self.passes is not None and not isinstance(self.passes, Mapping):
            raise ArgumentError(f"passes={self.passes!r} is no mapping from the name of a pass to True or False")

    @property
    def native(self) -> dict[str, Any]:
        """As ``_native.AneProgram`` takes them."""
        return {
            "qos": QOS[self.qos] if isinstance(self.qos, str) else self.qos,
            "way": WAYS.index(self.way),
            "perf_stats_mask": PERF_STATS_MASK if self.perf_stats else 0,
            "recompile": self.recompile,
        }


Port = tuple[str, tuple[int, ...], str, str, tuple[int, ...], str]
"""An input or output: name, shape and dtype as the user has them, then as the text has them."""


@dataclass(frozen=True)
class Source:
    """What the compiler is given, and by function the ports of its inputs and outputs."""

    text: bytes
    blobs: Mapping[str, bytes]
    functions: Mapping[str, tuple[Sequence[Port], Sequence[Port]]]

    @property
    def name(self) -> str:
        each = (
            f"{name}({', '.join(port[0] for port in inputs)}) -> {', '.join(port[0] for port in outputs)}"
            for name, (inputs, outputs) in self.functions.items()
        )
        return "; ".join(each)

    @property
    def bytes(self) -> int:
        return len(self.text) + sum(map(len, self.blobs.values()))


class Ane:
    name = "ane"
    options = AneOptions

    def unavailable(self) -> str | None:
        if sys.platform == "darwin" and platform.machine() != "arm64":
            return "this Mac has an Intel processor, and the Neural Engine is part of Apple silicon"
        return info.unavailable()

    def objections(self, options: AneOptions) -> Callable[[Operation], Sequence[str]]:
        chip = info.device_info().architecture
        cures = passes.chosen(options.passes, chip)

        def to(op: Operation) -> Sequence[str]:
            if op.op_type in ("read_state", "coreml_update_state"):
                return [NO_STATES]
            if options.unchecked:
                return []
            return [found.text for found in ane_findings(op, chip, cures=cures) if found.refuses]

        return to

    def compile(
        self, program: Program, signatures: Mapping[str, Signature], options: AneOptions
    ) -> Mapping[str, Executable]:
        if stateful := [name for name, signature in signatures.items() if signature.states]:
            raise UnsupportedError(f"device='ane' cannot run {', '.join(stateful)}: {NO_STATES}")
        system = info.device_info()
        prepared = passes.prepare(program, options.passes, system.architecture).program
        if not options.unchecked:
            switches = passes.chosen(options.passes, system.architecture)
            warn_contested(program_findings(program, system.architecture, cures=switches), stacklevel=3)
            _refuse(program_findings(prepared, system.architecture, cures=()))
        source = render(prepared, signatures)
        if options.isolate:
            compiled: Local | isolate.Program = isolate.Program(
                source, options.native, options.perf_stats, options.timeout
            )
        else:
            compiled = Local(source, options)
        cache.enter(compiled.registered, source.name, source.bytes, f"macOS {system.build}" if system.build else "")
        if options.keep:
            compiled.keep(True)
        return compiled.functions


def _refuse(findings: Sequence[Finding]) -> None:
    if left := [str(found) for found in findings if found.refuses]:
        raise UnsupportedError("device='ane' cannot run what the passes leave:\n  " + "\n  ".join(left[:20]))


class Local:
    """A program compiled in this process."""

    def __init__(self, source: Source, options: AneOptions) -> None:
        program = _native.AneProgram(source.text, source.blobs, **options.native)
        self.registered = program
        self.functions = {
            name: _native.AneFunction(program, name, inputs, outputs, options.perf_stats)
            for name, (inputs, outputs) in source.functions.items()
        }

    def keep(self, keep: bool) -> None:
        self.registered.keep(keep)


def render(program: Program, signatures: Mapping[str, Signature]) -> Source:
    """The MIL text and weights of ``program``; equal programs give equal bytes, and so one cache entry."""
    from .. import mil, store

    with tempfile.TemporaryDirectory(prefix="anex-") as folder:
        model = store.to_proto(program, folder)
        weights = Path(folder, "weight.bin")
        blobs = {BLOB_PATH: weights.read_bytes()} if weights.exists() else {}
        text = mil.to_text(model).encode()
    functions = {}
    for name, signature in signatures.items():
        function, proto = program.functions[name], model.mlProgram.functions[name]
        outputs = proto.block_specializations[proto.opset].outputs
        functions[name] = (
            _ports(signature.inputs, [port.name for port in proto.inputs], [*function.inputs.values()]),
            _ports(signature.outputs, list(outputs), function.outputs),
        )
    return Source(text, blobs, functions)


def _ports(specs: Mapping[str, Any], names: Sequence[str], variables: Sequence[Any]) -> list[Port]:
    from ..ops import dtype_name
    from .cpu import DTYPES

    return [
        (user, spec.shape, spec.dtype.name, name, tuple(map(int, var.shape)), DTYPES[dtype_name(var)])
        for (user, spec), name, var in zip(specs.items(), names, variables, strict=True)
    ]
