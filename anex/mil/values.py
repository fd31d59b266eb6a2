"""Values of MIL text: ``tensor<int32, [2]>([1, 2])``, BLOBFILEs, lists, tuples and dictionaries."""

import math
from collections.abc import Sequence

from . import types
from .proto import Message
from .scalars import SCALARS, LiteralError, Scalar, ScalarType, parse, store
from .tokens import END, Cursor
from .types import Type, check_nesting, parse_type, tensor_type

_PUNCTUATION = frozenset((*"[](){}<>,;=?", "->", END))


class Values:
    """Parses the values at one cursor."""

    def __init__(self, c: Cursor):
        self.c = c
        self.types: dict[tuple[str, ...], Type] = {}

    def type(self, depth: int) -> Type:
        return parse_type(self.c, self.types, depth)

    def value(self, value: Message, depth: int) -> None:
        """Parse ``type(literal)`` into a Value message."""
        c = self.c
        start = c.at
        type = self.type(depth)
        if type.shape.count(None) > 1:
            raise c.error("the type of a value may leave one dimension open, not more", start)
        c.expect("(")
        value.type.CopyFrom(type.message)
        self._literal(type, value, depth)
        c.expect(")")

    def _literal(self, type: Type, value: Message, depth: int) -> None:
        c = self.c
        check_nesting(c, depth)
        if c.token == "BLOBFILE":
            self._blob_file(value.blobFileValue, depth)
        elif type.scalar is not None:
            self._tensor(type.scalar, type.shape, value, depth)
        elif type.kind == "list":
            self._list(type, value.immediateValue.list, depth)
        elif type.kind == "tuple":
            self._tuple(type, value.immediateValue.tuple, depth)
        elif type.kind == "dict":
            self._dict(type, value.immediateValue.dictionary, depth)
        else:
            raise c.error(f"a {type.kind} has no literal")

    def _nested(self, type: Type, value: Message, depth: int) -> None:
        """A literal inside another: the text has no type for it; the message has the tensor's actual one."""
        if type.scalar is not None and None in type.shape:
            type = tensor_type(type.scalar, self._actual_shape(type.shape))
        value.type.CopyFrom(type.message)
        self._literal(type, value, depth + types.VALUE_LEVELS)

    def _list(self, type: Type, message: Message, depth: int) -> None:
        c = self.c
        start = c.at
        c.expect("[")
        message.SetInParent()
        if not c.accept("]"):
            self._nested(type.parts[0], message.values.add(), depth)
            while c.accept(","):
                self._nested(type.parts[0], message.values.add(), depth)
            c.expect("]", ",")
        if type.shape[0] not in (None, len(message.values)):
            raise c.error(f"expected a list of {type.shape[0]} elements, found {len(message.values)}", start)

    def _tuple(self, type: Type, message: Message, depth: int) -> None:
        self.c.expect("(")
        for index, part in enumerate(type.parts):
            if index:
                self.c.expect(",")
            self._nested(part, message.values.add(), depth)
        self.c.expect(")")

    def _dict(self, type: Type, message: Message, depth: int) -> None:
        c = self.c
        c.expect("{")
        message.SetInParent()
        if c.accept("}"):
            return
        seen = set()
        while True:
            pair = message.values.add()
            c.expect("{")
            start = c.at
            self._nested(type.parts[0], pair.key, depth)
            key = pair.key.SerializeToString(deterministic=True)
            if key in seen:
                raise c.error("this key is in the dictionary already", start)
            seen.add(key)
            c.expect(",")
            self._nested(type.parts[1], pair.value, depth)
            c.expect("}")
            if not c.accept(","):
                break
        c.expect("}", ",")

    def _blob_file(self, message: Message, depth: int) -> None:
        c = self.c
        c.at += 1
        c.expect("(")
        found: dict[str, Scalar] = {}
        for separator in ",)":
            start = c.at
            key = c.name("'path' or 'offset'")
            scalar = {"path": SCALARS["string"], "offset": SCALARS["uint64"]}.get(key)
            if scalar is None or key in found:
                c.at = start
                raise c.unexpected("one 'path' and one 'offset'")
            c.expect("=")
            start = c.at
            type = self.type(depth)
            if type.scalar is not scalar or type.shape:
                raise c.error(f"expected a value of type {scalar.name}", start)
            c.expect("(")
            if c.token in _PUNCTUATION:
                raise c.unexpected(f"a literal of type {scalar.name}")
            found[key] = self._items(scalar, [c.token], c.at)[0]
            c.at += 1
            c.expect(")")
            c.expect(separator)
        message.fileName = found["path"]
        message.offset = found["offset"]

    # ---- tensors

    def _tensor(self, scalar: ScalarType, shape: Sequence[int | None], value: Message, depth: int) -> None:
        """The literal of a tensor, which takes as many tokens as its shape says: no search for its end."""
        c = self.c
        sizes = self._actual_shape(shape)
        count = math.prod(sizes)
        if count == 0 and c.tokens[c.at : c.at + 2] == ["[", "]"]:
            length, items = 2, []
        else:
            length, skeleton = _skeleton(sizes, len(c.tokens) - c.at)
            tokens = c.tokens[c.at : c.at + length]
            if "".join([token if token in _PUNCTUATION else "0" for token in tokens]) != skeleton:
                raise self._mismatch(scalar, sizes, skeleton)
            items = [token for token in tokens if token not in _PUNCTUATION]
        values = self._items(scalar, items, c.at)
        tensor = value.immediateValue.tensor
        try:
            store(scalar, values, tensor)
        except LiteralError as error:
            raise c.error(str(error), self._item(c.at, error.index)) from None
        c.at += length

    def _items(self, scalar: ScalarType, items: Sequence[str], at: int) -> list[Scalar]:
        try:
            return parse(scalar, items)
        except LiteralError as error:
            raise self.c.error(str(error), self._item(at, error.index)) from None

    def _item(self, at: int, index: int) -> int:
        """Where the literal number ``index`` of the tensor literal at ``at`` is."""
        while index or self.c.tokens[at] in _PUNCTUATION - {END}:
            index -= self.c.tokens[at] not in _PUNCTUATION
            at += 1
        return at

    def _mismatch(self, scalar: ScalarType, sizes: Sequence[int], skeleton: str) -> Exception:
        """Why the tokens at the cursor are no literal of this shape."""
        c = self.c
        expected = f"tensor<{scalar.name}, {list(sizes)}>"
        if not sizes:
            return c.unexpected(f"a literal of type {scalar.name}")
        start, depth, count = c.at, 0, 0
        while c.token == "[" or c.token == "]" or c.token == "," or (depth and c.token not in _PUNCTUATION):
            depth += (c.token == "[") - (c.token == "]")
            count += c.token not in _PUNCTUATION
            c.at += 1
            if depth <= 0:
                break
        if depth or c.at == start:
            return c.unexpected("',' or ']'" if c.at > start else "'['")
        if count != math.prod(sizes):
            return c.error(f"{expected} takes {math.prod(sizes)} elements, found {count}", start)
        for c.at, wanted in enumerate(skeleton, start):
            if wanted != (c.token if c.token in _PUNCTUATION else "0"):
                return c.unexpected(f"{'a literal' if wanted == '0' else repr(wanted)} to match {expected}")
        return c.error(f"expected [], the literal of {expected}", start)

    def _actual_shape(self, shape: Sequence[int | None]) -> list[int]:
        """``shape`` with the sizes that it leaves open counted in the literal at the cursor."""
        if None not in shape:
            return [size for size in shape if size is not None]
        counted = _first_lengths(self.c.tokens, self.c.at, len(shape))
        return [counted[level] if size is None else size for level, size in enumerate(shape)]


def _skeleton(sizes: Sequence[int], most: int) -> tuple[int, str]:
    """How many tokens a literal of this shape has and what they are, "0" for an element.

    If they were more than ``most``, nothing is built and the answer is (1, "").
    """
    brackets, count = 0, 1
    for size in sizes:
        brackets += 2 * count
        count *= size
        if brackets + count > most:
            return 1, ""
    text = "0"
    for size in reversed(sizes):
        text = f"[{','.join([text] * size)}]"
    return len(text), text


def _first_lengths(tokens: Sequence[str], at: int, rank: int) -> list[int]:
    """Length of the first list at every level of the nested lists that start at ``at``."""
    lengths, closed, level = [0] * rank, [False] * rank, -1
    for index in range(at, len(tokens)):
        token = tokens[index]
        if token == "[":
            level += 1
            if level < rank and not closed[level] and tokens[index + 1] != "]":
                lengths[level] = 1
        elif token == "]":
            if 0 <= level < rank:
                closed[level] = True
            level -= 1
        elif token == "," and 0 <= level < rank and not closed[level]:
            lengths[level] += 1
        if level < 0:
            break
    return lengths
