"""A MIL protobuf brought into the form coremltools' reader takes, or refused with the reason.

Nothing here changes what a program computes: text that Apple's or the ANE's parser accepts may hold
inline arguments, ops without names, attributes and doc strings, all of which the reader refuses; and
what it does not refuse, an unknown name or op, it answers with an ``AttributeError`` or ``KeyError``.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Collection, Iterable, Iterator
from typing import TYPE_CHECKING

from .errors import CompileError, FormatError, UnsupportedError

if TYPE_CHECKING:
    from coremltools.proto import MIL_pb2


def tidy(function: MIL_pb2.Function, inputs_of: Callable[[str], Collection[str]]) -> None:
    """Check and rewrite ``function`` in place.

    ``inputs_of(op type)`` gives the argument names the op has in the function's opset, and raises
    ``ValueError`` for an op that is not there.
    """
    if function.opset not in function.block_specializations:
        raise FormatError(f"the function has no block for its opset {function.opset!r}")
    for opset in [opset for opset in function.block_specializations if opset != function.opset]:
        del function.block_specializations[opset]
    block = function.block_specializations[function.opset]
    function.attributes.clear()  # FlexibleShapeInformation and the like: for coremlc's runtime
    for item in function.inputs:
        _check_input(item)
    inputs = _names(function.inputs, "the inputs")
    results = [output.name for op in block.operations for output in op.outputs]
    _Walk(inputs_of, {*inputs, *results}).block(block, {name: name for name in inputs}, nested=False)
    block.outputs[:] = dict.fromkeys(block.outputs)  # torch's `return x, x`: results are told apart by name
    if not block.outputs:
        raise FormatError("the function has no outputs")


def blob_values(block: MIL_pb2.Block) -> Iterator[MIL_pb2.Value]:
    """Every value of a block that stands in a weight file."""
    for op in block.operations:
        bindings = [binding for argument in op.inputs.values() for binding in argument.arguments]
        values = [binding.value for binding in bindings if binding.WhichOneof("binding") == "value"]
        for value in [*op.attributes.values(), *values]:
            if value.WhichOneof("value") == "blobFileValue":
                yield value
        for inner in op.blocks:
            yield from blob_values(inner)


def describe(op: MIL_pb2.Operation) -> str:
    """An op as messages name it: ``conv 'y'``."""
    return f"{op.type or 'an op without a type'} {op_name(op)!r}"


def op_name(op: MIL_pb2.Operation) -> str:
    """The op's name, or its first result's."""
    if "name" in op.attributes:
        strings = op.attributes["name"].immediateValue.tensor.strings.values
        if len(strings) != 1:
            raise FormatError(f"an op {op.type}: its name is not a string")
        return str(strings[0])
    return str(op.outputs[0].name) if op.outputs else str(op.type)


def _check_input(item: MIL_pb2.NamedValueType) -> None:
    kind = item.type.WhichOneof("type")
    tensor = item.type.stateType.wrappedType.tensorType if kind == "stateType" else item.type.tensorType
    if kind not in ("tensorType", "stateType"):
        raise UnsupportedError(f"input {item.name!r} is a {kind or 'typeless thing'}, not a tensor or state")
    if tensor.rank == 0:
        raise UnsupportedError(f"input {item.name!r} has rank 0, which Core ML does not take; make it [1]")


def _names(items: Iterable[MIL_pb2.NamedValueType], where: str) -> list[str]:
    names = [item.name for item in items]
    if "" in names or len(set(names)) < len(names):
        raise FormatError(f"{where}: a name is missing or stands twice in ({', '.join(names)})")
    return names


class _Walk:
    """One pass over a function in program order, that knows which names are visible where."""

    def __init__(self, inputs_of: Callable[[str], Collection[str]], taken: set[str]) -> None:
        self.inputs_of = inputs_of
        self.taken = taken  # names in the function; what the function itself defines is never renamed

    def block(self, block: MIL_pb2.Block, visible: dict[str, str], *, nested: bool) -> None:
        """``visible``: name in the file -> name in the program, of what is defined by now."""
        block.attributes.clear()
        ops: list[MIL_pb2.Operation] = []
        for op in block.operations:
            ops += self.arguments(op, visible)
            for inner in op.blocks:
                scope = dict(visible)
                for item, name in zip(inner.inputs, _names(inner.inputs, describe(op)), strict=True):
                    item.name = scope[name] = self.fresh(name)
                self.block(inner, scope, nested=True)
            for output, name in zip(op.outputs, _names(op.outputs, describe(op)), strict=True):
                if nested or name in visible:  # coremltools has one table of names for all blocks
                    output.name = self.fresh(name)
                visible[name] = output.name
            ops.append(op)
        if len(ops) > len(block.operations):  # inline arguments became ops
            renewed = type(block)(operations=ops)
            block.operations.MergeFrom(renewed.operations)
            del block.operations[: -len(ops)]
        for index, name in enumerate(block.outputs):
            block.outputs[index] = _resolve(name, visible, "the outputs")
            if not nested and block.outputs[index] != name:
                raise FormatError(f"the output {name!r} is defined twice")

    def arguments(self, op: MIL_pb2.Operation, visible: dict[str, str]) -> list[MIL_pb2.Operation]:
        """Tidy what stands in ``(...)[...]`` of an op; the ``const`` ops its inline values become."""
        name = op_name(op)
        if op.type.startswith("constexpr_"):  # up to iOS17 their arguments stand among the attributes
            for key in sorted(op.attributes):
                if key != "name":
                    op.inputs[key].arguments.add(value=op.attributes[key])
        self.check(op)
        for key in [key for key in op.attributes if (op.type, key) != ("const", "val")]:
            del op.attributes[key]
        op.attributes["name"].CopyFrom(_string(name))
        if op.type == "const":
            op.attributes["val"].docString = ""
        consts: list[MIL_pb2.Operation] = []
        for key in sorted(op.inputs):
            for binding in op.inputs[key].arguments:
                if binding.WhichOneof("binding") == "name":
                    binding.name = _resolve(binding.name, visible, describe(op))
                elif binding.value.type.WhichOneof("type") == "tensorType":
                    consts.append(_const(self.fresh(f"{name}_{key}"), binding.value))
                    binding.name = consts[-1].outputs[0].name
        return consts

    def check(self, op: MIL_pb2.Operation) -> None:
        """Refuse what coremltools has no op or no argument for."""
        if op.type == "const" and ("val" not in op.attributes or op.inputs):
            raise FormatError(f"{describe(op)} has no value, or arguments")
        if op.type == "write_state":  # half of coremltools' coreml_update_state
            known: Collection[str] = ("input", "data")
        else:
            try:
                known = self.inputs_of(op.type)
            except ValueError as error:
                raise UnsupportedError(f"{describe(op)}: an op nobody knows here: {error}") from error
        for key in op.inputs:
            if key not in known or key.startswith("_"):
                takes = ", ".join(name for name in known if not name.startswith("_"))
                raise CompileError(f"{describe(op)} has no argument {key!r}; it takes {takes}")

    def fresh(self, name: str) -> str:
        """The name, or with a number behind it if it is taken."""
        names = itertools.chain([name], (f"{name}_{n}" for n in itertools.count()))
        found = next(candidate for candidate in names if candidate not in self.taken)
        self.taken.add(found)
        return found


def _resolve(name: str, visible: dict[str, str], where: str) -> str:
    if name not in visible:
        raise FormatError(f"{where}: {name!r} is not defined before it is used")
    return visible[name]


def _string(text: str) -> MIL_pb2.Value:
    from coremltools.converters.mil.backend.mil.helper import create_scalar_value

    return create_scalar_value(text)


def _const(name: str, value: MIL_pb2.Value) -> MIL_pb2.Operation:
    from coremltools.proto import MIL_pb2

    result = MIL_pb2.NamedValueType(name=name, type=value.type)
    const = MIL_pb2.Operation(type="const", attributes={"name": _string(name), "val": value}, outputs=[result])
    const.attributes["val"].docString = ""
    return const
