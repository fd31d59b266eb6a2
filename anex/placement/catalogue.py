"""The rules under the names that the source documents' constraints go by, and those about whole programs.

A rule of ``anex.ops`` is about one op. What a program meets as a whole, whatever its ops, is here: ``PROGRAM``.
``CATALOGUE`` joins both to public names such as R-SDPA-MASK, with who said so and how to ask the hardware.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import Any

from ..errors import ArgumentError
from ..ops import OPS, Rule
from ..ops.acceptance import never
from ..ops.record import nbytes, shape
from ..ops.rule import SEVERITIES, chips
from ..ops.rules import GENERIC, is_static
from .measured import here

SURFACE_FLOOR = 49152
ROW = 32


def _ports(function: Any) -> Iterator[Any]:
    yield from (var for var in (*function.inputs.values(), *function.outputs) if getattr(var, "shape", None))


def _weights(function: Any) -> list[Any]:
    return [op for op in function.operations if op.op_type.startswith("const") and op.outputs[0].shape]


def baked(function: Any, chip: str) -> str | None:
    held = sum(math.prod(map(int, op.outputs[0].shape)) for op in _weights(function))
    return f"{held} weights" if held else None


def small_surface(function: Any, chip: str) -> str | None:
    small = [var for var in _ports(function) if is_static(var) and nbytes(var) < SURFACE_FLOOR]
    return f"{len(small)} of the inputs and outputs, such as {small[0].name!r} of {nbytes(small[0])} bytes" \
        if small else None  # fmt: skip


def padded_rows(function: Any, chip: str) -> str | None:
    for var in _ports(function):
        if is_static(var) and shape(var)[-1] % ROW:
            return f"{var.name} {shape(var)}, whose last axis is no multiple of {ROW}"
    return None


def by_channel(function: Any, chip: str) -> str | None:
    found = 0
    for op in function.operations:
        scale = op.inputs.get("scale") if op.op_type.startswith("constexpr_") else None
        found += scale is not None and math.prod(map(int, scale.shape or (1,))) > 1
    return f"{found} weights with a scale for each channel or block" if found else None


def several_inputs(function: Any, chip: str) -> str | None:
    return f"{len(function.inputs)} inputs" if len(function.inputs) > 1 else None


PRIVATE = ("private",)
PROGRAM = (
    Rule("weights-baked", "weights are frozen when the program compiles: rewriting their file, or a buffer over them, "
         "changes nothing", "I", "medium", baked,
         ("S03: file swap and weightsBuffer ignored on M5", "MDX", "LIB: measured",
          "ORI: says that unload, rewrite and load works"),
         "make weights inputs of the program, or compile again", path=PRIVATE),
    Rule("compile-limit", "a process compiles about 119 programs, then the compiler fails", "E", "high", never,
         ("S03", "MDX: restarts with exec at 100", "ORI", "FRG: reports none on e5rt"),
         "let anex.cache reuse programs, pass isolate=True, or restart the process", path=PRIVATE),
    Rule("surface-floor", f"surfaces smaller than {SURFACE_FLOOR} bytes fail at evaluation with status 0x1D", "E",
         "medium", small_surface,
         ("S03: even for tiny tensors", "ORI", "MDX: 16384 bytes are enough", "TRN: about 2048 are enough"),
         "pad the last axis to 16 positions or more, as a bucket", path=PRIVATE),
    Rule("row-stride", "rows of inputs and outputs are padded, to 32 elements or 64 bytes", "I", "medium", padded_rows,
         ("S03: stride max(W, 32)", "LIB: 64 bytes", "ORI: 16 elements"),
         "make the last axis a multiple of 32; anex pads and hides it", path=PRIVATE),
    Rule("chaining", "chained requests validate, and the driver rejects them with code 15", "I", "high", never,
         ("S03: needs entitlements", "MDX: code 15", "INF: prepares, but buffersReady is blocked"),
         "fuse the ops into one program, or let one program's output surface be the next one's input", path=PRIVATE),
    Rule("quantised-per-tensor", "whether int8 weights with a scale for each channel stay on the engine is contested",
         "F", "low", by_channel,
         ("S04: per tensor and symmetric only", "S03: per-channel int8 compiles and runs",
          "FRG: per-channel int8 and 4-bit palettes stream"),
         "quantise per tensor where Core ML before macOS 15 matters", path=("private", "e5rt", "coreml"),
         os="Core ML 7 (S04); macOS 15 and later (S03, FRG)"),
    Rule("several-inputs", "programs of several inputs fail with status 0x1D for one project and evaluate for four",
         "I", "low", several_inputs,
         ("MDX: status 0x1D", "S03: three programs of 2 to 4 inputs pass",
          "H3, TRN, CGT: bound in the order of the symbols"),
         "pack the inputs along one axis and slice them apart", path=PRIVATE),
)  # fmt: skip


@dataclass(frozen=True)
class Entry:
    """``name``: the public one. ``rules``: ids of the rules that check it; of ``ops`` alone where those are named.

    ``provenance``: which document, and who contradicts it. ``probe``: of `anex selftest --only`, to ask a Mac.
    """

    name: str
    rules: tuple[str, ...]
    provenance: str
    probe: str
    ops: tuple[str, ...] = ()

    @property
    def found(self) -> tuple[Rule, ...]:
        """The rules themselves, each once."""
        op_rules = (rule for name, op in OPS.items() if name in self.ops or not self.ops for rule in op.ane)
        known = {(r.id, r.statement): r for r in (*PROGRAM, *GENERIC, *op_rules) if r.id in self.rules}
        return tuple(known.values())


_GUIDE = "field guide (seed 004), contested"
CATALOGUE = (
    Entry("R-BAKED", ("weights-baked",), "seed 003, known constraints; Orion contradicts", "weight-reload"),
    Entry("R-SDPA-MASK", ("sdpa-mask",), "seed 003, known constraints; three projects agree", "sdpa-mask"),
    Entry("R-COMPILE-119", ("compile-limit",), "seeds 001 and 003; cause unknown", "compile-limit"),
    Entry("R-MIN-SURFACE-49152", ("surface-floor",), "seed 003, known constraints; sizes differ by source",
          "surface-floor"),
    Entry("R-STRIDE-32", ("row-stride",), "seed 003, known constraints; numbers differ by source", "narrow-rows"),
    Entry("R-CHAINING", ("chaining",), "seed 003, chaining investigation; one project gets further", "chaining"),
    Entry("R-DIM-16K", ("axis-extent", "axis-extent-contested", "flat-extent", "contraction-extent"),
          f"{_GUIDE} from M4 on: measured 16384 up to M3, 65536 on M5", "axis-caps"),
    Entry("R-FP16", ("fp16-only", "integer-compute"), "field guide (seed 004); everybody agrees", "float32-compute"),
    Entry("R-STATIC", ("static-shape",), "field guide (seed 004); everybody agrees", ""),
    Entry("R-QUANT-TENSOR", ("quantised-per-tensor",), f"{_GUIDE} by seed 003 and ANEForge", "int8-speed"),
    Entry("R-ATTN-CHUNK", ("attention-context", "sdpa-extent", "softmax-extent"),
          f"{_GUIDE} as a limit: ANEForge runs 512 to 2048 tokens, ANEMLL 4096", "softmax-long"),
    Entry("R-GATHER", ("contested-op", "acceptance"), f"{_GUIDE} by the catalogue of native layers", "moving-ops",
          ("gather", "gather_along_axis", "gather_nd")),
)  # fmt: skip


def names(rule: str, op_type: str = "") -> tuple[str, ...]:
    """The public names of a rule.

    >>> names("sdpa-mask"), names("contested-op", "gather")
    (('R-SDPA-MASK',), ('R-GATHER',))
    """
    return tuple(e.name for e in CATALOGUE if rule in e.rules and (not e.ops or op_type in e.ops))


def entry(name: str) -> Entry:
    """By public name, or by the id of a rule."""
    for each in CATALOGUE:
        if name.upper() == each.name:
            return each
    known = {rule.id for rule in (*PROGRAM, *GENERIC, *(rule for op in OPS.values() for rule in op.ane))}
    if name in known:
        return Entry(name, (name,), "see its sources", "")
    raise ArgumentError(f"no rule is called {name!r}; there are {', '.join(e.name for e in CATALOGUE)}, "
                        f"and {', '.join(sorted(known))}")  # fmt: skip


def lines(of: Entry) -> Iterator[str]:
    """One entry as text, with what this machine's Neural Engine answered."""
    known = here()
    yield f"{of.name}: {of.provenance}" + (f"; ask a Mac: anex selftest --only {of.probe}" if of.probe else "")
    for rule in of.found:
        sure = "contested" if rule.confidence == "low" else f"{rule.confidence} confidence"
        yield f"  [{rule.id}] {rule.statement}"
        yield f"    {SEVERITIES[rule.severity]} on {chips(rule.chips)}; {sure}; paths {', '.join(rule.path)}; {rule.os}"
        yield f"    sources: {'; '.join(rule.source)}"
        yield f"    way out: {rule.fix}"
        if rule.id in known:
            yield f"    {known[rule.id].said}"


def as_dict(of: Entry) -> dict[str, Any]:
    known = here()
    rules = [{"rule": r.id, "statement": r.statement, "severity": r.severity, "confidence": r.confidence,
              "sources": list(r.source), "fix": r.fix, "chips": list(r.chips), "paths": list(r.path), "os": r.os,
              "here": asdict(known[r.id]) if r.id in known else None}
             for r in of.found]  # fmt: skip
    return {"name": of.name, "provenance": of.provenance, "probe": of.probe, "ops": list(of.ops), "rules": rules}
