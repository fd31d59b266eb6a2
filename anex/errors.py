"""Every exception anex raises: its own base class, and the builtin a caller would expect.

``except anex.Error`` catches all of them; ``except ValueError`` catches the ones a numpy user
would call a ValueError. The native layer names these classes in ``csrc/status.inc``.
"""


class Error(Exception):
    """Base class of every error raised by anex."""


class UnsupportedError(Error, NotImplementedError):
    """A device, op, dtype or feature that cannot be used here; the text says why and what can."""


class CompileError(Error, ValueError):
    """A MIL program that is well-formed but wrong, or that a device's compiler refused."""


class FormatError(Error, ValueError):
    """MIL text, a weight blob or a model package that is malformed, truncated or inconsistent."""


class ShapeError(Error, ValueError):
    """A shape, rank, size or layout that does not fit; names what was found and what is needed."""


class DTypeError(Error, TypeError):
    """A dtype that does not fit; nothing is ever converted in silence."""


class ArgumentError(Error, TypeError):
    """An input that is missing, unknown, given twice, or not an array."""


class DeviceError(Error, OSError):
    """A device, its driver or its daemon failed while it was used."""


class WorkerError(Error, ConnectionError):
    """Another process of a distributed run was lost, stands still, or does something else."""


class CompileLimitError(DeviceError, RuntimeError):
    """This process has compiled as many programs as it may; ``isolate=True`` compiles in another one."""


class MissingFileError(Error, FileNotFoundError):
    """A model, text or weight file that does not exist."""


class AllocationError(Error, MemoryError):
    """Memory for a tensor or a program could not be had."""


class ClosedError(Error, ValueError):
    """A tensor or program was used after it was closed."""


class ViewError(Error, BufferError):
    """A tensor cannot be closed or resized while views of its memory are alive."""


def brief(error: BaseException) -> str:
    """The first line of what it says; with its class before that, where it is none of anex's.

    >>> brief(ArgumentError("no x\\nmore")), brief(ZeroDivisionError("division by zero")), brief(KeyError())
    ('no x', 'ZeroDivisionError: division by zero', 'KeyError')
    """
    lines = str(error).strip().splitlines()
    if not lines:
        return type(error).__name__
    first = f"{lines[0]} {lines[1].strip()}" if lines[0].endswith(":") and len(lines) > 1 else lines[0]
    return first if isinstance(error, (Error, MemoryError)) else f"{type(error).__name__}: {first}"


class AneWarning(UserWarning):
    """The Neural Engine may refuse, get wrong or run slowly what a program does; the text says who found so.

    ``crossing``: of a call with ``ane_numerics=True``, what was met (``anex.devices.numerics.Crossing``); else None.
    """

    crossing: object = None
