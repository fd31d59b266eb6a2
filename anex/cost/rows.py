"""Rows of published measurements as loads: what their columns say, and what they leave open."""

from __future__ import annotations

import csv
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from ..errors import FormatError, MissingFileError
from .work import MIB, PATHS, SCHEMES, Load, Work

HEAD = 64  # the width of an attention head in every published block
LARGEST_FILE = 64 * MIB
LARGEST = 1e9  # of any column
NEEDED = ("chip", "workload")
# Facts about more, or less, than one call of one program.
PLAIN_OPS = ("", "relu", "streaming", "add", "sub", "mul", "maximum", "minimum", "abs", "clip")
NOT_ONE_PROGRAM = {
    "train_step": "a training step is many programs and the host's work between them",
    "train_step_ane_part": "part of a training step is many programs",
    "whole_model": "the row names a model, not its ops: give the model itself to `anex cost MODEL`",
    "vision_encoder": "the row names a model, not its ops: give the model itself to `anex cost MODEL`",
    "vit_block": "the row names a model, not its ops: give the model itself to `anex cost MODEL`",
    "prefill": "the time includes compiling",
    "peak": "a peak has no configuration",
    "bridge": "the op runs in a program of its own with a route that nobody described",
    "other": "the workload is described by its name alone",
    "dispatch": "",
}


class CannotPrice(ValueError):
    """Why a row has no prediction, in words."""


@dataclass(frozen=True)
class Row:
    """One line of the file: ``load`` is None where the line says too little, and ``why`` says what."""

    id: str
    chip: str
    path: str
    source: str
    op: str
    load: Load | None
    ms: float | None
    why: str


def read(path: str | Path) -> list[Mapping[str, str]]:
    """The lines of a CSV file with a header."""
    path = Path(path)
    try:
        if path.stat().st_size > LARGEST_FILE:
            raise FormatError(f"{path} is larger than {LARGEST_FILE // MIB} MiB, which no file of measurements is")
        with path.open(newline="", encoding="utf-8-sig") as file:
            table = csv.DictReader(file)
            if missing := [name for name in NEEDED if name not in (table.fieldnames or ())]:
                raise FormatError(f"{path} has no column {', '.join(missing)}; a header line is needed")
            return [{k: (v or "").strip() for k, v in line.items() if isinstance(k, str) and not isinstance(v, list)}
                    for line in table]  # fmt: skip
    except FileNotFoundError as error:
        raise MissingFileError(f"{path} does not exist") from error
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise FormatError(f"{path} cannot be read as CSV: {error}") from error


def row(line: Mapping[str, str], number: int = 0) -> Row:
    """One line; never raises."""
    get = line.get
    path = (get("path") or "private").lower()
    try:
        if path not in PATHS:
            raise CannotPrice(f"path {path!r} is none of {', '.join(PATHS)}")
        found, why = load(line, path), ""
    except CannotPrice as error:
        found, why = None, str(error)
    return Row(
        get("row_id") or f"line {number}", get("chip") or "unknown", path, get("source") or "", get("op") or "", found,
        _number(line, "ms"), why,
    )  # fmt: skip


def rows(lines: Sequence[Mapping[str, str]]) -> list[Row]:
    return [row(line, number) for number, line in enumerate(lines, 2)]


# ---- one line ----------------------------------------------------------------------------------------------------


def load(line: Mapping[str, str], path: str) -> Load:
    workload = line.get("workload", "")
    if workload == "dispatch":
        return Load((), 0, 0, workload)
    if workload in NOT_ONE_PROGRAM:
        raise CannotPrice(NOT_ONE_PROGRAM[workload])
    if workload not in _LOADS:
        raise CannotPrice(f"workload {workload!r} is none of {', '.join(sorted({*_LOADS, 'dispatch'}))}")
    sizes = Sizes(line)
    works, in_bytes, out_bytes = _LOADS[workload](sizes)
    # some rows time the same ops one program each
    starts = sizes.depth if "standalone" in line.get("note", "") else 1
    return Load(tuple(works), in_bytes, out_bytes, workload, starts)


def _number(line: Mapping[str, str], name: str) -> float | None:
    try:
        found = float(line.get(name) or "nan")
    except ValueError:
        return None
    return found if math.isfinite(found) and found >= 0 else None


class Sizes:
    """The columns as numbers; what is missing is derived from the others, or is an error that names it."""

    def __init__(self, line: Mapping[str, str]) -> None:
        self.line = line
        for name in ("depth", "in_ch", "out_ch", "height", "width", "batch", "weight_mb", "act_mb", "gflop"):
            if (_number(line, name) or 0) > LARGEST:
                raise CannotPrice(f"column {name} is {line[name]}, beyond anything an engine takes")
        self.path = line.get("path") or "private"
        self.kernel = int(self.or_else("kernel", 1)) or 1
        if (line.get("kernel") or "")[1:2] == "x":  # 3x3
            self.kernel = int(line["kernel"][0]) if line["kernel"][0].isdigit() else 1
        if (op := line.get("op", "")).startswith("conv") and op[4:5].isdigit():
            self.kernel = int(op[4])
        self.depth = max(1, int(self.or_else("depth", 1)))
        self.batch = max(1.0, self.or_else("batch", 1))
        self.scheme = line.get("dtype") or "fp16"
        if self.scheme not in SCHEMES:
            raise CannotPrice(f"dtype {self.scheme!r} is none of {', '.join(SCHEMES)}")

    def or_else(self, name: str, otherwise: float) -> float:
        found = _number(self.line, name)
        return otherwise if found is None else found

    def need(self, name: str) -> float:
        found = _number(self.line, name)
        if found is None or found <= 0:
            raise CannotPrice(f"column {name} is missing")
        return found

    @property
    def channels(self) -> tuple[int, int]:
        into = self.need("in_ch")
        return int(into), int(self.or_else("out_ch", into) or into)

    @property
    def positions(self) -> float:
        return max(1.0, self.or_else("height", 1) or 1) * self.need("width") * self.batch

    @property
    def in_bytes(self) -> float:
        found = _number(self.line, "act_mb")
        return found * MIB if found else 2 * self.channels[0] * self.positions

    def flops(self, otherwise: float) -> float:
        found = _number(self.line, "gflop")
        return found * 1e9 if found else otherwise

    def weights(self, parameters: float) -> float:
        """Bytes as stored."""
        found = _number(self.line, "weight_mb")
        if found:
            return found * MIB
        return parameters * {"fp16": 2, "w8": 1, "w8a8": 1, "int4lut": 0.5, "lut6": 0.75, "sparse": 0.75}[self.scheme]


Found = tuple[list[Work], float, float]


def _conv(s: Sizes) -> Found:
    into, out = s.channels
    one = into * out * s.kernel**2
    # the published writers of private conv chains give every layer the same bytes of one file: one layer streams
    layers = 1 if s.path == "private" else s.depth
    weights = s.weights(one * s.depth) * layers / s.depth
    flops = s.flops(2.0 * one * s.positions * s.depth)
    kind = "conv1x1" if s.kernel == 1 else "conv"
    work = Work(kind, flops, weights, s.in_bytes, s.positions, (into, out), s.scheme, s.depth)
    return [work], s.in_bytes, 2 * out * s.positions


def _linear(s: Sizes) -> Found:
    into, out = s.channels
    flops = s.flops(2.0 * into * out * s.positions)
    out_bytes = 2 * out * s.positions
    work = Work("linear", flops, s.weights(into * out), (s.in_bytes + out_bytes) / s.batch, s.positions,
                (into, out), s.scheme)  # fmt: skip
    return [work], s.in_bytes, out_bytes


def _pass(kind: str, shrinks: bool = False) -> Callable[[Sizes], Found]:
    def found(s: Sizes) -> Found:
        out = s.in_bytes / max(1.0, s.need("width")) if shrinks else s.in_bytes
        return [Work(kind, bytes=s.in_bytes)], s.in_bytes, out

    return found


def _elementwise(s: Sizes) -> Found:
    plain = s.line.get("op", "") in PLAIN_OPS
    return [Work("elementwise" if plain else "table", bytes=s.in_bytes)], s.in_bytes, s.in_bytes


def _attention_works(s: Sizes, tokens: float, width: float) -> list[Work]:
    """Scores of every head: two products of runtime values, a softmax, and the passes over what lies between."""
    scores = 2 * tokens * tokens * (width / HEAD) * s.batch
    flops = 4 * tokens * tokens * width * s.batch
    return [Work("matmul", flops, bytes=scores, positions=tokens), Work("softmax", bytes=scores),
            Work("scores", bytes=scores)]  # fmt: skip


def _attention(s: Sizes) -> Found:
    width, tokens = s.channels[0], s.need("width")
    inner = _attention_works(s, tokens, width)
    flops = s.flops(8.0 * tokens * width**2 * s.batch + inner[0].flops) - inner[0].flops
    weights = s.weights(4 * width**2)
    outer = Work("linear", flops, weights, 2 * s.in_bytes / s.batch, tokens * s.batch, (width, width), s.scheme, 4)
    return [outer, *inner], s.in_bytes, s.in_bytes


def _encoder(s: Sizes) -> Found:
    width, hidden = s.channels
    tokens = s.need("width")
    inner = _attention_works(s, tokens, width)
    parameters = 4 * width**2 + 2 * width * hidden
    flops = s.flops(2.0 * parameters * tokens * s.batch + inner[0].flops) - inner[0].flops
    touched = s.in_bytes * (1 + hidden / width) / s.batch
    outer = Work("linear", flops, s.weights(parameters), touched, tokens * s.batch, (width, width), s.scheme, 6)
    return [outer, *inner, Work("layer_norm", bytes=2 * s.in_bytes, count=2)], s.in_bytes, s.in_bytes


def _sdpa(s: Sizes) -> Found:
    """Queries, keys and values are inputs."""
    width, tokens = s.channels[0], s.need("width")
    one = 2 * width * tokens * s.batch
    return _attention_works(s, tokens, width), 3 * one, one


def _vision(s: Sizes) -> Found:
    flops, weights = s.flops(0) or s.need("gflop"), s.weights(0) or s.need("weight_mb")
    pixels = s.need("height") * s.need("width") * s.batch
    work = Work("conv", flops, weights, s.in_bytes, pixels, s.channels, s.scheme, s.depth)
    return [work], s.in_bytes, 2 * 1000 * s.batch


def _decode(s: Sizes) -> Found:
    """One token: every weight once; the keys and values so far come in, and their new ones go out."""
    weights = s.need("weight_mb") * MIB
    into, out = (int(s.or_else(name, 0)) for name in ("in_ch", "out_ch"))
    cache = s.or_else("act_mb", 0) * MIB
    flops = s.flops(weights * s.batch)
    work = Work("linear", flops, weights, 0.0, s.batch, (into, out), s.scheme, 7 * s.depth)
    return [work, Work("scores", bytes=cache)], cache, 4 * 32000 * s.batch


def _fused(s: Sizes) -> Found:
    (work,), in_bytes, out_bytes = _conv(s)
    return [work, Work("elementwise", bytes=s.in_bytes * s.depth, count=s.depth)], in_bytes, out_bytes


_LOADS: dict[str, Callable[[Sizes], Found]] = {
    "conv_chain": _conv, "conv_single": _conv, "dwconv": _conv, "matmul": _linear, "gemv": _linear, "lm_head": _linear,
    "elementwise": _elementwise, "softmax": _pass("softmax"), "layer_norm": _pass("layer_norm"),
    "rms_norm": _pass("rms_norm"), "l2_norm": _pass("norm"), "group_norm": _pass("norm"), "pool": _pass("pool"),
    "reduce": _pass("reduce", shrinks=True), "attention": _attention, "encoder_block": _encoder, "sdpa": _sdpa,
    "vision_cnn": _vision, "llm_decode": _decode, "fused_block": _fused,
}  # fmt: skip
