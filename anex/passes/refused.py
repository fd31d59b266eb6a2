"""Ops that the Neural Engine refuses, in ops that it has."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np

from ..ops.limits import EXACT_SUM
from ..ops.record import dtype_name, shape, value
from .record import Pass, is_float, like, rewrite

if TYPE_CHECKING:
    from coremltools.converters.mil.mil import Operation, Program, Var


def _number(mb: Any, truth: Var) -> Var:
    """1 where true, else 0, in fp16. The shape of ``select`` is that of what it chooses from."""
    result: Var = mb.select(cond=truth, a=np.ones(shape(truth), np.float16), b=np.float16(0))
    return result


def _logical_and(op: Operation, mb: Any) -> Any:
    both = mb.mul(x=_number(mb, op.inputs["x"]), y=_number(mb, op.inputs["y"]))
    return mb.greater(x=both, y=np.float16(0.5))


def _logical_or(op: Operation, mb: Any) -> Any:
    either = mb.maximum(x=_number(mb, op.inputs["x"]), y=_number(mb, op.inputs["y"]))
    return mb.greater(x=either, y=np.float16(0.5))


def _logical_xor(op: Operation, mb: Any) -> Any:
    return mb.not_equal(x=_number(mb, op.inputs["x"]), y=_number(mb, op.inputs["y"]))


def _mod(op: Operation, mb: Any) -> Any:
    """x - floor(x / y) * y; of floats: integers are another rule's affair."""
    x, y = op.inputs["x"], op.inputs["y"]
    return mb.sub(x=x, y=mb.mul(x=mb.floor_div(x=x, y=y), y=y)) if is_float(op.outputs[0]) else None


def _tan(op: Operation, mb: Any) -> Any:
    x = op.inputs["x"]
    return mb.real_div(x=mb.sin(x=x), y=mb.cos(x=x))


def _sinh(op: Operation, mb: Any) -> Any:
    """tanh(x) cosh(x): near zero e^x - e^-x would keep nothing of x. As there, each power stands for itself."""
    x = op.inputs["x"]
    return mb.mul(x=mb.tanh(x=x), y=_half_sum_of_powers(mb, x))


def _cosh(op: Operation, mb: Any) -> Any:
    return _half_sum_of_powers(mb, op.inputs["x"])


def _half_sum_of_powers(mb: Any, x: Var) -> Var:
    """(e^x + e^-x) / 2, whose halves are taken in the exponent: e^11 is finite in fp16, 2 e^11 is not."""
    minus = mb.mul(x=x, y=like(x, -1))
    half = like(x, -math.log(2))
    result: Var = mb.add(x=mb.exp(x=mb.add(x=x, y=half)), y=mb.exp(x=mb.add(x=minus, y=half)))
    return result


def _atanh(op: Operation, mb: Any) -> Any:
    """log((1 + x) / (1 - x)) / 2"""
    x = op.inputs["x"]
    ratio = mb.real_div(x=mb.add(x=x, y=like(x, 1)), y=mb.sub(x=like(x, 1), y=x))
    return mb.mul(x=mb.log(x=ratio, epsilon=like(x, 0)), y=like(x, 0.5))


def _asin(op: Operation, mb: Any) -> Any:
    """2 atan(x / (1 + sqrt(1 - x^2))), which divides by nothing below 1."""
    return mb.mul(x=_half_asin(mb, op.inputs["x"]), y=like(op.inputs["x"], 2))


def _acos(op: Operation, mb: Any) -> Any:
    x = op.inputs["x"]
    return mb.sub(x=like(x, math.pi / 2), y=mb.mul(x=_half_asin(mb, x), y=like(x, 2)))


def _half_asin(mb: Any, x: Var) -> Var:
    # (1 - x)(1 + x) keeps what 1 - x^2 would lose near 1
    root = mb.sqrt(x=mb.mul(x=mb.sub(x=like(x, 1), y=x), y=mb.add(x=x, y=like(x, 1))))
    result: Var = mb.atan(x=mb.real_div(x=x, y=mb.add(x=root, y=like(x, 1))))
    return result


def _band_part(op: Operation, mb: Any) -> Any:
    """Times a matrix of ones within the band; select, so that what is cut away may be infinite."""
    x = op.inputs["x"]
    lower, upper = int(value(op, "lower", -1)), int(value(op, "upper", -1))
    rows, columns = np.ogrid[: shape(x)[-2], : shape(x)[-1]]
    keep = ((lower < 0) | (rows - columns <= lower)) & ((upper < 0) | (columns - rows <= upper))
    if not is_float(x):
        return None
    keep = np.broadcast_to(keep, shape(x))
    return mb.select(cond=np.ascontiguousarray(keep), a=x, b=like(x, 0))


def _cumsum(op: Operation, mb: Any) -> Any:
    """A product with a triangle of ones along the axis, which is put last meanwhile."""
    x = op.inputs["x"]
    rank, axis = len(x.shape), int(value(op, "axis", 0)) % len(x.shape)
    if not is_float(x) or rank < 2 or (rank == 5 and axis < 4):  # products of rank-5 transposes do not compile
        return None
    n = shape(x)[axis]
    from_, to = np.ogrid[:n, :n]
    if value(op, "reverse", False):
        from_, to = to, from_
    triangle = (from_ < to) if value(op, "exclusive", False) else (from_ <= to)
    ones = like(x, triangle)
    order = [*range(rank)]
    order[axis], order[-1] = order[-1], order[axis]
    moved = x if axis == rank - 1 else mb.transpose(x=x, perm=order)
    summed = mb.matmul(x=moved, y=ones, transpose_x=False, transpose_y=False)
    return summed if axis == rank - 1 else mb.transpose(x=summed, perm=order)


def _one_hot(op: Operation, mb: Any) -> Any:
    """Indices, as numbers, compared with 0, 1, .. along a new axis; fp16 tells 2048 of them apart."""
    indices, n = op.inputs["indices"], int(value(op, "one_hot_vector_size", 0))
    on, off = (value(op, name) for name in ("on_value", "off_value"))
    result = op.outputs[0]
    if n == 0 or n > EXACT_SUM or on is None or off is None or not is_float(result):
        return None
    axis = int(value(op, "axis", -1)) % len(result.shape)
    numbers = mb.expand_dims(x=mb.cast(x=indices, dtype="fp16"), axes=[axis])
    line = [n if i == axis else 1 for i in range(len(result.shape))]
    hot = mb.equal(x=numbers, y=np.arange(n, dtype=np.float16).reshape(line))
    return mb.select(cond=hot, a=np.full(shape(result), like(result, on)), b=like(result, off))


def _reduce_prod(op: Operation, mb: Any) -> Any:
    """The halves of an axis times each other, until one element is left."""
    x, keep = op.inputs["x"], bool(value(op, "keep_dims", False))
    if not is_float(x):
        return None
    rank = len(x.shape)
    axes = value(op, "axes")
    axes = sorted({int(axis) % rank for axis in (range(rank) if axes is None else axes)})
    for axis in axes:
        n = shape(x)[axis]
        while n > 1:
            half, odd = divmod(n, 2)
            first, second, *rest = mb.split(x=x, split_sizes=[half, half] + [1] * odd, axis=axis)
            x = mb.mul(x=first, y=second)
            if rest and half == 1:
                x = mb.mul(x=x, y=rest[0])
            elif rest:
                x = mb.concat(values=[x, rest[0]], axis=axis)
            n = half + odd if half > 1 else 1
    return x if keep else mb.squeeze(x=x, axes=axes)


def _reshape_like(op: Operation, mb: Any) -> Any:
    return mb.reshape(x=op.inputs["x"], shape=shape(op.outputs[0]))


def _identity(op: Operation, mb: Any) -> Any:
    """Nothing at all, unless it is what tells an output from an input or from another output."""
    x, block = op.inputs["x"], op.enclosing_block
    alone = op.outputs[0] in block.outputs and (x in block.outputs or x in block.inputs.values() or x.val is not None)
    if alone and dtype_name(x) == "fp32":
        return mb.cast(x=mb.cast(x=x, dtype="fp16"), dtype="fp32")
    return None if alone else x


REWRITES = {
    "acos": _acos,
    "asin": _asin,
    "atanh": _atanh,
    "band_part": _band_part,
    "cosh": _cosh,
    "cumsum": _cumsum,
    "identity": _identity,
    "logical_and": _logical_and,
    "logical_or": _logical_or,
    "logical_xor": _logical_xor,
    "mod": _mod,
    "one_hot": _one_hot,
    "reduce_prod": _reduce_prod,
    "reshape_like": _reshape_like,
    "sinh": _sinh,
    "tan": _tan,
}


def _rewrite(program: Program) -> None:
    def one(op: Operation, mb: Any) -> Any:
        return REWRITES[op.op_type](op, mb)

    rewrite(program, *REWRITES, to=one)


REWRITE_REFUSED = Pass(
    "rewrite_refused",
    f"writes {', '.join(REWRITES)} in ops that the engine has",
    ("SWP: refused on M5 Pro", "FRG: cumsum as a product with a triangle, and as product, or as maximum"),
    _rewrite,
)
