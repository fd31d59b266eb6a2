"""Ops in the form of which no project says that it fails."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np

from ..ops.limits import EXACT_SUM, M1, contraction
from ..ops.record import dtype_name, shape, value
from .record import Pass, like, rewrite

if TYPE_CHECKING:
    from coremltools.converters.mil.mil import Operation, Program, Var


def _gelu(op: Operation, mb: Any) -> Var:
    """x / 2 (1 + tanh(sqrt(2 / pi) (x + 0.044715 x^3))); the sigmoid form x s(1.702 x) stays what it is."""
    x = op.inputs["x"]
    result: Var
    if str(value(op, "mode", "EXACT")) == "SIGMOID_APPROXIMATION":
        result = mb.mul(x=x, y=mb.sigmoid(x=mb.mul(x=x, y=like(x, 1.702))))
        return result
    root = math.sqrt(2 / math.pi)
    cubic = mb.add(x=mb.mul(x=mb.mul(x=x, y=x), y=like(x, 0.044715 * root)), y=like(x, root))
    tanh = mb.tanh(x=mb.mul(x=x, y=cubic))  # x^2 overflows first, at 255, where tanh is 1 for long
    result = mb.mul(x=mb.mul(x=x, y=like(x, 0.5)), y=mb.add(x=tanh, y=like(x, 1)))
    return result


def _conv_without_bias(op: Operation, mb: Any) -> Var | None:
    bias = op.inputs.get("bias")
    if bias is None:
        return None
    arguments = {name: var for name, var in op.inputs.items() if name != "bias" and var is not None}
    product = getattr(mb, op.op_type)(**arguments)
    result: Var = mb.add(x=product, y=_per_channel(mb, bias, len(product.shape)))
    return result


def _per_channel(mb: Any, bias: Var, rank: int) -> Any:
    """[C] as [1, C, 1, ...]"""
    dims = (1, shape(bias)[0], *(1,) * (rank - 2))
    return mb.reshape(x=bias, shape=dims) if bias.val is None else bias.val.reshape(dims)


def _linear_as_conv(op: Operation, mb: Any) -> Var | None:
    """[*lead, in] as [1, in, 1, positions], so that the engine's fast unit, the convolution, takes it."""
    x, weight = op.inputs["x"], _weight(op)
    if weight is None or not 2 <= len(x.shape) <= 4:
        return None
    *lead, inner = shape(x)
    rows = mb.reshape(x=x, shape=(1, math.prod(lead), 1, inner))
    columns = mb.transpose(x=rows, perm=(0, 3, 2, 1))
    product = mb.conv(x=columns, weight=np.ascontiguousarray(weight[:, :, None, None]))
    bias = op.inputs.get("bias")
    if bias is not None:
        product = mb.add(x=product, y=_per_channel(mb, bias, 4))
    result: Var = mb.reshape(x=mb.transpose(x=product, perm=(0, 3, 2, 1)), shape=shape(op.outputs[0]))
    return result


def _weight(op: Operation) -> Any:
    """[out, in], when it is constant."""
    if op.op_type == "linear":
        return op.inputs["weight"].val
    y = op.inputs["y"].val
    if y is None or y.ndim != 2 or value(op, "transpose_x", False):
        return None
    return y if value(op, "transpose_y", False) else y.T


def _pad_contraction(op: Operation, mb: Any) -> Var | None:
    """Zeros behind both operands up to the next multiple of 32: they add nothing to a sum."""
    more = -contraction(op) % 32
    if not more:
        return None
    arguments = {name: var for name, var in op.inputs.items() if var is not None}
    if op.op_type == "linear":
        arguments["x"] = _padded(mb, op.inputs["x"], -1, more)
        arguments["weight"] = _padded(mb, op.inputs["weight"], -1, more)
    else:
        if min(len(op.inputs["x"].shape), len(op.inputs["y"].shape)) < 2:
            return None
        arguments["x"] = _padded(mb, op.inputs["x"], -2 if value(op, "transpose_x", False) else -1, more)
        arguments["y"] = _padded(mb, op.inputs["y"], -1 if value(op, "transpose_y", False) else -2, more)
    result: Var = getattr(mb, op.op_type)(**arguments)
    return result


def _padded(mb: Any, var: Var, axis: int, more: int) -> Any:
    rank = len(var.shape)
    ends = [(0, more if i == axis % rank else 0) for i in range(rank)]
    if var.val is not None:
        return np.pad(var.val, ends)
    flat = [n for pair in ends for n in pair]
    return mb.pad(x=var, pad=flat, mode="constant", constant_val=like(var, 0))


def _sum_by_matmul(op: Operation, mb: Any) -> Var | None:
    """Long sums along one of the last two axes as a product with ones, which the engine sums wide."""
    x = op.inputs["x"]
    axes = value(op, "axes")
    rank = len(x.shape)
    if axes is None or len(axes) != 1 or rank < 2 or shape(x)[int(axes[0])] <= EXACT_SUM:
        return None
    axis = int(axes[0]) % rank
    if axis < rank - 2:
        return None
    n = shape(x)[axis]
    last = axis == rank - 1
    ones = like(x, np.ones((n, 1) if last else (1, n)))
    left, right = (x, ones) if last else (ones, x)
    total: Var = mb.matmul(x=left, y=right, transpose_x=False, transpose_y=False)
    return total if value(op, "keep_dims", False) else mb.squeeze(x=total, axes=[axis])


def _plain_indices(op: Operation, mb: Any) -> Var | None:
    """``i`` for ``select(i >= 0, i, i + n)``, by which converters count negative indices from the end."""
    test, index, wrapped = op.inputs["cond"].op, op.inputs["a"], op.inputs["b"].op
    if test is None or wrapped is None or test.op_type != "greater_equal" or wrapped.op_type != "add":
        return None
    zero = test.inputs["y"].val
    same = test.inputs["x"] is index and index in (wrapped.inputs["x"], wrapped.inputs["y"])
    return index if same and zero is not None and not np.any(zero) and dtype_name(index).startswith("int") else None


def _each(to: Any, *op_types: str) -> Any:
    def apply(program: Program) -> None:
        rewrite(program, *op_types, to=to)

    return apply


GELU_TANH = Pass(
    "gelu_tanh",
    "writes gelu with tanh, or with sigmoid where it says so; EXACT then differs by at most 5e-4",
    ("ORI, TRN: the op is refused", "FRG: the op is a table, off by up to 0.08 on M1"),
    _each(_gelu, "gelu"),
)
CONV_BIAS = Pass(
    "conv_bias",
    "adds the bias of a convolution in an op of its own",
    ("ORI: the argument is refused", "FRG, Core ML: it is taken; the addition is safe either way"),
    _each(_conv_without_bias, "conv", "conv_transpose"),
)
LINEAR_TO_CONV = Pass(
    "linear_to_conv",
    "writes linear, and matmul with a constant, as a 1x1 convolution between two transposes",
    ("MDX, ORI: convolutions are 3 times as fast", "FIT: 1.1 to 2.4 times"),
    _each(_linear_as_conv, "linear", "matmul"),
    default=False,
)
MATMUL_PAD_K32 = Pass(
    "matmul_pad_k32",
    "pads what a product sums over to a multiple of 32 with zeros",
    ("TRN: other lengths give zeros on M1", "FRG, LMC: they are right"),
    _each(_pad_contraction, "linear", "matmul"),
    default=False,
    chips=(M1,),
)
SUM_BY_MATMUL = Pass(
    "sum_by_matmul",
    f"sums more than {EXACT_SUM} elements of one of the last two axes by a product with ones",
    ("FRG: reduce_sum adds in fp16, matmul wide; M2 Pro and M5",),
    _each(_sum_by_matmul, "reduce_sum"),
    default=False,
)
PLAIN_INDICES = Pass(
    "plain_indices",
    "takes indices as they are, where converted models count negative ones from the end; for programs that get none",
    ("FRG, APM: the int32 arithmetic of the count is refused",),
    _each(_plain_indices, "select"),
    default=False,
)
