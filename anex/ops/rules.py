"""The Neural Engine's rules for every op: rank, static shapes, dtypes and extents."""

from __future__ import annotations

import functools
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import numpy as np

from .acceptance import never
from .record import CACHED, dtype_name, is_list, shape, tensors
from .rule import BEFORE_H16, FAMILIES, PATHS, Check, Cliff, Rule

if TYPE_CHECKING:
    from coremltools.converters.mil.mil import Operation, Var

MAX_RANK = 5
SPATIAL_LIMIT = {chip: 16384 if chip in BEFORE_H16 else 65536 for chip in FAMILIES}
CHANNEL_LIMIT = 65536
GUIDE_LIMIT = 16384  # which S04 says is crossed when it is reached

# Ops that order, cut or copy elements without computing with them.
MOVES = frozenset({
    "band_part", "batch_to_space", "concat", "crop", "depth_to_space", "expand_dims", "fill", "fill_like", "flatten2d",
    "gather", "gather_along_axis", "gather_nd", "identity", "pad", "pixel_shuffle", "pixel_unshuffle", "range_1d",
    "reshape", "reshape_like", "reverse", "reverse_sequence", "scatter", "scatter_along_axis", "scatter_nd", "select",
    "slice_by_index", "slice_by_size", "slice_update", "sliding_windows", "space_to_batch", "space_to_depth", "split",
    "squeeze", "stack", "tile", "transpose",
})  # fmt: skip
# Ops whose integers are part of what they do, and that have their own rules.
ABOUT_INTEGERS = frozenset({
    "argsort", "cast", "dequantize", "non_maximum_suppression", "one_hot", "quantize", "reduce_argmax",
    "reduce_argmin", "shape", "topk",
})  # fmt: skip
# Ops whose result, or operand, is a truth value.
ABOUT_TRUTH = frozenset({
    "equal", "greater", "greater_equal", "less", "less_equal", "logical_and", "logical_not", "logical_or",
    "logical_xor", "not_equal", "scaled_dot_product_attention", "select",
})  # fmt: skip
# Arguments that say where, not what.
PLACES = frozenset({"begin", "end", "indices", "lengths", "pred", "reps", "shape", "size", "stride", "cond"})


def moving(op: Operation) -> Iterator[Var]:
    """The tensors that pass through the op; constants such as weights are not among them."""
    yield from (var for var in tensors(op) if not is_weight(var))
    yield from (var for var in op.outputs if not is_list(var))


def is_weight(var: Var) -> bool:
    """A constant, packed or not."""
    return var.val is not None or (var.op is not None and var.op.op_type.startswith("constexpr_"))


def is_static(var: Var) -> bool:
    return not is_list(var) and _has_fixed_shape(var.sym_type)


@functools.lru_cache(maxsize=CACHED)
def _has_fixed_shape(kind: Any) -> bool:
    kind = kind.wrapped_type() if hasattr(kind, "wrapped_type") else kind  # a state's
    if not hasattr(kind, "get_shape"):
        return True  # a scalar, whose shape is ()
    found = kind.get_shape()
    return found is not None and all(isinstance(dim, (int, np.integer)) for dim in found)


def _static(check: Check) -> Check:
    """Dynamic shapes are one rule's affair; the others look at fixed ones."""
    return lambda op, chip: check(op, chip) if all(map(is_static, moving(op))) else None


def dynamic_shape(op: Operation, chip: str) -> str | None:
    for var in moving(op):
        if not is_static(var):
            return f"{var.name} has the shape {tuple(map(str, var.shape or ()))}"
        if 0 in (var.shape or ()):
            return f"{var.name} is empty: {shape(var)}"
    return None


def rank_above_5(op: Operation, chip: str) -> str | None:
    for var in moving(op):
        if len(var.shape or ()) > MAX_RANK:
            return f"rank {len(var.shape)}"
    return None


def computes_in_fp32(op: Operation, chip: str) -> str | None:
    if op.op_type == "cast":  # at the edge of the program fp32 is welcome
        return None
    for var in moving(op):  # constants such as epsilon may be wider
        if dtype_name(var) in ("fp32", "fp64"):
            return f"{var.name} is {dtype_name(var)}"
    return None


def computes_with_integers(op: Operation, chip: str) -> str | None:
    if op.op_type in MOVES or op.op_type in ABOUT_INTEGERS:
        return None
    return _integer(op)


def moves_integers(op: Operation, chip: str) -> str | None:
    return _integer(op) if op.op_type in MOVES else None


def _integer(op: Operation) -> str | None:
    places = {var.name for name, var in op.inputs.items() if name in PLACES and hasattr(var, "sym_type")}
    for var in moving(op):
        kind = dtype_name(var)
        truth = kind == "bool" and op.op_type in ABOUT_TRUTH
        if not kind.startswith("fp") and not truth and var.name not in places:
            return f"{var.name} is {kind}"
    return None


def spatial_extent(op: Operation, chip: str) -> str | None:
    """H and W of [N, C, H, W]; the last axis of [N, C, S]."""
    for var in moving(op):
        dims = shape(var)
        for extent in dims[-2:] if len(dims) >= 4 else dims[2:]:
            if extent > SPATIAL_LIMIT[chip]:
                return f"{var.name} {dims} has an axis of {extent}; the limit is {SPATIAL_LIMIT[chip]}"
    return None


def _guide_extent(op: Operation, chip: str) -> str | None:
    """What the field guide would refuse on every chip, and measurements allow."""
    if spatial_extent(op, chip):
        return None
    for var in moving(op):
        dims = shape(var)
        for extent in dims[-2:] if len(dims) >= 4 else dims[2:]:
            if extent >= GUIDE_LIMIT:
                return f"{var.name} {dims} has an axis of {extent}; the guide's limit is {GUIDE_LIMIT}"
    return None


def flat_extent(op: Operation, chip: str) -> str | None:
    for var in moving(op):
        dims = shape(var)
        if len(dims) in (1, 2) and dims[-1] > SPATIAL_LIMIT[chip]:
            return f"{var.name} {dims} has an axis of {dims[-1]}; the limit on a spatial axis is {SPATIAL_LIMIT[chip]}"
    return None


def channel_extent(op: Operation, chip: str) -> str | None:
    for var in moving(op):
        dims = shape(var)
        if len(dims) >= 3 and dims[-3 if len(dims) >= 4 else -2] > CHANNEL_LIMIT:
            return f"{var.name} {dims} has too many channels; the limit is {CHANNEL_LIMIT}"
    return None


RANK = Rule(
    "rank", f"tensors have at most {MAX_RANK} axes", "E", "high", rank_above_5,
    ("FRG: rank 6 does not compile",), "merge axes with reshape",
)  # fmt: skip
STATIC = Rule(
    "static-shape", "the compiler fixes every shape", "E", "high", dynamic_shape,
    ("MDX", "CRN", "S04"), "give every input a fixed shape, one program per size",
)  # fmt: skip
FP16 = Rule(
    "fp16-only", "the engine computes in fp16 alone", "E", "high", computes_in_fp32,
    ("FRG", "TRN", "MDX", "ORI", "HOL"),
    "build the program in fp16, with values within ±65504, and cast at its edges", cure="fp16_compute",
)  # fmt: skip
INTEGERS = Rule(
    "integer-compute", "there is no integer arithmetic", "E", "high", computes_with_integers,
    ("FRG", "TRN", "APM: the compiler calls int32 tensors an unsupported type"),
    "cast to fp16 first, exact up to 2048, or compute it on the host; for indices that are never negative switch on "
    "the pass plain_indices", cure="plain_indices",
)  # fmt: skip
INTEGER_DATA = Rule(
    "integer-data", "whether the engine moves tensors that are not floating is not settled", "E", "medium",
    moves_integers, ("APM: the compiler calls int32 tensors an unsupported type", "H3: int32 ports are reported"),
    "move the fp16 form, or do it on the host",
)  # fmt: skip
SPATIAL = Rule(
    "axis-extent", "a spatial axis has at most 16384 elements up to M3 and 65536 from M4 on", "E", "high",
    _static(spatial_extent),
    ("FRG: 16385 refused on M1 and M2, 65536 taken on M5", "RNE: 16384 taken, 17920 refused on M3 Ultra",
     "S04: 16384 per axis"),
    "split the axis, or put it on the channels (65536)",
)  # fmt: skip
FLAT = Rule(
    "flat-extent", "long axes of tensors of rank 1 and 2 may count as spatial", "E", "medium",
    _static(flat_extent), ("FRG: extents of spatial axes", "TRN: [1, N] fails above 16384 elements on M1"),
    "give the tensor the shape [1, C, 1, S] with S below the limit",
)  # fmt: skip
GUIDE_SPATIAL = Rule(
    "axis-extent-contested", "whether an axis of 16384 stays on the engine, and a longer one from M4 on, is contested",
    "F", "low", _static(_guide_extent),
    ("S04: 16384 crosses the limit, on every chip", "FRG: 65536 taken on M5", "RNE: 16384 taken on M3 Ultra"),
    "attend in chunks of 256 or 512: anex.attention.chunked", FAMILIES, PATHS, os="macOS 14 (S04), 26 (FRG)",
)  # fmt: skip
CHANNELS = Rule(
    "channel-extent", f"there are at most {CHANNEL_LIMIT} channels", "E", "high", _static(channel_extent),
    ("FRG: 65537 channels refused",), "split the channels",
)  # fmt: skip
SUBNORMAL = Rule(
    "subnormal", "results below 2^-14, fp16's least normal number, become zero inside a program", "I", "medium", never,
    ("H3: operands times 0.25 vanish, times 4 are right", "FRG", "TRN: epsilons from 1e-4 on"),
    "scale up before, and down after", cliff=Cliff("anex_flush", 2.0**-14),
)  # fmt: skip

GENERIC = (RANK, STATIC, FP16, INTEGERS, INTEGER_DATA, SPATIAL, GUIDE_SPATIAL, FLAT, CHANNELS, SUBNORMAL)
