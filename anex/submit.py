"""Calls that return at once: ``Program.submit``.

The Neural Engine queues them itself; other devices, and worker processes, are called on a few threads.

What never answers. A call on the CPU always ends; one on the Neural Engine ends when the framework says so,
which it may fail to do. Its future then stays pending, its operands stay pinned, and closing its program
does not wait for it: the program goes with the last of its calls. The end of the process waits as long as
calls are done at all, gives up ``PATIENCE`` seconds after the last one, and says so in a warning.
"""

from __future__ import annotations

import atexit
import os
import threading
import warnings
from collections.abc import Callable
from concurrent.futures import FIRST_COMPLETED, Future, wait
from functools import partial
from queue import SimpleQueue
from typing import Any

from . import _native
from ._native import AneFunction, Plan, Submission
from .errors import AneWarning

THREADS = 4
QUEUE_DEPTH = 127  # calls submitted and not done, as the Neural Engine has it; the next one waits
PATIENCE = 10.0  # seconds that the end of the process waits for the next call to be done

_pending: dict[Future[Any], bool] = {}  # and whether it is sure to be done


def submit(executable: Any, arguments: Callable[[], tuple[Any, ...]], out: Any) -> Future[Any]:
    """Pin the operands, start the call, and promise what it returns; whatever goes wrong arrives in the future."""
    try:
        submission: Submission = executable.begin(arguments(), out)
    except Exception as error:
        failed: Future[Any] = Future()
        failed.set_exception(error)
        return failed
    if isinstance(executable, AneFunction):
        return _device.start(submission)
    return _threads.start(submission, isinstance(executable, Plan))


def _settle(future: Future[Any], finish: Callable[[], Any]) -> None:
    try:
        result = finish()
    except BaseException as error:
        future.set_exception(error)
    else:
        future.set_result(result)
    finally:
        _pending.pop(future, None)


class _Threads:
    """For devices whose runs are calls: a few threads, started at the first submission.

    Not a ThreadPoolExecutor, whose threads the interpreter waits for without end.
    """

    def __init__(self) -> None:
        self.room = threading.BoundedSemaphore(QUEUE_DEPTH)
        self.lock = threading.Lock()
        self.local = threading.local()
        self.threads: list[threading.Thread] = []
        self.calls: SimpleQueue[tuple[Submission, Future[Any]]] = SimpleQueue()

    def start(self, submission: Submission, is_sure: bool) -> Future[Any]:
        with self.lock:
            while len(self.threads) < THREADS:
                thread = threading.Thread(target=self._work, name=f"anex-{len(self.threads)}", daemon=True)
                thread.start()
                self.threads.append(thread)
        future: Future[Any] = Future()
        # A callback of a future runs on these threads: were it to wait for room, nobody would make any.
        if not getattr(self.local, "is_worker", False):
            self.room.acquire()
            future.add_done_callback(self._leave)
        _pending[future] = is_sure
        self.calls.put((submission, future))
        return future

    def _work(self) -> None:
        self.local.is_worker = True
        while True:
            submission, future = self.calls.get()
            if future.set_running_or_notify_cancel():
                _settle(future, submission.run)
            else:
                _pending.pop(future, None)
            del submission, future  # nothing is kept while the thread waits

    def _leave(self, _: Future[Any]) -> None:
        self.room.release()


class _Device:
    """For the Neural Engine: one thread ends the calls that the framework says are done.

    It copies staged outputs and runs the callbacks of futures, neither of which the framework's own
    threads should wait for; and a callback may close the program.
    """

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.thread: threading.Thread | None = None
        self.arrived: SimpleQueue[tuple[Submission, Future[Any]]] = SimpleQueue()

    def start(self, submission: Submission) -> Future[Any]:
        future: Future[Any] = Future()
        future.set_running_or_notify_cancel()  # what the device has cannot be called back
        with self.lock:
            if self.thread is None:
                self.thread = threading.Thread(target=self._finish_all, name="anex-done", daemon=True)
                self.thread.start()
        _pending[future] = False
        try:
            submission.start(partial(self._arrive, future))
        except Exception as error:
            _pending.pop(future, None)
            future.set_exception(error)
        return future

    def _arrive(self, future: Future[Any], submission: Submission) -> None:
        self.arrived.put((submission, future))

    def _finish_all(self) -> None:
        while True:
            submission, future = self.arrived.get()
            _settle(future, submission.finish)
            del submission, future  # nothing is kept while the thread waits


def _end() -> None:
    """Before the interpreter ends: the framework must not call into what is no longer there."""
    while left := dict(_pending):
        if not wait(left, None if any(left.values()) else PATIENCE, FIRST_COMPLETED).done:
            warnings.warn(
                f"{len(left)} call(s) on the Neural Engine were given up: none was done in the last {PATIENCE:g} s",
                AneWarning,
                stacklevel=2,
            )
            break
    _native.ane_hang_up()
    for then in _then:
        then()


_then: list[Callable[[], object]] = []


def at_end(then: Callable[[], object]) -> None:
    """Call it before the interpreter ends, when no call is under way any more."""
    _then.append(then)


_threads = _Threads()
_device = _Device()
atexit.register(_end)


def _forget() -> None:
    """A forked child has none of the threads."""
    global _threads, _device
    _threads, _device = _Threads(), _Device()
    _pending.clear()


os.register_at_fork(after_in_child=_forget)
