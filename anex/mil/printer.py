"""A MILSpec.Program as the text that Apple's ``coremlc`` writes for it, byte for byte."""

import math
from collections.abc import Iterable, Sequence

from ..errors import FormatError
from .grammar import OPSETS
from .proto import Message
from .scalars import LiteralError, ScalarType, load, quote, write
from .tokens import IDENTIFIER
from .types import BLOCK_LEVELS, MAX_NESTING, TYPE_LEVELS, VALUE_LEVELS, size_of, tensor_of

#: What coremlc adds to buildInfo, by version of the text: those of the two compilers whose text this is.
_COREMLC = {
    "1.0": {"coremlc-component-MIL": "3500.14.1", "coremlc-version": "3500.32.1"},
    "1.3": {"coremlc-component-MIL": "3510.2.1", "coremlc-version": "3505.4.1"},
}


def has_bare_scalars(version: str) -> bool:
    """Whether this version of the text writes ``fp16`` for ``tensor<fp16, []>``."""
    return int(version.split(".")[1]) >= 3


def coremlc_keys(version: str) -> dict[str, str]:
    """The buildInfo entries that are coremlc's own."""
    return _COREMLC["1.3" if has_bare_scalars(version) else "1.0"]


class Printer:
    """Prints one program in one version of the text; FormatError for a message that no text can say."""

    def __init__(self, version: str, *, sort_inputs: bool, flexible_shapes: dict[str, str] | None = None):
        self.version = version
        self.sort_inputs = sort_inputs  # as coremlc does
        self.flexible_shapes = flexible_shapes or {}  # FlexibleShapeInformation by function
        self.bare = has_bare_scalars(version)
        self._types: dict[bytes, str] = {}
        self._names: set[str] = set()

    def program(self, program: Message) -> str:
        attributes = {key: self.value(program.attributes[key]) for key in program.attributes}
        if "buildInfo" not in attributes or is_string_dict(program.attributes["buildInfo"].type):
            attributes["buildInfo"] = self._build_info(program)
        lines = [f"program({self.version})", self._brackets(attributes), "{"]
        for name in sorted(program.functions):
            try:
                self._function(lines, name, program.functions[name])
            except FormatError as error:
                raise FormatError(f"function {name!r}: {error}") from None
        lines.append("}")
        return "\n".join(lines)

    def _build_info(self, program: Message) -> str:
        entries = dict(coremlc_keys(self.version))
        if "buildInfo" in program.attributes:
            for pair in program.attributes["buildInfo"].immediateValue.dictionary.values:
                key, value = (side.immediateValue.tensor.strings.values for side in (pair.key, pair.value))
                if len(key) != 1 or len(value) != 1:
                    raise FormatError("buildInfo: a key or value is not one string")
                entries[key[0]] = value[0]
        pairs = ", ".join(f"{{{quote(key)}, {quote(entries[key])}}}" for key in sorted(entries))
        return f"dict<{self.scalar('string')}, {self.scalar('string')}>({{{pairs}}})"

    def _function(self, lines: list[str], name: str, function: Message) -> None:
        if function.opset not in function.block_specializations:
            raise FormatError(f"it has no block for its opset {function.opset!r}")
        inputs = list(function.inputs)
        if self.sort_inputs:
            inputs.sort(key=lambda value: value.name)
        attributes = {key: self.value(function.attributes[key]) for key in function.attributes}
        if name in self.flexible_shapes:
            attributes.setdefault("FlexibleShapeInformation", self.flexible_shapes[name])
        block = function.block_specializations[function.opset]
        if block.inputs or block.attributes:
            raise FormatError("the block of a function cannot have inputs or attributes")
        opset = self.name(OPSETS.get(function.opset, function.opset))
        head = self._head(inputs, attributes)
        lines.append(f"    func {self.name(name)}<{opset}>{head} {{")
        self._ops(lines, block, " " * 12, 0)
        lines.append(f"        }} -> ({self._name_list(block.outputs)});")

    def _ops(self, lines: list[str], block: Message, indent: str, depth: int) -> None:
        if depth > MAX_NESTING:
            raise FormatError("blocks nested too deeply")
        for op in block.operations:
            try:
                self._op(lines, op, indent, depth)
            except FormatError as error:
                where = f" ({', '.join(output.name for output in op.outputs)})" if op.outputs else ""
                raise FormatError(f"op {op.type}{where}: {error}") from None

    def _op(self, lines: list[str], op: Message, indent: str, depth: int) -> None:
        results = f"{self._typed_names(op.outputs)} = " if op.outputs else ""
        inputs = op.inputs
        arguments = ", ".join([f"{self.name(key)} = {self._argument(inputs[key], depth)}" for key in sorted(inputs)])
        attributes = {key: self.value(op.attributes[key], depth) for key in op.attributes}
        lines.append(f"{indent}{results}{self.name(op.type)}({arguments}){self._brackets(attributes)}")
        for block in op.blocks:
            attributes = {key: self.value(block.attributes[key], depth) for key in block.attributes}
            lines.append(f"{indent}    {self._head(block.inputs, attributes)} {{")
            self._ops(lines, block, indent + " " * 8, depth + BLOCK_LEVELS)
            lines.append(f"{indent}    }} -> ({self._name_list(block.outputs)})")
        lines[-1] += ";"

    def _head(self, inputs: Iterable[Message], attributes: dict[str, str]) -> str:
        """Parameters of a function or block and, if any, its attributes."""
        return f"({self._typed_names(inputs)}){' ' if attributes else ''}{self._brackets(attributes)}"

    def _argument(self, argument: Message, depth: int) -> str:
        bindings = [self._binding(binding, depth) for binding in argument.arguments]
        return bindings[0] if len(bindings) == 1 else f"({', '.join(bindings)})"

    def _binding(self, binding: Message, depth: int) -> str:
        by_name = binding.WhichOneof("binding") == "name"
        return self.name(binding.name) if by_name else self.value(binding.value, depth)

    def _typed_names(self, named: Iterable[Message]) -> str:
        return ", ".join([f"{self.type(value.type)} {self.name(value.name)}" for value in named])

    def _name_list(self, names: Iterable[str]) -> str:
        return ", ".join([self.name(name) for name in names])

    def _brackets(self, attributes: dict[str, str]) -> str:
        if not attributes:
            return ""
        return f"[{', '.join([f'{self.name(key)} = {attributes[key]}' for key in sorted(attributes)])}]"

    def name(self, name: str) -> str:
        """``name``, if it is one that MIL text can have."""
        if name not in self._names:
            if not IDENTIFIER.fullmatch(name):
                raise FormatError(f"{name!r} is no name in MIL text: letters, digits, '_' and '@' only")
            self._names.add(name)
        return name

    # ---- types and values

    def scalar(self, name: str) -> str:
        return name if self.bare else f"tensor<{name}, []>"

    def type(self, message: Message, depth: int = 0) -> str:
        """Text of a ValueType."""
        key = message.SerializeToString()
        text = self._types.get(key)
        if text is None:
            if depth > MAX_NESTING:
                raise FormatError("types nested too deeply")
            text = self._types[key] = self._type(message, depth + TYPE_LEVELS)
        return text

    def _type(self, message: Message, depth: int) -> str:
        kind = message.WhichOneof("type")
        try:
            if kind == "tensorType":
                scalar, shape = tensor_of(message.tensorType)
                if not shape:
                    return self.scalar(scalar.name)
                return _tensor_name(scalar, shape)
            if kind == "listType":
                length = _size_text(size_of(message.listType.length))
                return f"list<{self.type(message.listType.type, depth)}, {length}>"
        except ValueError as error:
            raise FormatError(f"{error} has no text") from None
        if kind == "tupleType":
            if not message.tupleType.types:
                raise FormatError("a tuple without members has no text")
            return f"tuple<{', '.join([self.type(part, depth) for part in message.tupleType.types])}>"
        if kind == "dictionaryType":
            types = message.dictionaryType
            return f"dict<{self.type(types.keyType, depth)}, {self.type(types.valueType, depth)}>"
        if kind == "stateType":
            return f"state<{self.type(message.stateType.wrappedType, depth)}>"
        raise FormatError("a type is not set")

    def value(self, value: Message, depth: int = 0) -> str:
        """Text of a Value: its type and, in parentheses, its literal."""
        return f"{self.type(value.type, depth)}({self._literal(value, depth)})"

    def _literal(self, value: Message, depth: int) -> str:
        if depth > MAX_NESTING:
            raise FormatError("values nested too deeply")
        if value.WhichOneof("value") == "blobFileValue":
            path = f"{self.scalar('string')}({quote(value.blobFileValue.fileName)})"
            return f"BLOBFILE(path = {path}, offset = {self.scalar('uint64')}({value.blobFileValue.offset}))"
        type, immediate = value.type, value.immediateValue
        kind: str | None = type.WhichOneof("type")
        found = immediate.WhichOneof("value")
        if found != _VALUES.get(kind or "") and not (found is None and kind == "listType"):
            raise FormatError(f"a value of type {self.type(type)} cannot be stored as {found}")
        if kind == "tensorType":
            return _tensor_literal(type.tensorType, immediate.tensor)
        if kind == "dictionaryType":
            types, pairs = type.dictionaryType, immediate.dictionary.values
            keys = self._nested([pair.key for pair in pairs], [types.keyType] * len(pairs), depth)
            values = self._nested([pair.value for pair in pairs], [types.valueType] * len(pairs), depth)
            items = [f"{{{key}, {value}}}" for key, value in zip(keys, values, strict=True)]
            return f"{{{', '.join(items)}}}"
        if kind == "tupleType":
            return f"({', '.join(self._nested(immediate.tuple.values, type.tupleType.types, depth))})"
        elements, length = immediate.list.values, size_of(type.listType.length)
        if length not in (None, len(elements)):
            raise FormatError(f"{len(elements)} elements in a list of {length}")
        return f"[{', '.join(self._nested(elements, [type.listType.type] * len(elements), depth))}]"

    def _nested(self, values: Sequence[Message], types: Sequence[Message], depth: int) -> list[str]:
        """Literals without a type of their own: they must have the one that is said around them."""
        if len(values) != len(types):
            raise FormatError(f"{len(values)} values for {len(types)} types")
        for value, type in zip(values, types, strict=True):
            if value.type != type and not _is_a(value.type, type):
                raise FormatError(f"found {self.type(value.type)} in place of {self.type(type)}")
        return [self._literal(value, depth + VALUE_LEVELS) for value in values]


_VALUES = {"tensorType": "tensor", "listType": "list", "tupleType": "tuple", "dictionaryType": "dictionary"}


def is_string_dict(type: Message) -> bool:
    """Whether a ValueType is ``dict<string, string>``."""
    if type.WhichOneof("type") != "dictionaryType":
        return False
    sides = (type.dictionaryType.keyType, type.dictionaryType.valueType)
    return all(side.tensorType.dataType == 2 and not side.tensorType.dimensions for side in sides)


def _is_a(actual: Message, wanted: Message) -> bool:
    """Whether one tensor type is another with the sizes filled in that the other leaves open."""
    try:
        scalar, shape = tensor_of(actual.tensorType)
        wanted_scalar, wanted_shape = tensor_of(wanted.tensorType)
    except ValueError:
        return False
    pairs = zip(shape, wanted_shape, strict=False)
    return (
        scalar is wanted_scalar
        and len(shape) == len(wanted_shape)
        and all(size == limit or limit is None for size, limit in pairs)
    )


def _size_text(size: int | None) -> str:
    return "?" if size is None else str(size)


def _tensor_name(scalar: ScalarType, shape: Sequence[int | None]) -> str:
    return f"tensor<{scalar.name}, [{', '.join(map(_size_text, shape))}]>"


def _tensor_literal(type: Message, tensor: Message) -> str:
    """Literal of a TensorValue; a size that its type leaves open is what the number of values makes it."""
    try:
        scalar, shape = tensor_of(type)
        known = math.prod([size for size in shape if size is not None])
        unknown = shape.count(None)
        values = load(scalar, tensor, None if unknown else known)
    except (ValueError, LiteralError) as error:
        raise FormatError(str(error)) from None
    fits = len(values) % known == 0 if unknown == 1 and known else len(values) == known and unknown < 2
    if not fits:
        raise FormatError(f"{len(values)} values for {_tensor_name(scalar, shape)}")
    if not values:
        return "[]"
    literals = write(scalar, values)
    if not shape:
        return literals[0]
    sizes = [len(values) // known if size is None else size for size in shape]
    for size in reversed(sizes[1:]):
        literals = [f"[{', '.join(literals[i : i + size])}]" for i in range(0, len(literals), size)]
    return f"[{', '.join(literals)}]"
