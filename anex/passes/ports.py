"""Inputs and outputs as the Neural Engine binds them: their dtypes, ranks and names."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np

from ..ops.record import dtype_name, shape
from .record import Pass, apple, rename_input, replace_input, replace_output, tensor_inputs

if TYPE_CHECKING:
    from coremltools.converters.mil.mil import Function, Program, Var

FP16_MAX = 65504.0


def _finite(program: Program) -> None:
    """-1e9 of a mask, and torch's lowest float32, as fp16's lowest; infinities stay infinite."""
    for function in program.functions.values():
        with function:
            for op in list(function.operations):
                var = op.outputs[0] if op.op_type == "const" else None
                if var is None or dtype_name(var) != "fp32" or not _overflows(var.val):
                    continue
                readers = {reader.op_type for reader in var.child_ops}
                if "cast" in readers or var in function.outputs:
                    continue
                finite = np.where(np.isinf(var.val), var.val, np.clip(var.val, -FP16_MAX, FP16_MAX))
                _replace_const(function, op, finite.astype(np.float32))


def _overflows(value: Any) -> bool:
    return bool(np.any(np.isfinite(value) & (np.abs(value) > FP16_MAX)))


def _replace_const(function: Function, op: Any, value: Any) -> None:
    from coremltools.converters.mil.mil import Builder

    new = Builder.const(val=value, before_op=op, name=op.name)
    function.replace_uses_of_var_after_op(anchor_op=op, old_var=op.outputs[0], new_var=new)
    function.remove_ops([op])


def _bool_ports(program: Program) -> None:
    """uint8 holds the same bytes; opsets before iOS17 do not cast to it and get fp16."""
    import coremltools as ct
    from coremltools.converters.mil.mil import types

    for function in program.functions.values():
        modern = (function.opset_version or ct.target.iOS15) >= ct.target.iOS17
        dtype, name = (types.uint8, "uint8") if modern else (types.fp16, "fp16")

        def to_bool(mb: Any, given: Var) -> Any:
            return mb.cast(x=given, dtype="bool")

        def from_bool(mb: Any, made: Var, name: str = name) -> Any:
            return mb.cast(x=made, dtype=name)

        for _, var in tensor_inputs(function):
            if var.dtype == types.bool:
                replace_input(function, var, shape(var), dtype, to_bool)
        for var in list(function.outputs):
            if var.dtype == types.bool:
                replace_output(function, var, from_bool)


def carrier(dims: tuple[int, ...]) -> tuple[int, ...]:
    """The shape of rank 4 that carries a tensor of rank 0, 1 or 5; any other is its own.

    Elements keep their order, and the last axis stays the last, so one memory is seen in both shapes
    even when its rows are padded.

    >>> carrier(()), carrier((7,)), carrier((2, 3, 4, 5, 6)), carrier((2, 3))
    ((1, 1, 1, 1), (1, 1, 1, 7), (6, 4, 5, 6), (2, 3))
    """
    if len(dims) <= 1:
        return (1, 1, 1, math.prod(dims))
    return (dims[0] * dims[1], *dims[2:]) if len(dims) == 5 else dims


def _port_ranks(program: Program) -> None:
    for function in program.functions.values():
        for _, var in tensor_inputs(function):
            dims = shape(var)
            if carrier(dims) != dims:

                def given(mb: Any, new: Var, dims: tuple[int, ...] = dims) -> Any:
                    return mb.reshape(x=new, shape=dims)

                replace_input(function, var, carrier(dims), var.dtype, given)
        for var in list(function.outputs):
            dims = shape(var)
            if carrier(dims) != dims:

                def carried(mb: Any, old: Var, dims: tuple[int, ...] = dims) -> Any:
                    # a scalar is no tensor that reshape takes in every opset
                    x = mb.expand_dims(x=old, axes=[0]) if not dims else old
                    return mb.reshape(x=x, shape=carrier(dims))

                replace_output(function, var, carried)


def _port_names(program: Program) -> None:
    """``i00_x``, ``o00_y``: as many digits as it takes, so that text order is number order."""

    def apart(mb: Any, given: Var) -> Any:
        return mb.identity(x=given)

    for function in program.functions.values():
        for var in [var for var in function.outputs if any(var is each for each in function.inputs.values())]:
            name = var.name
            replace_output(function, var, apart)
            var.name = name
        inputs, outputs = list(tensor_inputs(function)), list(function.outputs)
        width = max(2, len(str(max(len(inputs), len(outputs)))))
        for i, (name, _) in enumerate(inputs):
            rename_input(function, name, f"i{i:0{width}}_{name}")
        for i, var in enumerate(outputs):
            var.name = f"o{i:0{width}}_{var.name}"


FOLD = Pass(
    "fold",
    "computes what only constants enter into, and drops what nobody reads",
    ("ORI: names that nothing defines or reads are refused",),
    apple("common::const_elimination", "common::dead_code_elimination"),
)
FINITE_CONSTANTS = Pass(
    "finite_constants",
    "brings finite constants of fp32 programs within fp16's range, as masks of -1e9 need",
    ("ORI: masks of -1e4 and -65504 are right; -inf was not tried",),
    _finite,
)
FP16_COMPUTE = Pass(
    "fp16_compute",
    "computes in fp16 what is fp32, with casts where the program's inputs and outputs are",
    ("FRG, TRN, MDX, ORI, HOL: no other arithmetic", "MDX: casts at the edges"),
    apple("common::add_fp16_cast", "common::cast_optimization", "common::const_elimination",
          "common::dead_code_elimination"),
)  # fmt: skip
BOOL_PORTS = Pass(
    "bool_ports",
    "lets bool inputs and outputs travel as uint8",
    ("INF, H3: ports are Float16, Int8, UInt8 and Int32",),
    _bool_ports,
)
PORT_RANKS = Pass(
    "port_ranks",
    "carries inputs and outputs of rank 0, 1 and 5 in rank 4, with a reshape inside",
    ("INF, FDT: ports have batches, channels, height and width", "TRN: rank 2 and 3 work as they are"),
    _port_ranks,
)
PORT_NAMES = Pass(
    "port_names",
    "numbers inputs and outputs in their names: they are bound in text order",
    ("ORI, H3, Q38: bound by sorted symbols, not as declared",),
    _port_names,
)
DEDUPLICATE = Pass(
    "deduplicate",
    "keeps equal constants once, and drops what nobody reads",
    ("Q38: several ops may refer to one blob",),
    apple("common::const_deduplication", "common::dead_code_elimination"),
)
