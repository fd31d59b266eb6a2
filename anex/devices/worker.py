"""The process behind ``isolate=True``: ``python -m anex.devices.worker FD``; see ``anex.devices.isolate``.

FD is a socket through which the parent hands over connections. Each gets a thread, which answers one
request after the other. When the socket closes, or its parent is gone, the process ends.
"""

from __future__ import annotations

import os
import signal
import socket
import sys
import threading
from collections import OrderedDict
from multiprocessing.connection import Connection
from typing import Any

from .. import _native
from ..errors import ClosedError, DeviceError, Error

REMEMBERED = 64  # surfaces that a function keeps open between calls; those of tensors long closed are dropped


class Hosted:
    """A function, and tensors on the surfaces it was called with."""

    def __init__(self, program: _native.AneProgram, name: str, inputs: Any, outputs: Any, measures: bool) -> None:
        self.function = _native.AneFunction(program, name, inputs, outputs, measures)
        ports = self.function.ports()
        specs = [(shape, dtype) for _, shape, dtype, *_ in (*inputs, *outputs)]
        self.layouts = [(*spec, strides) for spec, (strides, _) in zip(specs, ports, strict=True)]
        self.n_inputs = len(inputs)
        self.tensors: OrderedDict[tuple[int, int], _native.Tensor] = OrderedDict()
        self.lock = threading.Lock()

    def run(self, surfaces: tuple[int, ...]) -> None:
        tensors = tuple(map(self._tensor, range(len(surfaces)), surfaces))
        self.function.run(tensors[: self.n_inputs], tensors[self.n_inputs :])

    def _tensor(self, port: int, surface: int) -> _native.Tensor:
        with self.lock:
            found = self.tensors.get((port, surface))
            if found is None:
                shape, dtype, strides = self.layouts[port]
                found = _native.Tensor.from_surface(surface, shape, dtype, strides)
                self.tensors[port, surface] = found
                if len(self.tensors) > max(REMEMBERED, 2 * len(self.layouts)):
                    self.tensors.popitem(last=False)
            self.tensors.move_to_end((port, surface))
            return found


class Host:
    """The programs of this process by number."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.count = 0
        self.programs: dict[int, tuple[_native.AneProgram, dict[str, Hosted]]] = {}

    def answer(self, what: str, *arguments: Any) -> Any:
        if what == "compile":
            return self.compile(*arguments)
        number, *rest = arguments
        if what == "close":
            return self.close(number)
        with self.lock:
            if number not in self.programs:
                raise ClosedError("this program is closed")
            program, functions = self.programs[number]
        if what == "run":
            return functions[rest[0]].run(rest[1])
        if what == "info":
            return program.info()
        if what == "keep":
            return program.keep(rest[0])
        if what in ("nodes", "stats"):
            return getattr(functions[rest[0]].function, what)()
        raise DeviceError(f"a worker is asked for {what!r}, which it does not know")

    def compile(self, text: bytes, blobs: Any, options: Any, functions: Any, measures: bool) -> Any:
        if reason := _native.ane_open():
            raise DeviceError(f"a worker process of isolate=True cannot open the Neural Engine: {reason}")
        program = _native.AneProgram(text, blobs, **options)
        hosted = {
            name: Hosted(program, name, inputs, outputs, measures) for name, (inputs, outputs) in functions.items()
        }
        with self.lock:
            self.count += 1
            number = self.count
            self.programs[number] = program, hosted
        account = _native.ane_account()
        is_spent = bool(account["compile_limit"]) and account["compiles"] >= account["compile_limit"]
        return number, {name: each.function.ports() for name, each in hosted.items()}, program.info(), is_spent

    def close(self, number: int) -> None:
        with self.lock:
            _, functions = self.programs.pop(number, (None, {}))
        for each in functions.values():
            each.function.close()

    def close_all(self) -> None:
        for number in tuple(self.programs):
            self.close(number)


def serve(host: Host, connection: Connection) -> None:
    """Answer until the other end closes."""
    with connection:
        while True:
            try:
                request = connection.recv()
            except (EOFError, OSError):
                return
            try:
                answer = "ok", host.answer(*request)
            except Error as error:
                answer = type(error).__name__, str(error)
            except Exception as error:
                answer = "DeviceError", f"in the worker process: {error!r}"
            try:
                connection.send(answer)
            except OSError:
                return


def main(fd: int) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the terminal sends it to both; the parent decides
    host = Host()
    with socket.socket(fileno=fd) as control:
        while True:
            data, fds, _, _ = socket.recv_fds(control, 1, 1)
            if not data:
                break
            for each in fds:
                threading.Thread(target=serve, args=(host, Connection(each)), daemon=True).start()
    watchdog = threading.Timer(2, os._exit, [1])  # a run that never ends does not keep the process
    watchdog.daemon = True
    watchdog.start()
    host.close_all()
    sys.stdout.flush()
    os._exit(0)


if __name__ == "__main__":
    main(int(sys.argv[1]))
