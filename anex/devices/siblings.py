"""Products of one activation by several matrices, as query, key and value are, computed as one and split.

The one reads the activation once, wakes the threads once, and has more tiles to choose from; every sum is as it was.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from .fuse import ELEMENTWISE
from .quantized import Step, is_pointwise

if TYPE_CHECKING:
    from coremltools.converters.mil.mil import Operation, Var

Node = Any  # an Operation or a Step
ENDS = ELEMENTWISE | {"quantize"}  # what may run as part of a product


def joined(ops: Sequence[Node], outputs: Sequence[Var]) -> list[Node]:
    """``ops`` with one product and one split, where the first of its siblings stood, in place of each group of them.

    Those stay apart whose results are returned, that have an op behind them which runs as part of its product, or
    whose matrices nobody can write: programs share these where they are.
    """
    taken = {*outputs}
    taken |= {var for op in ops if op.op_type in ENDS for var in op.inputs.values() if hasattr(var, "sym_type")}
    groups: dict[tuple[Any, ...] | None, list[Operation]] = defaultdict(list)
    for op in ops:
        if op.op_type in ("conv", "linear") and taken.isdisjoint(op.outputs):
            groups[_alike(op)].append(op)
    groups.pop(None, None)
    first = {group[0]: group for group in groups.values() if len(group) > 1}
    others = {op for group in first.values() for op in group[1:]}
    made: list[Node] = []
    for op in ops:
        if op in first:
            made += _as_one(first[op])
        elif op not in others:
            made.append(op)
    return made


def _alike(op: Node) -> tuple[Any, ...] | None:
    """What siblings have in common: equal for those of which one can be made; None for what has none."""
    if isinstance(op, Step):
        return None
    x, weight, bias = op.inputs["x"], op.inputs["weight"], op.inputs.get("bias")
    if x.val is not None or weight.val is None or (bias is not None and bias.val is None):
        return None
    if op.op_type == "conv" and not is_pointwise(op):
        return None
    matrix = np.asarray(weight.val)
    return (op.op_type, x, matrix.dtype, matrix.shape[1:], bias is None) if matrix.flags.writeable else None


def _as_one(ops: Sequence[Operation]) -> list[Step]:
    from coremltools.converters.mil.mil import Var, types

    first, axis = ops[0], 1 if ops[0].op_type == "conv" else -1
    inputs: dict[str, Any] = {"x": first.inputs["x"], "weight": _rows([op.inputs["weight"] for op in ops])}
    if first.inputs.get("bias") is not None:
        inputs["bias"] = _rows([op.inputs["bias"] for op in ops])
    sizes = [op.outputs[0].shape[axis] for op in ops]
    shape = list(first.outputs[0].shape)
    shape[axis] = sum(sizes)
    name = " + ".join(op.name for op in ops)
    whole = Var(name, types.tensor(first.outputs[0].dtype, shape))
    split = {"x": whole, "split_sizes": np.array(sizes, np.int32), "axis": np.array(axis, np.int32)}
    return [
        Step(first.op_type, name, inputs, [whole]),
        Step("split", f"{name} split", split, [op.outputs[0] for op in ops]),
    ]


def _rows(parts: Sequence[Var]) -> np.ndarray:
    """Frozen, so that the plan reads it where it is."""
    whole: np.ndarray = np.concatenate([np.asarray(part.val) for part in parts])
    whole.flags.writeable = False
    return whole
