"""What each node that ran has done, in FLOP and bytes: those of its MIL ops, their data as the engine stores it."""

from __future__ import annotations

from collections import defaultdict, deque
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

from .._coremltools import coremltools
from ..devices.stepwise import is_static
from ..ops import OPS
from ..ops.record import nbytes, stored_bytes, tensors

if TYPE_CHECKING:
    from coremltools.converters.mil.mil import Function, Operation

Node = tuple[str, str, int]  # op, name, bytes of its outputs
Cost = tuple[int, int]  # FLOP, bytes

# Products that read integers where MIL has floats: activations and weights, or weights alone.
OF_INT8 = frozenset({"anex_conv_int8", "anex_linear_int8"})
OF_CODES = frozenset({"anex_linear_codes"})


def costs(function: Function, nodes: Sequence[Node]) -> list[Cost]:
    """FLOP and bytes of each node of a plan of ``function``; what no MIL op stands behind is a copy."""
    with coremltools():
        known = [op for op in function.operations if op.op_type in OPS and all(map(is_static, op.outputs))]
        same, by_name = defaultdict[tuple[str, str], deque["Operation"]](deque), dict[str, "Operation"]()
        for op in known:
            same[op.op_type, op.name].append(op)
            by_name[op.name] = op

        def of(kind: str, name: str) -> Operation | None:
            found = same.get((kind, name))
            if found:
                return found.popleft() if len(found) > 1 else found[0]
            if kind.startswith("anex_") and kind != "anex_copy":  # the engine's way to do the op
                return by_name.get(name)
            return None

        found = []
        for kind, names, output_bytes in nodes:
            if kind == "ane":  # the whole program
                found.append((sum(OPS[op.op_type].flops(op) for op in known), sum(map(_touched, known))))
                continue
            name, *joined = names.split(" + ")  # the ops that run as part of it
            op = of(kind, name)
            rest = [by_name[part] for part in joined if part in by_name]
            found.append((0, 2 * output_bytes) if op is None else _chain(kind, [op, *rest]))
        return found


def _chain(kind: str, ops: Sequence[Operation]) -> Cost:
    read = [var for op in ops for var in tensors(op) if var not in op.outputs]
    between = sum(nbytes(op.outputs[0]) for op in ops if op.outputs[0] in read)  # neither written nor read
    once = ops[0].inputs.get("x") if len(ops) > 1 and ops[0].op_type == ops[1].op_type else None
    again = 0 if once is None else (sum(var is once for var in read) - 1) * nbytes(once)  # by siblings
    touched = sum(map(_touched, ops)) - 2 * between - again - _saved(kind, ops[0])
    return sum(OPS[op.op_type].flops(op) for op in ops), touched


def _touched(op: Operation) -> int:
    return OPS[op.op_type].bytes(op)


def _saved(kind: str, op: Operation) -> int:
    """Bytes of floats that the engine's own products of quantised operands do not touch."""
    if kind not in OF_INT8 | OF_CODES:
        return 0
    integers: Iterable[str] = ("dequantize", "constexpr_") if kind in OF_INT8 else ("constexpr_",)
    made = [var for var in tensors(op) if var.op is not None and var.op.op_type.startswith(tuple(integers))]
    return sum(nbytes(var) - stored_bytes(var) for var in made)
