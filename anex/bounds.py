"""What a file may make its reader do: read, follow and compute, each within bounds.

A file is a stranger's. Its links may lead to devices that never end, or out of the model's folder; a few bytes of
text may ask for a constant of terabytes, which coremltools would compute while it builds the program.
"""

from __future__ import annotations

import contextlib
import math
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from .errors import Error, FormatError, MissingFileError

LARGEST_TEXT = 256 << 20  # bytes of MIL text, or of a protobuf without its weights
LARGEST_VALUE = 64 << 20  # elements of one value that is computed while a program is built
ALL_VALUES = 256 << 20  # of all of them
MOST_OPS = 200_000


def read(path: Path) -> bytes:
    """The bytes of a regular file of bounded size."""
    try:
        found = path.stat()
        if not stat.S_ISREG(found.st_mode):
            kind = "a folder" if stat.S_ISDIR(found.st_mode) else "no regular file"
            raise MissingFileError(f"{path} cannot be read: it is {kind}")
        if found.st_size > LARGEST_TEXT:
            raise FormatError(
                f"{path} has {found.st_size >> 20} MiB, more than the {LARGEST_TEXT >> 20} MiB that a program without "
                "its weights may have"
            )
        return path.read_bytes()
    except Error:  # which may be a FileNotFoundError or a ValueError too
        raise
    except FileNotFoundError as error:
        raise MissingFileError(f"{path} does not exist") from error
    except (OSError, ValueError) as error:  # ValueError: a path with a NUL; OSError: links in a circle
        raise MissingFileError(f"{path} cannot be read: {error}") from error


def inside(path: Path, folder: Path) -> Path:
    """``path``, which must lead into ``folder``, links followed.

    Files of the cache of huggingface_hub are links to its blobs, and may be.
    """
    try:
        real, home = path.resolve(strict=True), folder.resolve(strict=True)
    except FileNotFoundError as error:
        raise MissingFileError(f"{path} does not exist") from error
    except (OSError, RuntimeError, ValueError) as error:  # links in a circle
        raise FormatError(f"{path} cannot be followed: {error}") from error
    blobs = {parent.parent / "blobs" for parent in home.parents if parent.name == "snapshots"}
    if not real.is_relative_to(home) and real.parent not in blobs:
        raise FormatError(f"{path} leads out of the model's folder, to {real}")
    return path


@contextlib.contextmanager
def evaluation() -> Iterator[None]:
    """While it holds, constants above the bounds are left for the program to compute, and no program grows too long.

    Stands inside ``with coremltools()``, which keeps other threads out.
    """
    from coremltools.converters.mil.mil import Operation, types

    original = Operation._auto_val
    left = [ALL_VALUES, MOST_OPS]

    def elements(kind: Any) -> float:
        dims = kind.get_shape() if types.is_tensor(kind) else ()
        return math.prod(int(dim) for dim in dims) if all(hasattr(dim, "__index__") for dim in dims) else 0

    def bounded(self: Any, output_types: Any) -> Any:
        left[1] -= 1
        if left[1] < 0:
            raise FormatError(f"the program has more than {MOST_OPS} ops")
        if not self.op_type.startswith("const"):
            size = max(map(elements, output_types), default=0)
            if size > LARGEST_VALUE or size > left[0]:
                return tuple(None for _ in output_types)
            found = original(self, output_types)
            if any(value is not None for value in found):
                left[0] -= int(size)
            return found
        return original(self, output_types)

    Operation._auto_val = bounded
    try:
        yield
    finally:
        Operation._auto_val = original
