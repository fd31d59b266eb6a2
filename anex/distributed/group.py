"""What the processes of a run can do together, whatever carries their messages."""

from __future__ import annotations

import json
import re
import zlib
from abc import ABC, abstractmethod
from collections.abc import Iterable, Sequence
from types import TracebackType
from typing import Any

import numpy as np

from .._native import Tensor
from ..errors import ArgumentError, ClosedError, DTypeError, WorkerError
from .messages import Array, Message, messages, views

SUMMED = ("float16", "float32", "float64", "int32", "int64")


class Group(ABC):
    """The processes of a run: this one is number ``rank`` of ``size``, from 0.

    Every process makes the same calls in the same order, with arrays of the same shapes and dtypes. A process that
    leaves the ``with`` block by an exception ends the others, at its own end at the latest. ``timeout``: seconds that
    a call waits for the other processes. Each call raises ``WorkerError`` where one of them was lost, stands still
    for longer, or calls something else; the group is of no use then, and arrays that were being exchanged hold
    anything.
    """

    def __init__(self, rank: int, size: int, timeout: float) -> None:
        self.rank, self.size, self.timeout = rank, size, timeout
        self.closed = False

    def all_reduce(self, tensors: Iterable[Tensor | Array]) -> None:
        """Each of ``tensors`` becomes its sum over all processes, in place and with the same bits everywhere.

        float16, float32, float64, int32 or int64, anex tensors or numpy arrays. Contiguous ones of a megabyte and
        more are sent from where they lie; smaller ones are copied into messages of up to 25 MB, and so are those with
        gaps, such as padded rows. float16 is summed in float32 and rounded once. With two processes a sum has the
        bits of ``a + b``; with more the order of its terms is the library's choice, the same in every run of as many
        processes.
        Raises ``ArgumentError``, ``DTypeError``, ``WorkerError``.
        """
        arrays = views(tensors)
        for i, array in enumerate(arrays):
            if array.dtype.name not in SUMMED:
                raise DTypeError(f"array {i} is {array.dtype}; sums are of {', '.join(SUMMED)}")
        if self._same_call("all_reduce", arrays):
            self._exchange("all_reduce", messages(arrays, wide=True), root=None)

    def broadcast(self, tensors: Iterable[Tensor | Array], *, root: int = 0) -> None:
        """Each of ``tensors`` becomes what it is on rank ``root``, in place; any dtype. Raises as ``all_reduce``."""
        if not 0 <= root < self.size:
            raise ArgumentError(f"root={root}: the ranks are 0 to {self.size - 1}")
        arrays = views(tensors)
        if self._same_call(f"broadcast from {root}", arrays):
            self._exchange("broadcast", messages(arrays, wide=False), root=root)

    def share(self, value: Any = None, *, root: int = 0) -> Any:
        """What rank ``root`` gives, on every rank: numbers, texts, lists, dicts, whatever JSON has."""
        data = np.frombuffer(json.dumps(value).encode(), np.uint8).copy()
        length = np.array([len(data)])
        self.broadcast([length], root=root)
        if self.rank != root:
            data = np.empty(int(length[0]), np.uint8)
        self.broadcast([data], root=root)
        return json.loads(data.tobytes())

    def agree(self, tensors: Iterable[Tensor | Array]) -> bool:
        """Whether ``tensors`` have the same bits on every rank, by a checksum; every rank gets the same answer."""
        arrays, number = [np.asarray(tensor) for tensor in tensors], 0
        if not self._same_call("agree", arrays):
            return True
        for array in arrays:
            number = zlib.crc32(np.ascontiguousarray(array).reshape(-1).view(np.uint8).data, number)
        return self._agree(number)

    def barrier(self) -> None:
        """Until every process is here."""
        self._same_call("barrier", [])

    def close(self) -> None:
        """Leave the group, when all is done. Twice is harmless; any other call is a ``ClosedError`` then."""
        if not self.closed:
            self.closed = True
            self._leave()

    def __enter__(self) -> Group:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if error is None or (isinstance(error, SystemExit) and not error.code):
            self.close()
        else:
            self._abandon()

    # ---- what carries messages ----------------------------------------------------------------

    @abstractmethod
    def _start(self, data: Array, root: int | None) -> Any:
        """Begin the sum of contiguous ``data``, or its broadcast from ``root``; what ``_wait`` takes."""

    @abstractmethod
    def _wait(self, pending: Any) -> None:
        """Until it is done. Raises ``OSError``, ``RuntimeError`` or ``TimeoutError``."""

    @abstractmethod
    def _leave(self) -> None:
        """All is done, here and on the other processes or soon."""

    @abstractmethod
    def _abandon(self) -> None:
        """This process failed: see that the others end, once what it has to say is printed."""

    # ---- the rest -----------------------------------------------------------------------------

    def _exchange(self, what: str, parts: Sequence[Message], root: int | None) -> None:
        """All messages are under way at once."""
        try:
            pending = [self._start(message.data, root) for message in parts]
            for each in pending:
                self._wait(each)
        except (OSError, RuntimeError) as error:
            reason = re.sub(r"^\[\S+\] ", "", str(error).strip() or type(error).__name__)  # gloo's own source file
            reason = reason.splitlines()[0].split(". ")[0].rstrip(".!")
            size = sum(message.data.nbytes for message in parts)
            raise WorkerError(
                f"rank {self.rank} of {self.size}: another process was lost, or stood still for longer than "
                f"timeout={self.timeout:g} seconds, in {what} of {size} bytes: {reason}. Start the run again from its "
                "last checkpoint"
            ) from error
        for message in parts:
            message.unpack()

    def _same_call(self, what: str, arrays: Sequence[Array]) -> bool:
        """Whether there are others, which are in the same call then: else sums would be of unlike things."""
        if self.closed:
            raise ClosedError(f"{what} of a group that was closed: make its calls within the with block")
        if self.size == 1:
            return False
        described = " ".join([what, *(f"{array.dtype.name}{list(array.shape)}" for array in arrays)])
        if not self._agree(zlib.crc32(described.encode())):
            raise WorkerError(
                f"rank {self.rank} of {self.size} is in {what} of {len(arrays)} arrays, {described[:200]}; another is "
                "in a different call or has other shapes or dtypes: all ranks make the same calls in the same order"
            )
        return True

    def _agree(self, number: int) -> bool:
        """Whether 32-bit ``number`` is the same everywhere: its variance is 0, which integers tell exactly."""
        low, high = number & 0xFFFF, number >> 16
        sums = np.array([low, high, low * low, high * high], np.int64)
        self._exchange("a comparison", [Message(sums)], root=None)
        low, high, squares, more = (int(value) for value in sums)
        return squares * self.size == low**2 and more * self.size == high**2


class Alone(Group):
    """A group of one process, whose sums are what they are."""

    def __init__(self) -> None:
        super().__init__(0, 1, 0.0)

    def _leave(self) -> None:
        pass

    def _start(self, data: Array, root: int | None) -> Any:
        return None

    def _wait(self, pending: Any) -> None:
        pass

    def _abandon(self) -> None:
        pass
