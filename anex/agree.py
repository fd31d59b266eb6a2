"""Scalar constants of an exported program brought to the dtype of the tensors they go with.

coremltools gives an argument that was left out, such as layer_norm's epsilon, its default in fp32,
whatever the tensors are; its exporter writes that, and its own reader then refuses it.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from coremltools.proto import MIL_pb2


def agree(program: MIL_pb2.Program, target: Any) -> None:
    """Let fp32 scalars be fp16 where coremltools wants one dtype and the tensors are fp16; in place."""
    for function in program.functions.values():
        for block in function.block_specializations.values():
            types = {item.name: item.type for item in function.inputs}
            _block(block, target, types, {})


def _block(block: MIL_pb2.Block, target: Any, types: dict[str, Any], scalars: dict[str, float]) -> None:
    """``types``: of every name that is visible; ``scalars``: the values of fp32 constants of rank 0."""
    ops: list[Any] = []
    halves: dict[str, str] = {}  # fp32 constant -> the fp16 one that stands beside it
    for op in block.operations:
        for output in op.outputs:
            types[output.name] = output.type
        value: list[float] = []
        if op.type == "const":
            value = list(op.attributes["val"].immediateValue.tensor.floats.values)
        if len(value) == 1 and _dtype(op.outputs[0].type) == "FLOAT32" and not op.outputs[0].type.tensorType.rank:
            scalars[op.outputs[0].name] = value[0]
        for name in _disagreeing(op, target, types, scalars):
            (binding,) = op.inputs[name].arguments
            if binding.name not in halves:
                fresh = f"{binding.name}_fp16"
                while fresh in types:
                    fresh += "_"
                ops.append(_scalar(fresh, scalars[binding.name]))
                types[fresh], halves[binding.name] = ops[-1].outputs[0].type, fresh
            binding.name = halves[binding.name]
        for inner in op.blocks:
            _block(inner, target, {**types, **{item.name: item.type for item in inner.inputs}}, dict(scalars))
        ops.append(op)
    if halves:
        readers = _readers(ops, block)
        renewed = type(block)(operations=[op for op in ops if not _is_dead(op, readers, scalars)])
        del block.operations[:]
        block.operations.MergeFrom(renewed.operations)


def _disagreeing(
    op: MIL_pb2.Operation, target: Any, types: Mapping[str, Any], scalars: Mapping[str, float]
) -> list[str]:
    """The arguments of ``op`` that are fp32 scalars in a type domain whose other members are fp16."""
    domains: dict[Any, list[str]] = {}
    spec = _inputs(op.type, target)
    for name, argument in op.inputs.items():
        domain = getattr(spec.get(name), "type_domain_id", None)
        if domain is not None and len(argument.arguments) == 1 and argument.arguments[0].name in types:
            domains.setdefault(domain, []).append(name)
    found = []
    for names in domains.values():
        bound = {name: op.inputs[name].arguments[0].name for name in names}
        if any(_dtype(types[var]) == "FLOAT16" for var in bound.values()):
            found += [name for name, var in bound.items() if var in scalars and _dtype(types[var]) == "FLOAT32"]
    return found


def _inputs(op_type: str, target: Any) -> Mapping[str, Any]:
    from coremltools.converters.mil.mil.ops.helper import _get_version_of_op
    from coremltools.converters.mil.mil.ops.registry import SSAOpRegistry

    versions = SSAOpRegistry.core_ops.get(op_type)
    if versions is None or op_type == "const":
        return {}
    inputs: Mapping[str, Any] = _get_version_of_op(versions, target).input_spec.input_types
    return inputs


def _dtype(kind: Any) -> str:
    from coremltools.proto import MIL_pb2

    return str(MIL_pb2.DataType.Name(kind.tensorType.dataType))


def _scalar(name: str, number: float) -> MIL_pb2.Operation:
    from coremltools.converters.mil.backend.mil.helper import create_scalar_value
    from coremltools.proto import MIL_pb2

    half = np.float16(number)
    if number and not half:  # an epsilon that is there to keep a divisor from zero
        half = np.nextafter(half, np.float16(number > 0) * 2 - 1)
    value = create_scalar_value(half)
    result = MIL_pb2.NamedValueType(name=name, type=value.type)
    return MIL_pb2.Operation(
        type="const", attributes={"name": create_scalar_value(name), "val": value}, outputs=[result]
    )


def _readers(ops: list[Any], block: MIL_pb2.Block) -> Counter[str]:
    found: Counter[str] = Counter(block.outputs)
    for op in ops:
        found.update(binding.name for argument in op.inputs.values() for binding in argument.arguments)
        for inner in op.blocks:
            found += _readers(list(inner.operations), inner)
    return found


def _is_dead(op: Any, readers: Counter[str], scalars: Mapping[str, float]) -> bool:
    return op.type == "const" and op.outputs[0].name in scalars and not readers[op.outputs[0].name]
