"""Attention that a program writes out, as ``matmul, softmax, matmul``, found again so that it runs as one op.

All scores are in memory between those ops, and each pass over them costs as much as a product of small heads.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from coremltools.converters.mil.mil import Operation, Var


@dataclass(frozen=True)
class Attention:
    """softmax(query . key^T * scale + mask) . value.

    Each operand is (var, its last two axes are exchanged); so is what the op gives, by ``is_turned``.
    """

    operands: dict[str, tuple[Var, bool]]
    mask: Var | None
    scale: float
    is_turned: bool


def found(op: Operation) -> Attention | None:
    """What the matmul ``op`` ends, if nobody else reads what is computed on the way."""
    ends = _weighted(op)
    if ends is None:
        return None
    weights, value, is_turned = ends
    softmax = _made_by(weights, "softmax")
    if softmax is None or not _is_last(softmax):
        return None
    scores, mask = _masked(softmax.inputs["x"])
    scores, scale = _scaled(scores)
    product = _made_by(scores, "matmul")
    if product is None:
        return None
    query, by_query = _scaled(product.inputs["x"])
    key, by_key = _scaled(product.inputs["y"])
    operands = {
        "query": (query, _flag(product, "transpose_x")),
        "key": (key, not _flag(product, "transpose_y")),
        "value": value,
    }
    if not _agree(operands, scores) or (mask is not None and not _is_mask(mask, scores)):
        return None
    return Attention(operands, mask, scale * by_query * by_key, is_turned)


def _weighted(op: Operation) -> tuple[Var, tuple[Var, bool], bool] | None:
    """(weights, value, the result is turned) of weights . value, or of value^T . weights^T."""
    x, y = op.inputs["x"], op.inputs["y"]
    if _made_by(x, "softmax") is not None and not _flag(op, "transpose_x"):
        return x, (y, _flag(op, "transpose_y")), False
    if _made_by(y, "softmax") is not None and _flag(op, "transpose_y"):
        return y, (x, not _flag(op, "transpose_x")), True
    return None


def _made_by(var: Var, op_type: str) -> Operation | None:
    """The op of that kind that makes ``var``, which only one op reads."""
    op = var.op
    if op is None or op.op_type != op_type or len(var.child_ops) != 1 or var.consuming_blocks:
        return None
    return op


def _flag(op: Operation, name: str) -> bool:
    given = op.inputs.get(name)
    return given is not None and bool(given.val)


def _is_last(softmax: Operation) -> bool:
    rank = len(softmax.inputs["x"].shape)
    return int(softmax.inputs["axis"].val) % rank == rank - 1


def _masked(var: Var) -> tuple[Var, Var | None]:
    """What a mask is added to, and the mask."""
    op = _made_by(var, "add")
    if op is None:
        return var, None
    pair = [op.inputs["x"], op.inputs["y"]]
    for scores, mask in (pair, pair[::-1]):
        if scores.shape == var.shape and _made_by(_scaled(scores)[0], "matmul") is not None:
            return scores, mask
    return var, None


def _scaled(var: Var) -> tuple[Var, float]:
    """What constant numbers multiply and divide, and the factor; without one, ``var`` and 1."""
    product = 1.0
    while (step := _factor(var)) is not None:
        var, product = step[0], product * step[1]
    return var, product


def _factor(var: Var) -> tuple[Var, float] | None:
    for op_type in ("mul", "real_div"):
        op = _made_by(var, op_type)
        if op is None:
            continue
        pair = [op.inputs["x"], op.inputs["y"]]
        for x, number in (pair, pair[::-1]) if op_type == "mul" else (pair,):
            if number.val is not None and np.size(number.val) == 1 and x.val is None and x.shape == var.shape:
                factor = float(np.asarray(number.val).reshape(()))
                if op_type == "mul" or factor:
                    return x, factor if op_type == "mul" else 1 / factor
    return None


def _agree(operands: dict[str, tuple[Var, bool]], scores: Var) -> bool:
    """Whether all have the batch axes of the scores, and sizes that are known."""
    shapes: list[Sequence[int]] = [scores.shape, *(var.shape for var, _ in operands.values())]
    numbers = all(isinstance(n, (int, np.integer)) for shape in shapes for n in shape)
    batch = tuple(scores.shape[:-2])
    return numbers and all(len(shape) == len(scores.shape) and tuple(shape[:-2]) == batch for shape in shapes)


def _is_mask(mask: Var, scores: Var) -> bool:
    """Whether the engine's attention can add it: a number for each key, of all queries and heads or of each."""
    shape = tuple(mask.shape)
    if not shape or len(shape) > len(scores.shape) or shape[-1] != scores.shape[-1]:
        return False
    behind = tuple(scores.shape)[-len(shape) :]
    return all(n in (1, whole) for n, whole in zip(shape, behind, strict=True))
