"""Weight files (``weights/weight.bin``): what a program needs of them, checking, reading, writing.

coremltools' own reader and writer do the work. What is here comes before them: its reader trusts a program's
offsets and the record's data offset, so ``check`` looks at both, with errors that name file and offset.
"""

import math
import os
import struct
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Any, BinaryIO, NamedTuple

from ..errors import DTypeError, FormatError, MissingFileError, UnsupportedError
from .proto import Message, coremltools_module
from .scalars import SCALARS
from .types import tensor_of

if TYPE_CHECKING:
    import numpy as np

_HEADER = struct.Struct("<II56x")  # count of records, which writers get wrong and nobody reads; version
_RECORD = struct.Struct("<IIQQQ32x")  # sentinel, data type, bytes of data, offset of data, padding bits
_SENTINEL = 0xDEADBEEF
_VERSION = 2
_MOST_ZEROS = 1 << 32
_NAMES = {row.blob: row.name for row in SCALARS.values() if row.blob}

# Names of coremltools' methods, read_…_data and write_…_data, where they differ from the type's.
_METHODS = {"fp32": "float"}
_NOT_IN_COREMLTOOLS = ("bf16", "fp8e4m3fn", "fp8e5m2")


class Reference(NamedTuple):
    """One BLOBFILE of a program."""

    file: str  # as the program has it, "@model_path/weights/weight.bin"
    offset: int  # of the record, 64 bytes before the data
    dtype: str  # MIL's name
    shape: tuple[int, ...]
    owner: str  # the op, for errors

    @property
    def size(self) -> int:
        """Number of elements."""
        return math.prod(self.shape)


def references(program: Message) -> dict[str, list[Reference]]:
    """Every BLOBFILE of a MILSpec.Program, by file, in the order of the program.

    Raises FormatError if one has a type that no weight file can hold.
    """
    found: dict[str, list[Reference]] = {}
    for owner, value in _values(program):
        file = value.blobFileValue.fileName
        try:
            scalar, shape = tensor_of(value.type.tensorType)
        except ValueError as error:
            raise FormatError(f"{owner}: {error} cannot be in a weight file") from None
        sizes = tuple(size for size in shape if size is not None)
        if scalar.blob is None or len(sizes) < len(shape):
            raise FormatError(f"{owner}: {scalar.name} of shape {shape} cannot be in a weight file")
        offset = value.blobFileValue.offset
        found.setdefault(file, []).append(Reference(file, offset, scalar.name, sizes, owner))
    return found


def check(path: str | os.PathLike[str], references: Iterable[Reference]) -> None:
    """Raise unless the weight file ``path`` has every one of ``references``, complete and of its dtype.

    Read tolerantly, as the ANE's compiler does: the header's count, the alignment of records and data, and
    padding bits that a writer left out do not matter.

    Raises MissingFileError if there is no such file, FormatError if it is no weight file of version 2 or a
    record is not where, or not what, the program says.
    """
    try:
        file = open(path, "rb")  # noqa: SIM115
    except (FileNotFoundError, IsADirectoryError, NotADirectoryError):
        raise MissingFileError(f"there is no weight file {os.fspath(path)}") from None
    with file:
        size = file.seek(0, os.SEEK_END)
        _check_header(file, size, os.fspath(path))
        for reference in references:
            problem = _problem(file, size, reference)
            if problem:
                where = f"{os.fspath(path)}, offset {reference.offset}"
                raise FormatError(f"{where}: {problem} (for {reference.owner})")


def read(path: str | os.PathLike[str], reference: Reference) -> "np.ndarray[Any, Any]":
    """The array that ``reference`` means, checked first: sub-byte types unpacked to int8 or uint8.

    Raises what ``check`` does; UnsupportedError for bf16 and fp8, which coremltools cannot read.
    """
    import numpy as np

    check(path, [reference])
    method = f"read_{_method(reference.dtype)}_data"
    reader = coremltools_module("libmilstoragepython")._BlobStorageReader(os.fspath(path))
    data = getattr(reader, method)(reference.offset)
    if reference.dtype == "fp16":
        data = data.view(np.float16)
    array: np.ndarray[Any, Any] = data[: reference.size].reshape(reference.shape)
    return array


def write_zeros(path: str | os.PathLike[str], references: Iterable[Reference]) -> None:
    """A file that holds zeros for every one of ``references``: it takes no room where the system knows holes.

    Raises FormatError for more than 4 GiB of them, as readers keep them in memory.
    """
    records = {reference.offset: reference for reference in references}
    sizes = {at: (each.size * SCALARS[each.dtype].bits + 7) // 8 for at, each in records.items()}
    if sum(sizes.values()) > _MOST_ZEROS or max(records, default=0) > _MOST_ZEROS:
        raise FormatError(f"the program refers to more than {_MOST_ZEROS >> 30} GiB of weights: pass their file")
    with open(path, "wb") as file:
        file.write(_HEADER.pack(len(records), _VERSION))
        end = _HEADER.size
        for offset, reference in records.items():
            if offset < _HEADER.size:
                raise FormatError(f"{reference.owner}: offset {offset} lies in the header of the weight file")
            file.seek(offset)
            padding = sizes[offset] * 8 - reference.size * SCALARS[reference.dtype].bits
            code = SCALARS[reference.dtype].blob
            file.write(_RECORD.pack(_SENTINEL, code, sizes[offset], offset + _RECORD.size, padding))
            end = max(end, offset + _RECORD.size + sizes[offset])
        file.truncate(end)


class Writer:
    """Writes a weight file in Apple's layout, as coremltools' exporter does."""

    def __init__(self, path: str | os.PathLike[str]):
        """Start the file ``path`` anew."""
        self._writer = coremltools_module("libmilstoragepython")._BlobStorageWriter(os.fspath(path))

    def write(self, array: "np.ndarray[Any, Any]", dtype: str) -> int:
        """Append ``array`` as MIL type ``dtype``; returns the offset for its BLOBFILE.

        Sub-byte types take int8 or uint8 arrays, one element each. Raises DTypeError if the array's dtype is
        another than that of ``dtype``, UnsupportedError for types that coremltools cannot write.
        """
        import numpy as np

        method = f"write_{_method(dtype)}_data"
        wanted = _array_dtype(dtype)
        if array.dtype != wanted:
            raise DTypeError(f"{dtype} takes an array of {wanted}, not {array.dtype}")
        data = np.ascontiguousarray(array).reshape(-1)
        return int(getattr(self._writer, method)(data.view(np.uint16) if dtype == "fp16" else data))


def _array_dtype(dtype: str) -> "np.dtype[Any]":
    import numpy as np

    scalar = SCALARS[dtype]
    return np.dtype(f"{scalar.kind}{max(scalar.bits, 8)}")


def _method(dtype: str) -> str:
    scalar = SCALARS.get(dtype)
    if scalar is None or scalar.blob is None or dtype in _NOT_IN_COREMLTOOLS:
        raise UnsupportedError(f"coremltools can neither read nor write {dtype} in a weight file")
    return _METHODS.get(dtype, dtype)


def _check_header(file: BinaryIO, size: int, path: str) -> None:
    if size < _HEADER.size:
        raise FormatError(f"{path}: found {size or 'no'} bytes, a weight file's header has {_HEADER.size}")
    file.seek(0)
    _, version = _HEADER.unpack(file.read(_HEADER.size))
    if version != _VERSION:
        older = ": the older format of Espresso" if version == 1 else ""
        raise FormatError(f"{path}: weight file of version {version}{older}, version {_VERSION} is needed")


def _problem(file: BinaryIO, file_size: int, reference: Reference) -> str:
    """Why ``reference`` cannot be read, or ""."""
    offset, count, scalar = reference.offset, reference.size, SCALARS[reference.dtype]
    if offset < _HEADER.size or offset + _RECORD.size > file_size:
        return f"outside of the file, whose records lie in {_HEADER.size} to {file_size}"
    sentinel, code, size, data, padding = _record(file, offset)
    if sentinel != _SENTINEL:
        problem = f"no record starts here: found {sentinel:#010x}, not {_SENTINEL:#x}"
        if offset % 64:
            problem += "; records start at multiples of 64"
        elif _record(file, offset - 64)[0] == _SENTINEL:
            problem += f"; one starts 64 bytes before, and its offset, {offset - 64}, is what a program says"
        return problem
    if code != scalar.blob:
        return f"found {_NAMES.get(code, f'data of unknown type {code}')}, need {reference.dtype}"
    needed = (count * scalar.bits + 7) // 8
    if size != needed or padding not in (0, size * 8 - count * scalar.bits):
        found = f"found {size} bytes" + (f" less {padding} bits" if padding else "")
        return f"{found}, need {needed} for {count} elements of {reference.dtype}"
    if data < _HEADER.size:  # hand-written files: coremltools would read the header as data
        return f"its record says that the data start at {data}, need {offset + _RECORD.size}"
    if data + size > file_size:
        return f"its data ends at {data + size}, found only {file_size} bytes: the file is truncated"
    return ""


def _record(file: BinaryIO, offset: int) -> tuple[int, ...]:
    file.seek(offset)
    return _RECORD.unpack(file.read(_RECORD.size))


def _values(program: Message) -> Iterator[tuple[str, Message]]:
    """Every value from a weight file, and what it belongs to."""
    for name in sorted(program.functions):
        function = program.functions[name]
        for block in function.block_specializations.values():
            yield from _block_values(block)
        yield from _blob_values(f"function {name!r}", function.attributes.values())
    yield from _blob_values("the program", program.attributes.values())


def _block_values(block: Message) -> Iterator[tuple[str, Message]]:
    yield from _blob_values("a block", block.attributes.values())
    for op in block.operations:
        owner = f"op {op.type} ({', '.join(output.name for output in op.outputs)})"
        for argument in op.inputs.values():
            yield from _blob_values(owner, [b.value for b in argument.arguments if b.HasField("value")])
        yield from _blob_values(owner, op.attributes.values())
        for inner in op.blocks:
            yield from _block_values(inner)


def _blob_values(owner: str, values: Iterable[Message]) -> Iterator[tuple[str, Message]]:
    for value in values:
        if value.WhichOneof("value") == "blobFileValue":
            yield owner, value
        elif value.WhichOneof("value") == "immediateValue":
            immediate = value.immediateValue
            kind = immediate.WhichOneof("value")
            if kind == "dictionary":
                pairs = immediate.dictionary.values
                yield from _blob_values(owner, [side for pair in pairs for side in (pair.key, pair.value)])
            elif kind in ("list", "tuple"):
                yield from _blob_values(owner, getattr(immediate, kind).values)
