"""Two MIL programs compared by what they say: names of values, and the order of constants, are no difference."""

from __future__ import annotations

import difflib
import hashlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from ..errors import FormatError
from . import blob
from .printer import Printer
from .proto import Message
from .scalars import LiteralError, load
from .types import tensor_of

if TYPE_CHECKING:
    import numpy as np

Read = Callable[[str, blob.Reference], "np.ndarray[Any, Any] | None"]
"""(file of a BLOBFILE, what it refers to) to the array, or None where there is no such file."""

_PRINTER = Printer("1.3", sort_inputs=False)
_MISSING = "nothing"
SHORT, DIGEST = 64, 32  # bytes


@dataclass(frozen=True)
class Difference:
    """``where``: the function and op; ``what`` differs there: an argument, a type, an attribute, a constant, an op."""

    where: str
    what: str
    a: str
    b: str

    def __str__(self) -> str:
        return f"{self.where}: {self.what}: {self.a} | {self.b}"


@dataclass
class _Side:
    """One program: how its weights are read, and in a block its constants and what makes each of its values."""

    read: Read
    constants: dict[str, Message] = field(default_factory=dict)  # by name of the value
    made: dict[str, tuple[Any, ...]] = field(default_factory=dict)  # what stands for the value on both sides
    known: dict[tuple[str, int], Any] = field(default_factory=dict)

    def inner(self) -> _Side:
        return _Side(self.read, dict(self.constants), dict(self.made), self.known)


def diff(a: Message, b: Message, *, read_a: Read, read_b: Read, interface: bool = False) -> list[Difference]:
    """What differs between two ``MILSpec.Program``: nothing where they compute the same ops on the same constants.

    Constants are compared by value, wherever they stand: inline, or in a weight file, which ``read_a`` and ``read_b``
    read; two files that are not there are compared by offset. Inputs are paired by name, or in order where names
    differ. ``interface``: names of inputs and outputs count too.
    """
    found = []
    for name in sorted({*a.functions, *b.functions}):
        if name not in a.functions or name not in b.functions:
            found.append(Difference(f"function {name!r}", "function", *_presence(name in a.functions)))
            continue
        found += _functions(name, a.functions[name], b.functions[name], _Side(read_a), _Side(read_b), interface)
    return found


def _presence(in_a: bool) -> tuple[str, str]:
    return ("there", _MISSING) if in_a else (_MISSING, "there")


def _functions(name: str, a: Message, b: Message, x: _Side, y: _Side, interface: bool) -> Iterator[Difference]:
    where = f"function {name!r}"
    if a.opset != b.opset:
        yield Difference(where, "opset", a.opset, b.opset)
    for key in sorted({*a.attributes} & {*b.attributes}):
        one, other = _value(a.attributes[key], x), _value(b.attributes[key], y)
        if one != other:
            yield Difference(where, f"attribute {key}", str(one), str(other))
    names = [value.name for value in a.inputs], [value.name for value in b.inputs]
    ins, outs = list(a.inputs), list(b.inputs)
    if {*names[0]} == {*names[1]}:
        outs.sort(key=lambda value: names[0].index(value.name))
    elif interface or len(ins) != len(outs):
        yield Difference(where, "inputs", ", ".join(names[0]), ", ".join(names[1]))
    for i, (one, other) in enumerate(zip(ins, outs, strict=False)):
        x.made[one.name] = y.made[other.name] = ("input", i)
        if (kinds := (_type(one.type), _type(other.type)))[0] != kinds[1]:
            yield Difference(where, f"type of input {one.name}", *kinds)
    blocks = [side.block_specializations.get(side.opset) for side in (a, b)]
    if blocks[0] is None or blocks[1] is None:
        raise FormatError(f"{where} has no block for its opset")
    yield from _blocks(where, blocks[0], blocks[1], x, y)
    if interface and list(blocks[0].outputs) != list(blocks[1].outputs):
        yield Difference(where, "outputs", ", ".join(blocks[0].outputs), ", ".join(blocks[1].outputs))


def _blocks(where: str, a: Message, b: Message, x: _Side, y: _Side) -> Iterator[Difference]:
    """Ops are paired in order, by type and types of results; what is left over is only on one side."""
    ops = _running(a, x), _running(b, y)
    for n, (one, other) in enumerate(_pairs(*ops)):
        if one is None or other is None:
            op = one if one is not None else other
            for side, ours in ((x, one), (y, other)):
                for i, result in enumerate(ours.outputs if ours is not None else ()):
                    side.made[result.name] = ("only here", id(op), i)
            told = f"{op.type} of {', '.join(_type(result.type) for result in op.outputs)}"
            yield Difference(f"{where}: {_named(op)}", "op", *((told, _MISSING) if other is None else (_MISSING, told)))
            continue
        yield from _ops(f"{where}: {_named(one)}", one, other, x, y)
        for i, results in enumerate(zip(one.outputs, other.outputs, strict=False)):
            x.made[results[0].name] = y.made[results[1].name] = ("result", where, n, i)
    results = [_binding(name, x) for name in a.outputs], [_binding(name, y) for name in b.outputs]
    if results[0] != results[1]:
        yield Difference(where, "results", ", ".join(a.outputs), ", ".join(b.outputs))


def _running(block: Message, side: _Side) -> list[Message]:
    """The ops but the constants, which go to their users."""
    ops = []
    for op in block.operations:
        if op.type == "const" and op.outputs and "val" in op.attributes:
            side.constants[op.outputs[0].name] = op.attributes["val"]
        else:
            ops.append(op)
    return ops


def _pairs(a: Sequence[Message], b: Sequence[Message]) -> Iterator[tuple[Any, Any]]:
    keys = [tuple(map(_key, side)) for side in (a, b)]
    head = 0
    while head < min(len(a), len(b)) and keys[0][head] == keys[1][head]:
        head += 1
    yield from zip(a[:head], b[:head], strict=True)
    tail = 0
    while tail < min(len(a), len(b)) - head and keys[0][-1 - tail] == keys[1][-1 - tail]:
        tail += 1
    ends = len(a) - tail, len(b) - tail
    matcher = difflib.SequenceMatcher(None, keys[0][head : ends[0]], keys[1][head : ends[1]], autojunk=False)
    for kind, i, j, k, m in matcher.get_opcodes():
        some, others = a[head + i : head + j], b[head + k : head + m]
        if kind in ("equal", "replace") and len(some) == len(others):
            yield from zip(some, others, strict=True)
        else:
            yield from ((op, None) for op in some)
            yield from ((None, op) for op in others)
    yield from zip(a[ends[0] :], b[ends[1] :], strict=True)


def _key(op: Message) -> tuple[str, ...]:
    return op.type, *(_type(result.type) for result in op.outputs)


def _ops(where: str, a: Message, b: Message, x: _Side, y: _Side) -> Iterator[Difference]:
    if a.type != b.type:
        yield Difference(where, "op", a.type, b.type)
        return
    kinds = [", ".join(_type(result.type) for result in op.outputs) for op in (a, b)]
    if kinds[0] != kinds[1]:
        yield Difference(where, "type", kinds[0], kinds[1])
    for key in sorted({*a.inputs, *b.inputs} | ({*a.attributes, *b.attributes} - {"name"})):
        one, other = _argument(a, key, x), _argument(b, key, y)
        if one != other:
            yield _told(where, key, (a, x, one), (b, y, other))
    if len(a.blocks) != len(b.blocks):
        yield Difference(where, "blocks", str(len(a.blocks)), str(len(b.blocks)))
    for i, (one, other) in enumerate(zip(a.blocks, b.blocks, strict=False)):
        inner = x.inner(), y.inner()
        for n, values in enumerate(zip(one.inputs, other.inputs, strict=False)):
            inner[0].made[values[0].name] = inner[1].made[values[1].name] = ("parameter", where, i, n)
        yield from _blocks(f"{where}, block {i}", one, other, *inner)


def _argument(op: Message, key: str, side: _Side) -> Any:
    """What an argument or attribute says, the same on both sides if it is the same; None where it is not there."""
    if key in op.inputs:
        bindings = op.inputs[key].arguments
        return tuple(_binding(each.name, side) if each.WhichOneof("binding") == "name" else _value(each.value, side)
                     for each in bindings)  # fmt: skip
    return (_value(op.attributes[key], side),) if key in op.attributes else None


def _binding(name: str, side: _Side) -> Any:
    if name in side.constants:
        return _value(side.constants[name], side)
    return side.made.get(name, ("unknown", name))


@dataclass(frozen=True)
class _Constant:
    """A value by its type and its bytes, or by what a file that is not there would hold."""

    type: str
    data: Any

    def __str__(self) -> str:
        return self.type


def _value(value: Message, side: _Side) -> _Constant:
    kind = _type(value.type)
    if value.WhichOneof("value") != "blobFileValue":
        if value.type.WhichOneof("type") != "tensorType":
            return _Constant(kind, value.immediateValue.SerializeToString(deterministic=True))
        return _Constant(kind, _bytes(_array(value)))
    at = value.blobFileValue.fileName, value.blobFileValue.offset
    if at not in side.known:
        scalar, shape = tensor_of(value.type.tensorType)
        reference = blob.Reference(*at, scalar.name, tuple(size or 0 for size in shape), "a constant")
        array = side.read(at[0], reference)
        side.known[at] = f"at {at[1]} of {at[0]}" if array is None else _bytes(array)
    return _Constant(kind, side.known[at])


def _array(value: Message) -> Any:
    """An inline tensor: numpy's, or a list where it has no such type."""
    import numpy as np

    try:
        scalar, shape = tensor_of(value.type.tensorType)
        count = int(np.prod([size or 1 for size in shape])) if None not in shape else None
        values = load(scalar, value.immediateValue.tensor, count)
    except (ValueError, LiteralError) as error:
        raise FormatError(str(error)) from None
    if scalar.kind in ("string", "bool") or scalar.blob is None or scalar.exponent:
        return values
    return np.array(values, f"{scalar.kind[0]}{max(scalar.bits, 8) // 8}")


def _bytes(array: Any) -> bytes:
    """What equal constants have in common; a digest of many bytes."""
    data: bytes = repr(array).encode() if isinstance(array, list) else array.tobytes()
    return data if len(data) <= SHORT else hashlib.blake2b(data, digest_size=DIGEST).digest()


def _told(where: str, key: str, a: tuple[Message, _Side, Any], b: tuple[Message, _Side, Any]) -> Difference:
    texts = [_MISSING if said is None else ", ".join(_text(op, key, i, side, each) for i, each in enumerate(said))
             for op, side, said in (a, b)]  # fmt: skip
    both = [said[0] for _, _, said in (a, b) if said is not None and len(said) == 1]
    constants = len(both) == 2 and all(isinstance(each, _Constant) for each in both)
    if constants and texts[0] == texts[1]:
        texts = [f"{text} with {_summary(each)}" for text, each in zip(texts, both, strict=True)]
    kind = "attribute" if key in a[0].attributes or key in b[0].attributes else "constant" if constants else "argument"
    return Difference(where, f"{kind} {key}", texts[0], texts[1])


def _text(op: Message, key: str, i: int, side: _Side, said: Any) -> str:
    """The literal of a short constant, the type of a long one, the name of anything else."""
    named = ""
    if key in op.inputs:
        binding = op.inputs[key].arguments[i]
        named = binding.name if binding.WhichOneof("binding") == "name" else ""
        value = side.constants.get(named) if named else binding.value
    else:
        value = op.attributes[key]
    if not isinstance(said, _Constant) or value is None:
        return named or str(said)
    if value.WhichOneof("value") == "blobFileValue":
        return f"{said.type} from a file"
    text = _PRINTER.value(value)
    return text if len(text) <= 60 else said.type


def _summary(constant: _Constant) -> str:
    data = constant.data if isinstance(constant.data, bytes) else constant.data.encode()
    return f"digest {hashlib.blake2b(data, digest_size=6).hexdigest()}"


def _type(message: Message) -> str:
    return _PRINTER.type(message)


def _named(op: Message) -> str:
    return f"{op.type} {', '.join(repr(result.name) for result in op.outputs)}"


def reader(file_of: Callable[[str], Any]) -> Read:
    """Reads the weight files that ``file_of`` finds; None where it raises ``MissingFileError``."""
    from ..errors import MissingFileError, UnsupportedError

    def read(name: str, reference: blob.Reference) -> Any:
        try:
            return blob.read(file_of(name), reference)
        except (MissingFileError, UnsupportedError):
            return None

    return read
