"""Attention that reads and writes what its program transposes, so that heads are never put in order in memory.

A program splits its heads by a reshape and a transpose of query, key and value, and joins them by another of the
result. The engine's own op sees all of them through strides. A transpose rounds nothing. Attention that is written out
becomes that op too.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from . import written_attention
from .quantized import Step

if TYPE_CHECKING:
    from coremltools.converters.mil.mil import Operation

FEWEST_QUERIES = 8  # fewer are done one at a time, and read rows that lie together
OPERANDS = ("query", "key", "value")


def step(op: Operation) -> Operation | Step:
    """The op that the engine runs in place of ``op``, attention or a transpose of what it gives, or ``op`` itself."""
    attention, turned = op, None
    if op.op_type == "transpose":
        attention = op.inputs["x"].op
        if attention is None or attention.op_type not in ("scaled_dot_product_attention", "matmul"):
            return op
        turned = np.argsort(_permutation(op))
        if not _is_read_once(attention):
            return op
    inputs = _inputs(attention)
    if inputs is None:
        return op
    if turned is not None:
        result = turned[inputs.get("result_perm", np.arange(len(turned)))].astype(np.int32)
        if not _leaves_runs(result):
            return op
        inputs["result_perm"] = result
    for name in OPERANDS:
        while (before := inputs[name].op) is not None and before.op_type == "transpose":
            axes = _permutation(before)
            composed = axes[inputs.get(f"{name}_perm", np.arange(len(axes)))]
            if not _leaves_runs(composed):
                break
            inputs |= {name: before.inputs["x"], f"{name}_perm": composed}
    if inputs.keys() <= {*OPERANDS, "attn_mask"}:
        return op
    return Step("anex_attention", attention.name, inputs, op.outputs)


def _inputs(op: Operation) -> dict[str, Any] | None:
    """Of the engine's own op in the place of ``op`` alone; None: it is no attention, or of few queries."""
    if op.op_type == "scaled_dot_product_attention":
        given = {name: var for name, var in op.inputs.items() if var is not None}
        return given if _is_many(op.inputs["query"].shape[-2]) else None
    written = written_attention.found(op) if op.op_type == "matmul" else None
    if written is None:
        return None
    query, is_column = written.operands["query"]
    if not _is_many(query.shape[-1 if is_column else -2]):
        return None
    inputs: dict[str, Any] = {name: var for name, (var, _) in written.operands.items()}
    exchanged = np.arange(len(query.shape), dtype=np.int32)
    exchanged[-2:] = exchanged[[-1, -2]]
    inputs |= {f"{name}_perm": exchanged for name, (_, is_turned) in written.operands.items() if is_turned}
    if written.is_turned:
        inputs["result_perm"] = exchanged
    if written.mask is not None:
        inputs["attn_mask"] = written.mask
    return inputs | {"scale": np.array([written.scale], np.float32)}


def _is_read_once(op: Operation) -> bool:
    made = op.outputs[0]
    return len(made.child_ops) == 1 and not made.consuming_blocks


def _is_many(queries: object) -> bool:
    return isinstance(queries, (int, np.integer)) and int(queries) >= FEWEST_QUERIES


def _permutation(transpose: Operation) -> np.ndarray:
    given = np.asarray(transpose.inputs["perm"].val, np.int32)
    return given % len(given)


def _leaves_runs(permutation: np.ndarray) -> bool:
    """Whether what lies together in memory is one of the two axes that the products run along."""
    return len(permutation) - 1 in permutation[-2:]
