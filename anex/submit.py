"""Calls that return at once: ``Program.submit``.

The Neural Engine queues them itself; other devices run them on a few threads.
"""

from __future__ import annotations

import atexit
import os
import threading
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor, wait
from functools import partial
from queue import SimpleQueue
from typing import Any

from ._native import AneFunction, Submission

THREADS = 4
QUEUE_DEPTH = 127  # calls submitted and not done, as the Neural Engine has it; the next one waits


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
    return _threads.start(submission)


class _Threads:
    """For devices whose runs are calls: a few threads, started at the first submission."""

    def __init__(self) -> None:
        self.room = threading.BoundedSemaphore(QUEUE_DEPTH)
        self.lock = threading.Lock()
        self.local = threading.local()
        self.pool: ThreadPoolExecutor | None = None

    def start(self, submission: Submission) -> Future[Any]:
        with self.lock:
            if self.pool is None:
                self.pool = ThreadPoolExecutor(THREADS, "anex", initializer=self._enter)
        # A callback of a future runs on these threads: were it to wait for room, nobody would make any.
        waits = not getattr(self.local, "is_worker", False)
        if waits:
            self.room.acquire()
        try:
            future = self.pool.submit(submission.run)
        except BaseException:
            if waits:
                self.room.release()
            raise
        if waits:
            future.add_done_callback(self._leave)
        return future

    def _enter(self) -> None:
        self.local.is_worker = True

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
        self.arrived: SimpleQueue[tuple[Submission, Future[Any]] | None] = SimpleQueue()
        self.pending: set[Future[Any]] = set()

    def start(self, submission: Submission) -> Future[Any]:
        future: Future[Any] = Future()
        future.set_running_or_notify_cancel()  # what the device has cannot be called back
        with self.lock:
            if self.thread is None:
                self.thread = threading.Thread(target=self._finish_all, name="anex-done", daemon=True)
                self.thread.start()
            self.pending.add(future)
        try:
            submission.start(partial(self._arrive, future))
        except Exception as error:
            self.pending.discard(future)
            future.set_exception(error)
        return future

    def _arrive(self, future: Future[Any], submission: Submission) -> None:
        self.arrived.put((submission, future))

    def _finish_all(self) -> None:
        while (item := self.arrived.get()) is not None:
            submission, future = item
            try:
                result = submission.finish()
            except BaseException as error:
                future.set_exception(error)
            else:
                future.set_result(result)
                del result
            self.pending.discard(future)
            del item, submission, future  # nothing is kept while the thread waits

    def stop(self) -> None:
        """Before the interpreter ends: the framework must not call into what is no longer there."""
        wait(list(self.pending))
        with self.lock:
            thread, self.thread = self.thread, None
        if thread is not None:
            self.arrived.put(None)
            thread.join()


_threads = _Threads()
_device = _Device()
atexit.register(lambda: _device.stop())


def _forget() -> None:
    """A forked child has none of the threads."""
    global _threads, _device
    _threads, _device = _Threads(), _Device()


os.register_at_fork(after_in_child=_forget)
