"""MIL text <-> protobuf: ``to_text`` and ``from_text``, inverses of each other.

The text is a rendering of ``MILSpec.Program``. What coremlc wrote comes back byte for byte from the message
alone. Text by other hands (other spacing, order, decimal floats) is kept inside the message, in a field
that everybody else skips, and comes back for as long as it says the same as the message.
"""

import re
from typing import cast

from ..errors import ArgumentError, FormatError
from .flexible import flexible_shapes
from .grammar import OPSETS, parse_program
from .printer import Printer, coremlc_keys, is_string_dict
from .proto import Message, equal, keep_source, kept_source
from .tokens import position

_VERSION = re.compile(r"\s*program\s*\(\s*(1\.[0-9]+)")
_IN_1_0 = [name for name, text in OPSETS.items() if text < "ios18"]


def to_text(proto: Message, *, canonical: bool = False, version: str | None = None) -> str:
    """Print a MIL program as ``coremlc`` does, without a newline at the end.

    ``proto`` is coremltools' ``MIL_pb2.Program`` or a whole ``Model_pb2.Model``; from a model, functions
    whose inputs have flexible shapes get the attribute FlexibleShapeInformation. buildInfo gets the keys
    of the coremlc that prints so, unless the program has them.

    A program from ``from_text`` is printed as it was written, if it still says the same. Otherwise, and
    always with ``canonical=True``, it is printed in coremlc's layout; version and order of parameters
    remain as written. ``version`` is "1.0" or "1.3"; by default the one it was written in, or else
    1.3 if a function's opset is iOS 18 or later.

    Raises ArgumentError for any other object, FormatError for a message that no text can express.
    """
    kind = getattr(getattr(proto, "DESCRIPTOR", None), "full_name", None)
    if kind == "CoreML.Specification.Model":
        if proto.WhichOneof("Type") != "mlProgram":
            raise FormatError(f"a model of type {proto.WhichOneof('Type')!r} has no MIL text: mlProgram has")
        program = proto.mlProgram
    elif kind == "CoreML.Specification.MILSpec.Program":
        program = proto
    else:
        raise ArgumentError(f"to_text takes a MIL_pb2.Program or Model_pb2.Model, not {type(proto).__name__}")
    if version not in (None, "1.0", "1.3"):
        raise ArgumentError(f"version must be '1.0' or '1.3', not {version!r}")

    source = kept_source(program)
    written = _version_of(source) if source is not None else None
    chosen = version or written or _default_version(program)
    flexible = flexible_shapes(proto, chosen) if program is not proto else {}
    if source is not None and not canonical and chosen == written and not flexible and _says(source, program):
        return source
    return Printer(chosen, sort_inputs=written is None, flexible_shapes=flexible).program(program)


def from_text(text: str | bytes) -> Message:
    """Parse MIL text into coremltools' ``MIL_pb2.Program``.

    Values go into the fields that coremltools' exporter uses, so its loader takes the program. Entries of
    buildInfo that ``to_text`` adds by itself are left out. Meaning is checked as far as names go: every name
    is defined once, before its use; whether an op takes such arguments is coremltools' to say.

    Raises FormatError, with line and column, if the text is malformed; ArgumentError if it is no text.
    """
    if isinstance(text, bytes | bytearray | memoryview):
        text = _decode(bytes(text))
    if not isinstance(text, str):
        raise ArgumentError(f"from_text takes str or bytes, not {type(text).__name__}")
    try:
        text.encode()
    except UnicodeEncodeError as error:
        line, column = position(text, error.start)
        raise FormatError(f"line {line}, column {column}: {text[error.start]!r} is no character") from None
    program = _parse(text)
    if to_text(program) != text.removesuffix("\n"):
        keep_source(program, text)
    return program


def _parse(text: str) -> Message:
    program, version = parse_program(text)
    attributes = program.attributes
    if "buildInfo" in attributes and is_string_dict(attributes["buildInfo"].type):
        pairs = attributes["buildInfo"].immediateValue.dictionary.values
        kept = {_string(pair.key): pair for pair in pairs}
        for key, value in coremlc_keys(version).items():
            if key in kept and _string(kept[key].value) == value:
                del kept[key]
        ordered = [kept[key] for key in sorted(kept)]
        del pairs[:]
        pairs.extend(ordered)
        if not ordered:
            del attributes["buildInfo"]
    return program


def _string(value: Message) -> str:
    return cast(str, value.immediateValue.tensor.strings.values[0])


def _says(source: str, program: Message) -> bool:
    """Whether ``source`` is still a text of ``program``."""
    try:
        return equal(_parse(source), program)
    except FormatError:
        return False


def _version_of(source: str) -> str | None:
    match = _VERSION.match(source.removeprefix("\ufeff"))
    return match[1] if match else None


def _default_version(program: Message) -> str:
    new = any(function.opset not in _IN_1_0 for function in program.functions.values())
    return "1.3" if new else "1.0"


def _decode(data: bytes) -> str:
    try:
        return data.decode()
    except UnicodeDecodeError as error:
        before = data[: error.start].decode()
        line, column = position(before, len(before))
        byte = data[error.start]
        raise FormatError(f"line {line}, column {column}: byte {byte:#04x} is not UTF-8") from None
