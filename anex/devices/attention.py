"""Attention that reads and writes what its program transposes, so that heads are never put in order in memory.

A program splits its heads by a reshape and a transpose of query, key and value, and joins them by another of the
result. The engine's own op sees all of them through strides. A transpose rounds nothing.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from .quantized import Step

if TYPE_CHECKING:
    from coremltools.converters.mil.mil import Operation

FEWEST_QUERIES = 8  # fewer are done one at a time, and read rows that lie together
OPERANDS = ("query", "key", "value")


def step(op: Operation) -> Operation | Step:
    """The op that the engine runs in place of ``op``, attention or a transpose of what it gives, or ``op`` itself."""
    attention, inputs = op, {}
    if op.op_type == "transpose":
        attention = op.inputs["x"].op
        if attention is None or attention.op_type != "scaled_dot_product_attention" or not _is_read_once(attention):
            return op
        turned = np.argsort(_permutation(op)).astype(np.int32)
        if not _leaves_runs(turned):
            return op
        inputs["result_perm"] = turned
    if attention.op_type != "scaled_dot_product_attention" or not _has_many_queries(attention):
        return op
    for name in OPERANDS:
        before = attention.inputs[name].op
        if before is not None and before.op_type == "transpose" and _leaves_runs(_permutation(before)):
            inputs |= {name: before.inputs["x"], f"{name}_perm": _permutation(before)}
    if not inputs:
        return op
    given = {name: var for name, var in attention.inputs.items() if var is not None}
    return Step("anex_attention", attention.name, given | inputs, op.outputs)


def _is_read_once(op: Operation) -> bool:
    made = op.outputs[0]
    return len(made.child_ops) == 1 and not made.consuming_blocks


def _has_many_queries(op: Operation) -> bool:
    length = op.inputs["query"].shape[-2]
    return isinstance(length, (int, np.integer)) and int(length) >= FEWEST_QUERIES


def _permutation(transpose: Operation) -> np.ndarray:
    given = np.asarray(transpose.inputs["perm"].val, np.int32)
    return given % len(given)


def _leaves_runs(permutation: np.ndarray) -> bool:
    """Whether what lies together in memory is one of the two axes that the products run along."""
    return len(permutation) - 1 in permutation[-2:]
