"""Rows of published measurements as loads: what their columns say, and what they leave open."""

from __future__ import annotations

import csv
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from ..errors import FormatError, MissingFileError
from . import named
from .columns import ALIASES, CannotPrice, Sizes, milliseconds, normal, path_of
from .work import MIB, Load, Work, attention_works

LARGEST_FILE = 64 * MIB
NEEDED = ("chip", "workload")
PLAIN_OPS = ("", "relu", "streaming", "add", "sub", "mul", "maximum", "minimum", "abs", "clip")
# Facts about more, or less, than one call of one program.
NOT_ONE_PROGRAM = {
    "train_step": "a training step is many programs and the host's work between them",
    "train_step_host_part": "the host's part of a training step, in which no program runs",
    "prefill": "the time includes compiling",
    "peak": "a peak has no configuration, and no time",
    "kernel": "the row says neither what the kernel does nor how large it is",
}
NAMED = ("whole_model", "vision_encoder", "vit_block", "llm_decode", "train_step_ane_part", "other", "bridge")
# What others call the workloads.
SYNONYMS = {
    **dict.fromkeys(("conv", "conv2d", "convolution", "conv1x1", "conv3x3", "pointwise"), "conv_single"),
    **dict.fromkeys(("conv_stack", "convchain", "peak_chain", "inmem_peak", "inmem_peak_int8"), "conv_chain"),
    **dict.fromkeys(("inmem_bench", "sram_bench", "sram_probe"), "conv_single"),
    **dict.fromkeys(("depthwise", "depthwise_conv", "conv_dw"), "dwconv"),
    **dict.fromkeys(("gemm", "linear", "dense", "mm", "fully_connected", "projection"), "matmul"),
    **dict.fromkeys(("matvec", "mv"), "gemv"),
    **dict.fromkeys(("lmhead", "classifier"), "lm_head"),
    **dict.fromkeys(("layernorm", "ln"), "layer_norm"),
    **dict.fromkeys(("rmsnorm",), "rms_norm"),
    **dict.fromkeys(("groupnorm", "instance_norm", "batch_norm"), "group_norm"),
    **dict.fromkeys(("max_pool", "avg_pool", "pooling"), "pool"),
    **dict.fromkeys(("reduction", "reduce_sum", "reduce_mean", "reduce_max", "sum", "mean"), "reduce"),
    **dict.fromkeys(("mha", "self_attention", "attention_block"), "attention"),
    **dict.fromkeys(("scaled_dot_product_attention", "flash_attention"), "sdpa"),
    **dict.fromkeys(("encoder", "transformer", "transformer_block", "encoder_layer"), "encoder_block"),
    **dict.fromkeys(("ffn", "mlp", "feed_forward"), "mlp"),
    **dict.fromkeys(("vision", "cnn"), "vision_cnn"),
    **dict.fromkeys(("decode", "llm", "decoder_step"), "llm_decode"),
    **dict.fromkeys(("pointwise_op", "unary", "binary", "activation", "add", "mul", "sub", "real_div", "relu", "gelu",
                     "silu", "sigmoid", "tanh", "exp", "clip", "sqrt", "rsqrt", "copy", "streaming"), "elementwise"),
    **dict.fromkeys(("fused", "fused_kernel"), "fused_block"),
    **dict.fromkeys(("overhead", "noop", "launch"), "dispatch"),
}  # fmt: skip
UNLIKE = 0.45  # more spread, in logarithms, of rows that are like nothing measured


@dataclass(frozen=True)
class Row:
    """One line of the file: ``load`` is None where the line says too little, and ``why`` says what.

    ``note``: what was taken for granted. ``beyond``: more spread, in logarithms, for that.
    """

    id: str
    chip: str
    path: str
    source: str
    op: str
    load: Load | None
    ms: float | None
    why: str
    note: str = ""
    beyond: float = 0.0


def read(path: str | Path) -> list[Mapping[str, str]]:
    """The lines of a CSV file with a header."""
    path = Path(path)
    try:
        if path.stat().st_size > LARGEST_FILE:
            raise FormatError(f"{path} is larger than {LARGEST_FILE // MIB} MiB, which no file of measurements is")
        with path.open(newline="", encoding="utf-8-sig") as file:
            table = csv.DictReader(file)
            names = {name.strip().lower() for name in table.fieldnames or () if name}
            names |= {ALIASES[name][0] for name in names if name in ALIASES}
            if "op" in names:  # which says as much
                names.add("workload")
            if missing := [name for name in NEEDED if name not in names]:
                raise FormatError(f"{path} has no column {', '.join(missing)}; a header line is needed")
            return [{k: (v or "").strip() for k, v in line.items() if isinstance(k, str) and not isinstance(v, list)}
                    for line in table]  # fmt: skip
    except FileNotFoundError as error:
        raise MissingFileError(f"{path} does not exist") from error
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise FormatError(f"{path} cannot be read as CSV: {error}") from error


def row(line: Mapping[str, str], number: int = 0) -> Row:
    """One line; never raises."""
    line = normal(line)
    get, path, note, beyond = line.get, get_path(line), "", 0.0
    try:
        path_of(line)
        found, note, beyond = load(line)
        why = ""
    except CannotPrice as error:
        found, why = None, str(error)
    return Row(
        get("row_id") or f"line {number}", get("chip") or "unknown", path, get("source") or "", get("op") or "", found,
        milliseconds(line), why, note, beyond,
    )  # fmt: skip


def get_path(line: Mapping[str, str]) -> str:
    try:
        return path_of(line)
    except CannotPrice:
        return line.get("path", "")


def rows(lines: Sequence[Mapping[str, str]]) -> list[Row]:
    return [row(line, number) for number, line in enumerate(lines, 2)]


# ---- one line ----------------------------------------------------------------------------------------------------


def workload_of(line: Mapping[str, str]) -> str:
    """As the model has it; of a row without one, by its op."""
    for name in (line.get("workload", ""), line.get("op", "")):
        plain = name.strip().lower().replace(" ", "_").replace("-", "_")
        plain = plain.split(".")[-1]  # ios18.conv
        found = SYNONYMS.get(plain, plain)
        if found in _LOADS or found in NOT_ONE_PROGRAM or found in NAMED or found == "dispatch":
            return found
    return ""


def load(line: Mapping[str, str]) -> tuple[Load, str, float]:
    """The load, what was taken for granted, and how much more it may be off."""
    workload = workload_of(line)
    if workload == "dispatch":
        return Load((), 0, 0, workload), "", 0.0
    if workload in NOT_ONE_PROGRAM:
        raise CannotPrice(NOT_ONE_PROGRAM[workload])
    sizes = Sizes(line)
    if workload in NAMED and (workload != "llm_decode" or not sizes.optional("weight_mb")):
        return named.load(workload, sizes)
    if not workload:
        return _by_counts(line, sizes)
    works, in_bytes, out_bytes = _LOADS[workload](sizes)
    # some rows time the same ops one program each, and each copies what it takes and gives
    starts = sizes.depth if "standalone" in sizes.note else 1
    return Load(tuple(works), in_bytes * starts, out_bytes * starts, workload, starts), "", 0.0


def _by_counts(line: Mapping[str, str], s: Sizes) -> tuple[Load, str, float]:
    """A workload nobody measured, by its FLOP and bytes alone."""
    name = line.get("workload") or line.get("op") or ""
    flops, weights, data = s.optional("gflop"), s.optional("weight_mb"), s.optional("act_mb")
    if not (flops or weights or data):
        known = ", ".join(sorted({*_LOADS, "dispatch"}))
        raise CannotPrice(f"workload {name!r} is none of {known}, and no column counts its FLOP or bytes")
    in_bytes = (data or 0.0) * MIB
    positions = max(1.0, s.or_else("height", 1)) * max(1.0, s.or_else("width", 64)) * s.batch
    channels = int(s.or_else("in_ch", 0)), int(s.or_else("out_ch", s.or_else("in_ch", 0)))
    works = [Work("elementwise", bytes=in_bytes)]
    if flops or weights:
        works = [Work("linear", (flops or 0.0) * 1e9, (weights or 0.0) * MIB, 0.0, positions, channels, s.scheme)]
    return Load(tuple(works), in_bytes, in_bytes, "unknown"), f"workload {name!r} by its counts alone", UNLIKE


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


def _attention(s: Sizes) -> Found:
    width, tokens = s.channels[0], s.need("width")
    inner = attention_works(tokens, width, s.batch)
    flops = max(0.0, s.flops(8.0 * tokens * width**2 * s.batch + inner[0].flops) - inner[0].flops)
    weights = s.weights(4 * width**2)
    outer = Work("linear", flops, weights, 2 * s.in_bytes / s.batch, tokens * s.batch, (width, width), s.scheme, 4)
    return [outer, *inner], s.in_bytes, s.in_bytes


def _encoder(s: Sizes) -> Found:
    width, hidden = s.channels
    tokens = s.need("width")
    inner = attention_works(tokens, width, s.batch)
    parameters = 4 * width**2 + 2 * width * hidden
    flops = max(0.0, s.flops(2.0 * parameters * tokens * s.batch + inner[0].flops) - inner[0].flops)
    touched = s.in_bytes * (1 + hidden / width) / s.batch
    outer = Work("linear", flops, s.weights(parameters), touched, tokens * s.batch, (width, width), s.scheme, 6)
    works = [outer, *inner, Work("layer_norm", bytes=2 * s.in_bytes, count=2)]
    if "bmm+softmax" in s.note:  # this benchmark alone keeps the rows of its batch in rank 2
        works.append(Work("flat", bytes=(2 + hidden / width) * s.in_bytes, count=3))
    return works, s.in_bytes, s.in_bytes


def _mlp(s: Sizes) -> Found:
    width, hidden = s.channels
    columns = s.positions
    parameters = 2 * width * hidden
    touched = s.in_bytes * (1 + hidden / width) / s.batch
    outer = Work("linear", s.flops(2.0 * parameters * columns), s.weights(parameters), touched, columns,
                 (width, hidden), s.scheme, 2)  # fmt: skip
    return [outer, Work("table", bytes=2 * hidden * columns)], s.in_bytes, s.in_bytes


def _sdpa(s: Sizes) -> Found:
    """Queries, keys and values are inputs."""
    width, tokens = s.channels[0], s.need("width")
    one = 2 * width * tokens * s.batch
    return attention_works(tokens, width, s.batch), 3 * one, one


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
    """One convolution and what follows it: ``depth`` ops."""
    (work,), in_bytes, out_bytes = _conv(s)
    return [work, Work("elementwise", bytes=s.in_bytes * s.depth, count=s.depth)], in_bytes, out_bytes


def _depthwise(s: Sizes) -> Found:
    channels, _ = s.channels
    one = channels * s.kernel ** (1 if s.or_else("height", 1) <= 1 else 2)
    work = Work("conv", s.flops(2.0 * one * s.positions * s.depth), s.weights(one * s.depth), s.in_bytes, s.positions,
                (1, 1), s.scheme, s.depth)  # fmt: skip
    return [work], s.in_bytes, s.in_bytes


_LOADS: dict[str, Callable[[Sizes], Found]] = {
    "conv_chain": _conv, "conv_single": _conv, "dwconv": _depthwise, "matmul": _linear, "gemv": _linear,
    "lm_head": _linear,
    "elementwise": _elementwise, "softmax": _pass("softmax"), "layer_norm": _pass("layer_norm"),
    "rms_norm": _pass("rms_norm"), "l2_norm": _pass("norm"), "group_norm": _pass("norm"), "pool": _pass("pool"),
    "reduce": _pass("reduce", shrinks=True), "attention": _attention, "encoder_block": _encoder, "sdpa": _sdpa,
    "mlp": _mlp, "vision_cnn": _vision, "llm_decode": _decode, "fused_block": _fused,
}  # fmt: skip
