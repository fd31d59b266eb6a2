"""Programs of the Neural Engine in processes of their own: ``isolate=True``.

A worker (``anex.devices.worker``) compiles, loads and runs; tensors are surfaces, which it finds by their
numbers, so that nothing is copied. It may die: the calls under way fail, and at the next one a new
worker compiles the program again. A worker that may compile no more serves the programs it has, and
new ones get a fresh worker. The last program closes its worker, and so does the end of this process.
"""

from __future__ import annotations

import contextlib
import os
import socket
import subprocess
import sys
import threading
import weakref
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from multiprocessing.connection import Connection
from typing import TYPE_CHECKING, Any

from .. import _native, errors, submit
from ..errors import ClosedError, CompileLimitError, DeviceError
from ..processes import environment

if TYPE_CHECKING:
    from .ane import Source

PATIENCE = 5  # seconds that a worker has to end by itself


class Worker:
    """A child process, and the connections to it: each call has one to itself, each served by a thread there."""

    def __init__(self) -> None:
        ours, theirs = socket.socketpair()
        with theirs:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "anex.devices.worker", str(theirs.fileno())],
                env=environment(),
                pass_fds=[theirs.fileno()],
                stdin=subprocess.DEVNULL,
            )
        self.control = ours
        self.lock = threading.RLock()  # a program may be dropped by the collector, within any of our calls
        self.idle: list[Connection] = []
        self.programs = 0
        self.last = 0
        self.is_dead = self.is_spent = False

    def request(self, *message: Any, timeout: float | None = None) -> Any:
        """Have the worker do something; what it answers, or raises. Killed if it takes longer than ``timeout``."""
        with self._connection() as connection:
            connection.send(message)
            if connection.poll(timeout):
                kind, answer = connection.recv()
            else:
                self.process.kill()
                self.close()
                kind = "DeviceError"
                answer = f"the worker process of isolate=True has not answered for {timeout:g} s, its timeout, and was "
                answer += "ended; the next call starts another"
        if kind == "ok":
            return answer
        raise getattr(errors, kind, DeviceError)(answer)

    @contextlib.contextmanager
    def _connection(self) -> Iterator[Connection]:
        try:
            with self.lock:
                connection = self.idle.pop() if self.idle else self._connect()
        except OSError:
            raise self._died() from None
        try:
            yield connection
        except (EOFError, OSError):
            connection.close()
            raise self._died() from None
        except BaseException:  # half a conversation, interrupted
            connection.close()
            raise
        with self.lock:
            if self.is_dead:
                connection.close()
            else:
                self.idle.append(connection)

    def _connect(self) -> Connection:
        ours, theirs = socket.socketpair()
        with theirs:
            try:
                socket.send_fds(self.control, [b"c"], [theirs.fileno()])
            except BaseException:
                ours.close()
                raise
        return Connection(ours.detach())

    def _died(self) -> DeviceError:
        ending = _ending(self.close())
        return DeviceError(
            f"the worker process of isolate=True ended during the call ({ending}); the next call starts another"
        )

    def close(self) -> int | None:
        """End it, kindly if it is able to; its exit status."""
        with self.lock:
            self.is_dead = True
            self.control.close()  # which tells it to end
            while self.idle:
                self.idle.pop().close()
        try:
            return self.process.wait(PATIENCE)
        except subprocess.TimeoutExpired:
            self.process.kill()
            return self.process.wait()


def _ending(code: int | None) -> str:
    return f"signal {-code}" if code is not None and code < 0 else f"exit status {code}"


class _Workers:
    """The worker for new programs, and the ones that still serve old programs."""

    def __init__(self) -> None:
        self.lock = threading.RLock()
        self.current: Worker | None = None
        self.alive: set[Worker] = set()

    def take(self) -> Worker:
        """A worker for one more program; give it back."""
        with self.lock:
            worker = self.current
            if worker is None or worker.is_dead or worker.is_spent or worker.process.poll() is not None:
                worker = self.current = Worker()
                self.alive.add(worker)
            worker.programs += 1
            return worker

    def give_back(self, worker: Worker) -> None:
        with self.lock:
            worker.programs -= 1
            if worker.programs:
                return
            self.alive.discard(worker)
            if self.current is worker:
                self.current = None
        worker.close()

    def close(self) -> None:
        with self.lock:
            alive, self.alive, self.current = self.alive, set(), None
        for worker in alive:
            worker.control.close()
        for worker in alive:
            worker.close()


_workers = _Workers()
submit.at_end(lambda: _workers.close())


def _forget() -> None:
    """A forked child leaves the workers to its parent."""
    global _workers
    for worker in _workers.alive:
        worker.control.close()
        for connection in worker.idle:
            connection.close()
    _workers = _Workers()


os.register_at_fork(after_in_child=_forget)


class _Home:
    """Where a program lives: a worker, and its number there."""

    def __init__(self) -> None:
        self.worker: Worker | None = None
        self.number = 0

    def leave(self) -> None:
        worker, self.worker = self.worker, None
        if worker is None:
            return
        if not worker.is_dead and worker.programs > 1:  # with the last one the worker ends
            with contextlib.suppress(errors.Error):
                worker.request("close", self.number)
        _workers.give_back(worker)


class Remote:
    """A program in a worker, compiled again whenever that had to be replaced."""

    def __init__(self, source: Source, options: Mapping[str, Any], measures: bool, timeout: float | None) -> None:
        self._timeout = timeout
        self._message = (source.text, dict(source.blobs), dict(options), dict(source.functions), measures)
        self._lock = threading.RLock()
        self._home = _Home()
        self._is_closed = self._is_kept = False
        self._info: dict[str, Any] = {}
        self.open = len(source.functions)
        self.ports: dict[str, Any] = {}
        weakref.finalize(self, self._home.leave).atexit = False
        self._settled()

    def request(self, what: str, *arguments: Any) -> Any:
        worker, number = self._settled()
        return worker.request(what, number, *arguments, timeout=self._timeout)

    def _settled(self) -> tuple[Worker, int]:
        """The worker that has it, compiled there if it is not."""
        with self._lock:
            if self._is_closed:
                raise ClosedError("this program is closed")
            home = self._home
            if home.worker is not None and not home.worker.is_dead:
                return home.worker, home.number
            home.leave()
            while True:
                worker = _workers.take()
                try:
                    number, ports, self._info, spent = worker.request("compile", *self._message, timeout=self._timeout)
                except CompileLimitError:
                    fresh = worker.last == 0
                    worker.is_spent = True
                    _workers.give_back(worker)
                    if fresh:  # then the next one could not either
                        raise
                    continue
                except BaseException:
                    _workers.give_back(worker)
                    raise
                home.worker, home.number = worker, number
                worker.last, worker.is_spent = number, spent
                break
            if self.ports and self.ports != ports:
                raise DeviceError("the program was compiled again and wants its tensors laid out in another way")
            self.ports = ports
            if self._is_kept:
                worker.request("keep", number, True, timeout=self._timeout)
            return worker, number

    def keep(self, keep: bool) -> None:
        self._is_kept = keep
        self.request("keep", keep)

    def info(self) -> dict[str, Any]:
        """As ``AneProgram.info``; of the last time, while no worker has it."""
        with self._lock:
            if self._is_closed:
                raise ClosedError("this program is closed")
            if self._home.worker is None or self._home.worker.is_dead:
                return self._info | {"is_loaded": False}
        return dict(self.request("info"))

    def let_go(self) -> None:
        """One of its functions was closed, and runs no more."""
        with self._lock:
            self.open -= 1
            if self.open == 0:
                self._is_closed = True
                self._home.leave()


class Function:
    """One function of it, as a program calls it."""

    def __init__(self, remote: Remote, name: str, inputs: Sequence[Any], outputs: Sequence[Any]) -> None:
        self._remote, self._name = remote, name
        self._function = _native.RemoteFunction(
            [port[:3] for port in inputs], [port[:3] for port in outputs], remote.ports[name],
            partial(remote.request, "run", name), remote.let_go,
        )  # fmt: skip
        self.run: Callable[..., Any] = self._function.run
        self.begin = self._function.begin
        self.close: Callable[[], None] = self._function.close

    def nodes(self) -> Sequence[tuple[str, str, int]]:
        nodes: Sequence[tuple[str, str, int]] = self._remote.request("nodes", self._name)
        return nodes

    def profile(self, arguments: tuple[Any, ...], out: Any = None) -> Sequence[float]:
        return self._function.profile(arguments, out)

    def stats(self) -> Mapping[str, Any]:
        stats: dict[str, Any] = self._remote.request("stats", self._name)
        return stats | self._function.stats()

    def keep(self, keep: bool) -> None:
        self._remote.keep(keep)


class Program:
    """A program compiled in a worker."""

    def __init__(self, source: Source, options: Mapping[str, Any], measures: bool, timeout: float | None) -> None:
        self.registered = Remote(source, options, measures, timeout)
        self.functions = {
            name: Function(self.registered, name, inputs, outputs)
            for name, (inputs, outputs) in source.functions.items()
        }

    def keep(self, keep: bool) -> None:
        self.registered.keep(keep)
