"""MIL's scalar types: their names, numbers and widths, and how their values are written and stored.

One row of ``SCALARS`` per type says everything that differs between types. Values are stored in the
fields that coremltools' exporter uses, because its loader (and Core ML) reads no others.
"""

import bisect
import functools
import math
import re
import struct
from collections.abc import Callable, Sequence
from typing import NamedTuple, TypeAlias

from .proto import Message

#: What a literal means: bool, int, float or str.
Scalar: TypeAlias = bool | int | float | str


class LiteralError(Exception):
    """Literal number ``index`` of several does not fit its type; the text says why."""

    def __init__(self, index: int, reason: str):
        super().__init__(reason)
        self.index = index


class ScalarType(NamedTuple):
    name: str  # in MIL text
    number: int  # in MILSpec.DataType
    kind: str  # "bool", "string", "int", "uint" or "float"
    bits: int
    field: str  # of MILSpec.TensorValue
    blob: int | None = None  # data type code in a weight file's records, None: never in a weight file
    exponent: int = 0  # bits of the exponent, for floats that `struct` has no code for
    infinite: bool = True  # has infinities (fp8e4m3fn has none)


_ROWS = (
    ScalarType("bool", 1, "bool", 8, "bools"),
    ScalarType("string", 2, "string", 0, "strings"),
    ScalarType("fp16", 10, "float", 16, "bytes", 1),
    ScalarType("fp32", 11, "float", 32, "floats", 2),
    ScalarType("fp64", 12, "float", 64, "doubles"),
    ScalarType("bf16", 13, "float", 16, "bytes", 5, exponent=8),
    ScalarType("int8", 21, "int", 8, "bytes", 4),
    ScalarType("int16", 22, "int", 16, "ints", 6),
    ScalarType("int32", 23, "int", 32, "ints", 14),
    ScalarType("int64", 24, "int", 64, "longInts"),
    ScalarType("int4", 25, "int", 4, "bytes", 8),
    ScalarType("uint8", 31, "uint", 8, "bytes", 3),
    ScalarType("uint16", 32, "uint", 16, "ints", 7),
    ScalarType("uint32", 33, "uint", 32, "bytes", 15),
    ScalarType("uint64", 34, "uint", 64, "longInts"),
    ScalarType("uint4", 35, "uint", 4, "bytes", 11),
    ScalarType("uint2", 36, "uint", 2, "bytes", 10),
    ScalarType("uint1", 37, "uint", 1, "bytes", 9),
    ScalarType("uint6", 38, "uint", 6, "bytes", 13),
    ScalarType("uint3", 39, "uint", 3, "bytes", 12),
    # No MIL text with fp8 is public; the names follow MILSpec.DataType.
    ScalarType("fp8e4m3fn", 40, "float", 8, "bytes", 16, exponent=4, infinite=False),
    ScalarType("fp8e5m2", 41, "float", 8, "bytes", 17, exponent=5),
)
SCALARS = {row.name: row for row in _ROWS}
BY_NUMBER = {row.number: row for row in _ROWS}

_STRUCT = {
    ("float", 16): "e",
    ("float", 32): "f",
    ("float", 64): "d",
    ("int", 8): "b",
    ("int", 16): "h",
    ("int", 32): "i",
    ("int", 64): "q",
    ("uint", 8): "B",
    ("uint", 16): "H",
    ("uint", 32): "I",
    ("uint", 64): "Q",
}
_BOOLS = {"true": True, "false": False}
_NOT_FINITE = {"inf": math.inf, "-inf": -math.inf, "nan": math.nan, "-nan": -math.nan}
_DIGIT = re.compile("-?[0-9]")
_STRING = re.compile(r'"[^"\\]*(?:\\.[^"\\]*)*"', re.DOTALL)
_ESCAPE = re.compile(r"\\(.)", re.DOTALL)
_ESCAPED = {"n": "\n", "r": "\r", "t": "\t"}
_ESCAPES = str.maketrans({"\\": r"\\", '"': r"\"", "\n": r"\n", "\r": r"\r", "\t": r"\t"})


# ---- text <-> Python value


def parse(scalar: ScalarType, tokens: Sequence[str]) -> list[Scalar]:
    """The values of literal ``tokens``; LiteralError names the first that is none of this type."""
    convert = _CONVERT[scalar.kind]
    try:
        values: list[Scalar] = [convert(token) for token in tokens]
    except (ValueError, KeyError, OverflowError):
        for index, token in enumerate(tokens):
            try:
                convert(token)
            except OverflowError:
                raise LiteralError(index, f"{describe(token)} does not fit {scalar.name}") from None
            except (ValueError, KeyError):
                reason = f"expected a literal of type {scalar.name}, found {describe(token)}"
                raise LiteralError(index, reason) from None
        raise
    _check_range(scalar, values)
    return values


def write(scalar: ScalarType, values: Sequence[Scalar]) -> list[str]:
    """Literals that coremlc would print for ``values``."""
    if scalar.kind == "float":
        return [hexadecimal(float(value)) for value in values]
    if scalar.kind == "string":
        return [quote(str(value)) for value in values]
    if scalar.kind == "bool":
        return ["true" if value else "false" for value in values]
    return [str(value) for value in values]


def hexadecimal(value: float) -> str:
    """C99 hexadecimal of the exact value, normalised, with no trailing zeros: ``0x1.8p+1``."""
    if not math.isfinite(value):
        sign = "-" if math.copysign(1, value) < 0 else ""
        return sign + ("inf" if math.isinf(value) else "nan")
    mantissa, exponent = value.hex().split("p")
    if value and "0x0" in mantissa:  # Python leaves fp64's subnormals as 0x0.…p-1022
        fraction, power = math.frexp(value)
        mantissa, exponent = (2 * fraction).hex().split("p")[0], str(power - 1)
    return f"{mantissa.rstrip('0').rstrip('.')}p{exponent}" if value else f"{mantissa[:-2]}p{exponent}"


def quote(text: str) -> str:
    """``text`` as a STRING token."""
    return f'"{text.translate(_ESCAPES)}"'


def is_string(token: str) -> bool:
    """Whether ``token`` is a STRING with an end."""
    return _STRING.fullmatch(token) is not None


def unquote(token: str) -> str:
    """The string that a STRING token stands for; ValueError if it is none or has no end."""
    if not is_string(token):
        raise ValueError(token)
    return _ESCAPE.sub(lambda match: _ESCAPED.get(match[1], match[1]), token[1:-1])


def describe(token: str) -> str:
    """``token`` as an error says what it found."""
    if not token:
        return "the end of the text"
    text = repr(token if len(token) <= 40 else token[:37] + "...")
    if token[0] == '"' and not is_string(token):
        return f"a string that never ends, {text}"
    return f"{text} (MIL text has no comments)" if token in ("/", "#") else text


def _integer(token: str) -> int:
    if not token.isascii():  # int() takes the digits of every script
        raise ValueError(token)
    return int(token)


def _float(token: str) -> float:
    if not _DIGIT.match(token):
        return _NOT_FINITE[token]
    value = float.fromhex(token) if "x" in token else float(token)
    if math.isinf(value):
        raise OverflowError(token)
    return value


_CONVERT: dict[str, Callable[[str], Scalar]] = {
    "bool": _BOOLS.__getitem__,
    "string": unquote,
    "int": _integer,
    "uint": _integer,
    "float": _float,
}


def limits(scalar: ScalarType) -> tuple[int, int]:
    """Smallest and largest value of an integer type."""
    if scalar.kind == "uint":
        return 0, (1 << scalar.bits) - 1
    return -(1 << scalar.bits - 1), (1 << scalar.bits - 1) - 1


def _check_range(scalar: ScalarType, values: Sequence[Scalar]) -> None:
    if scalar.kind in ("int", "uint") and values:
        low, high = limits(scalar)
        numbers = [int(value) for value in values]
        if min(numbers) < low or max(numbers) > high:
            index = next(i for i, value in enumerate(numbers) if not low <= value <= high)
            raise LiteralError(index, f"{numbers[index]} does not fit {scalar.name} ({low} to {high})")


# ---- Python values <-> TensorValue


def store(scalar: ScalarType, values: Sequence[Scalar], tensor: Message) -> None:
    """Put ``values`` into a TensorValue, in coremltools' field; LiteralError if one does not fit."""
    field = getattr(tensor, scalar.field)
    if not values:
        field.SetInParent()
    elif scalar.field == "bytes":
        field.values = _pack(scalar, values)
    else:
        if scalar.name == "fp32":
            _pack(scalar, values)  # only to refuse what would become infinite
        if scalar.name == "uint64":  # the field is signed: keep the bits
            values = [int(value) - (int(value) >> 63 << 64) for value in values]
        field.values.extend(values)


def load(scalar: ScalarType, tensor: Message, count: int | None) -> list[Scalar]:
    """The values of a TensorValue; LiteralError if its field or size is not of this type.

    ``count`` says how many packed values there are; None means as many as there are bytes for.
    """
    field = tensor.WhichOneof("value")
    if field is None:
        return []
    if field not in _READABLE[scalar.kind]:
        raise LiteralError(0, f"{scalar.name} values cannot be stored in the field {field!r}")
    stored = getattr(tensor, field).values
    values: list[Scalar] = _unpack(scalar, stored, count) if field == "bytes" else list(stored)
    if scalar.kind == "uint" and field in ("ints", "longInts"):
        wrap = 1 << (32 if field == "ints" else 64)
        if scalar.bits >= 32:
            values = [int(value) % wrap for value in values]
    _check_range(scalar, values)
    return values


# Older converters stored some integers in other fields than today's; the meaning is the same.
_READABLE = {
    "bool": ("bools",),
    "string": ("strings",),
    "int": ("ints", "longInts", "bytes"),
    "uint": ("ints", "longInts", "bytes"),
    "float": ("floats", "doubles", "bytes"),
}


def _pack(scalar: ScalarType, values: Sequence[Scalar]) -> bytes:
    """Little-endian bytes; types below 8 bits as one bit stream, first value in the lowest bits."""
    if scalar.bits < 8:
        mask = (1 << scalar.bits) - 1
        stream = "".join(f"{int(value) & mask:0{scalar.bits}b}" for value in reversed(values))
        return int(stream, 2).to_bytes((len(stream) + 7) // 8, "little")
    if scalar.exponent:
        codes = []
        for index, value in enumerate(values):
            try:
                codes.append(_encode(scalar, float(value)))
            except OverflowError:
                raise LiteralError(index, f"{value} does not fit {scalar.name}") from None
        return struct.pack(f"<{len(codes)}{_STRUCT['uint', scalar.bits]}", *codes)
    code = _STRUCT[scalar.kind, scalar.bits]
    try:
        return struct.pack(f"<{len(values)}{code}", *values)
    except OverflowError:
        for index, value in enumerate(values):
            try:
                struct.pack(f"<{code}", value)
            except OverflowError:
                raise LiteralError(index, f"{value} does not fit {scalar.name}") from None
        raise


def _unpack(scalar: ScalarType, data: bytes, count: int | None) -> list[Scalar]:
    if count is None:
        count = len(data) * 8 // scalar.bits
    needed = (count * scalar.bits + 7) // 8
    if len(data) != needed:
        raise LiteralError(0, f"{count} values of {scalar.name} take {needed} bytes, found {len(data)}")
    if scalar.bits < 8:
        stream = f"{int.from_bytes(data, 'little'):0{8 * len(data)}b}"
        ends = range(len(stream), len(stream) - count * scalar.bits, -scalar.bits)
        numbers = [int(stream[end - scalar.bits : end], 2) for end in ends]
        if scalar.kind == "int":
            sign = 1 << scalar.bits - 1
            numbers = [(number ^ sign) - sign for number in numbers]
        return list(numbers)
    if scalar.exponent:
        codes = struct.unpack(f"<{count}{_STRUCT['uint', scalar.bits]}", data)
        return [_decode(scalar, code) for code in codes]
    return list(struct.unpack(f"<{count}{_STRUCT[scalar.kind, scalar.bits]}", data))


# ---- floats without a `struct` code: bf16, fp8


@functools.cache
def _magnitudes(scalar: ScalarType) -> list[float]:
    """Every finite value that is not negative, ascending: the index of a value is its code."""
    fraction = scalar.bits - 1 - scalar.exponent
    bias = (1 << scalar.exponent - 1) - 1
    finite = (1 << scalar.bits - 1) - ((1 << fraction) if scalar.infinite else 1)
    values = []
    for code in range(finite):
        exponent, rest = code >> fraction, code & (1 << fraction) - 1
        mantissa = rest + ((1 << fraction) if exponent else 0)
        values.append(math.ldexp(mantissa, max(exponent, 1) - bias - fraction))
    return values


def _encode(scalar: ScalarType, value: float) -> int:
    """Code of the nearest value, ties to even; OverflowError above the largest."""
    table = _magnitudes(scalar)
    size = abs(value)
    sign = 1 << scalar.bits - 1
    if math.isnan(value):
        code = len(table) | sign >> 1 + scalar.exponent  # the quiet one
    elif size - table[-1] < (table[-1] - table[-2]) / 2:
        code = min(bisect.bisect_left(table, size), len(table) - 1)
        below, above = size - table[code - 1], table[code] - size
        if above > 0 and (below < above or (below == above and code % 2)):
            code -= 1
    elif math.isinf(value) and scalar.infinite:
        code = len(table)
    else:
        raise OverflowError
    return code | (sign if math.copysign(1, value) < 0 else 0)


def _decode(scalar: ScalarType, code: int) -> float:
    table = _magnitudes(scalar)
    negative, code = code >> scalar.bits - 1, code & (1 << scalar.bits - 1) - 1
    if code < len(table):
        value = table[code]
    else:
        value = math.inf if scalar.infinite and code == len(table) else math.nan
    return -value if negative else value
