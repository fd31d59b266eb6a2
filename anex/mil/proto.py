"""The one door to protobuf: coremltools' ``MIL_pb2``, loaded at first use, and a program's kept source.

Importing any part of coremltools runs all of it (2-3 s), so nothing in ``anex.mil`` does at import.
"""

import functools
import importlib
from typing import Any, TypeAlias

from .._coremltools import coremltools

#: A protobuf message. Their classes are made at run time and have no types of their own.
Message: TypeAlias = Any

#: Field of ``Program`` that holds the text it was parsed from; coremltools and Core ML skip it as unknown.
SOURCE_FIELD = int.from_bytes(b"anex", "big") & 0x1FFFFFFF
_LENGTH_DELIMITED = 2


@functools.cache
def mil() -> Any:
    """The module ``coremltools.proto.MIL_pb2``; the first call loads coremltools."""
    return coremltools_module("proto.MIL_pb2")


def coremltools_module(name: str) -> Any:
    """A module of coremltools, by its name in there."""
    with coremltools():
        return importlib.import_module(f"coremltools.{name}")


def keep_source(program: Message, text: str) -> None:
    """Store ``text`` inside ``program`` as an unknown field."""
    data = text.encode()
    tag = SOURCE_FIELD << 3 | _LENGTH_DELIMITED
    program.MergeFromString(_varint(tag) + _varint(len(data)) + data)


def kept_source(program: Message) -> str | None:
    """The text that ``keep_source`` stored, or None."""
    found = None
    for field in importlib.import_module("google.protobuf.unknown_fields").UnknownFieldSet(program):
        if field.field_number == SOURCE_FIELD and field.wire_type == _LENGTH_DELIMITED:
            found = field.data
    try:
        return None if found is None else str(found, "utf-8")
    except UnicodeDecodeError:
        return None


def equal(a: Message, b: Message) -> bool:
    """Whether two programs say the same, kept source apart; NaN equals NaN and -0 differs from 0."""
    return _content(a) == _content(b)


def _content(program: Message) -> bytes:
    if kept_source(program) is not None:
        copy = type(program)()
        copy.CopyFrom(program)
        copy.DiscardUnknownFields()
        program = copy
    data: bytes = program.SerializeToString(deterministic=True)
    return data


def _varint(value: int) -> bytes:
    data = bytearray()
    while value > 0x7F:
        data.append(value & 0x7F | 0x80)
        value >>= 7
    data.append(value)
    return bytes(data)
