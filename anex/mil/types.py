"""Types of MIL text: ``tensor<fp16, [1, ?]>``, ``int32``, and lists, tuples, dicts and states of types."""

from collections.abc import Sequence
from dataclasses import dataclass

from .proto import Message, mil
from .scalars import BY_NUMBER, SCALARS, ScalarType
from .tokens import Cursor

#: Levels of protobuf messages that a program may nest inside a function's ops. Protobuf reads at most 100
#: and the rest is taken by what stands around: Model, Program, Function, Block, and the leaves of a value.
MAX_NESTING = 80
BLOCK_LEVELS, VALUE_LEVELS, TYPE_LEVELS = 2, 4, 2
MAX_RANK = 64  # numpy's
_MAX_SIZE = (1 << 64) - 1


@dataclass(frozen=True, slots=True)
class Type:
    """A type as protobuf has it (``message``, a ValueType) and in parts."""

    message: Message
    kind: str  # "tensor", "list", "tuple", "dict" or "state"
    scalar: ScalarType | None = None  # of a tensor
    shape: tuple[int | None, ...] = ()  # of a tensor, None where it says "?"; the length of a list
    parts: tuple["Type", ...] = ()  # element; members; key and value; what a state holds


def parse_type(c: Cursor, types: dict[tuple[str, ...], Type], depth: int) -> Type:
    """The type at the cursor. ``types`` remembers the tensor types of this text."""
    start = c.at
    keyword = c.name("a type")
    if keyword == "tensor":
        try:
            key = tuple(c.tokens[start : c.tokens.index(">", start) + 1])
        except ValueError:
            key = ()
        known = types.get(key)
        if known is not None:
            c.at = start + len(key)
            return known
        found = types[key] = _parse_tensor(c)
        return found
    scalar = SCALARS.get(keyword)
    if scalar is not None:
        return types.setdefault((keyword,), tensor_type(scalar, ()))
    if keyword not in ("list", "tuple", "dict", "state"):
        c.at = start
        raise c.unexpected("a type")
    check_nesting(c, depth)
    c.expect("<")
    parts = [parse_type(c, types, depth + TYPE_LEVELS)]
    length: tuple[int | None, ...] = ()
    if keyword == "list":
        c.expect(",")
        length = (_parse_size(c),)
    elif keyword == "dict":
        c.expect(",")
        parts.append(parse_type(c, types, depth + TYPE_LEVELS))
    elif keyword == "tuple":
        while c.accept(","):
            parts.append(parse_type(c, types, depth + TYPE_LEVELS))
    c.expect(">", *[","] * (keyword == "tuple"))
    return _composite_type(keyword, parts, length)


def check_nesting(c: Cursor, depth: int) -> None:
    """Raise FormatError at the cursor when ``depth`` levels of messages are more than protobuf can read."""
    if depth > MAX_NESTING:
        raise c.error("nested too deeply: protobuf reads at most 100 levels of messages")


def tensor_type(scalar: ScalarType, shape: Sequence[int | None]) -> Type:
    """The type ``tensor<scalar, shape>``."""
    message = mil().ValueType()
    tensor = message.tensorType
    tensor.dataType = scalar.number
    tensor.rank = len(shape)
    for size in shape:
        _set_size(tensor.dimensions.add(), size)
    return Type(message, "tensor", scalar, tuple(shape))


def tensor_of(message: Message) -> tuple[ScalarType, list[int | None]]:
    """Scalar type and shape of a TensorType message; ValueError if they have no text."""
    scalar = BY_NUMBER.get(message.dataType)
    if scalar is None:
        raise ValueError(f"unknown data type number {message.dataType}")
    if message.rank != len(message.dimensions):
        raise ValueError(f"a tensor type of rank {message.rank} with {len(message.dimensions)} dimensions")
    if message.attributes:
        raise ValueError("a tensor type with attributes")
    return scalar, [size_of(dimension) for dimension in message.dimensions]


def size_of(dimension: Message) -> int | None:
    """Size of a Dimension message, None if unknown; ValueError if it has no text."""
    kind = dimension.WhichOneof("dimension")
    if kind == "constant":
        size: int = dimension.constant.size
        return size
    if kind is None or dimension.unknown.variadic:
        raise ValueError("a dimension that is variadic or not set")
    return None


def _parse_tensor(c: Cursor) -> Type:
    c.expect("<")
    scalar = SCALARS.get(c.token)
    if scalar is None:
        raise c.unexpected("a scalar type")
    c.at += 1
    c.expect(",")
    c.expect("[")
    shape: list[int | None] = []
    start = c.at
    if c.token != "]":
        shape.append(_parse_size(c))
        while c.accept(","):
            shape.append(_parse_size(c))
    c.expect("]", ",")
    c.expect(">")
    if len(shape) > MAX_RANK:
        raise c.error(f"expected at most {MAX_RANK} dimensions, found {len(shape)}", start)
    return tensor_type(scalar, shape)


def _parse_size(c: Cursor) -> int | None:
    if c.accept("?"):
        return None
    if not (c.token.isascii() and c.token.isdigit()):
        raise c.unexpected("a size or '?'")
    if len(c.token) > 20 or int(c.token) > _MAX_SIZE:
        raise c.unexpected("a size below 2^64")
    c.at += 1
    return int(c.tokens[c.at - 1])


def _composite_type(kind: str, parts: Sequence[Type], shape: tuple[int | None, ...]) -> Type:
    message = mil().ValueType()
    if kind == "list":
        message.listType.type.CopyFrom(parts[0].message)
        _set_size(message.listType.length, shape[0])
    elif kind == "tuple":
        message.tupleType.types.extend(part.message for part in parts)
    elif kind == "dict":
        message.dictionaryType.keyType.CopyFrom(parts[0].message)
        message.dictionaryType.valueType.CopyFrom(parts[1].message)
    else:
        message.stateType.wrappedType.CopyFrom(parts[0].message)
    return Type(message, kind, None, shape, tuple(parts))


def _set_size(dimension: Message, size: int | None) -> None:
    if size is None:
        dimension.unknown.variadic = False
    else:
        dimension.constant.size = size
