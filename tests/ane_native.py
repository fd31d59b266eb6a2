"""csrc/anex.h's Neural Engine by ctypes, with nothing of anex's Python in between: for tests of the binding itself."""

from __future__ import annotations

import ctypes
import os
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
from fake_ane import control

from anex import _native

HEADERS = Path(__file__).parent.parent / "csrc"
STATUSES = ["OK", *re.findall(r"^ANEX_STATUS\((\w+),", (HEADERS / "status.inc").read_text(), re.MULTILINE)]
native = ctypes.CDLL(_native.__file__)
if not native.anex_ane_selector_count():
    pytest.skip("anex was built without its Objective-C binding; ANEX_OBJC=1 builds it", allow_module_level=True)
if control.VARIABLE not in os.environ:  # read when the framework is opened, at first use
    os.environ[control.VARIABLE] = str(control.path())
i32, i64, u32, u64, size, pointer = (
    *(ctypes.c_int32, ctypes.c_int64, ctypes.c_uint32, ctypes.c_uint64),
    *(ctypes.c_size_t, ctypes.c_void_p),
)
flag, text, real = ctypes.c_bool, ctypes.c_char_p, ctypes.c_double


def structure(name: str, /, **fields) -> type[ctypes.Structure]:
    return type(name, (ctypes.Structure,), {"_fields_": list(fields.items())})


Error = structure("Error", text=ctypes.c_char * 1024)
Tensor = structure("Tensor", data=pointer, shape=i64 * 8, strides=i64 * 8, rank=i32, dtype=ctypes.c_int)
Blob = structure("Blob", path=text, data=text, bytes=size)
Options = structure("Options", qos=u32, perf_stats_mask=u32, way=ctypes.c_int, recompile=flag)
Port = structure("Port", name=text, tensor=Tensor, bytes=i64, symbol=i32)
Stats = structure("Stats", has_stats=flag, hardware_ns=u64, n_counters=i32, counters=u64 * 29)
Info = structure(
    "Info",
    **dict(identifier=ctypes.c_char * 256, is_loaded=flag, was_cached=flag, queue_depth=i32, program_handle=u64),
    **dict(intermediate_buffer_handle=u64, compile_seconds=real, load_seconds=real),
    **dict(evaluations=i64, loads=i64, requests_built=i64),
)
Account = structure(
    "Account",
    **dict(compiles=i32, compile_limit=i32, loaded=i32, load_limit=i32),
    **dict(cache_hits=i64, load_retries=i64, evictions=i64),
)
Device = structure(
    "Device",
    **dict(has_ane=flag, is_virtual_machine=flag, anes=u32, cores=u32, board_type=i64),
    **{name: ctypes.c_char * 32 for name in ("architecture", "subtype", "variant")},
    **dict(product=ctypes.c_char * 64, build=ctypes.c_char * 32, framework=ctypes.c_char * 256),
)
Selector = structure(
    "Selector",
    **dict(class_name=text, name=text, kind=ctypes.c_char, is_required=flag, expected=text),
    **dict(found=ctypes.c_char * 128, has_class=flag, fits=flag),
)
BUILD = '[buildInfo = dict<string, string>({{"coremlc-component-MIL", "3510.2.1"}})]'
ROW = ("float16", (1, 4, 1, 32))
Done = ctypes.CFUNCTYPE(None, pointer, ctypes.c_int, ctypes.POINTER(Error))

native.anex_memory_data.restype = pointer
native.anex_memory_bytes.restype = size
native.anex_ane_get_account.restype = Account
native.anex_ane_is_open.restype = flag
native.anex_ane_counter_name.restype = text
for name in ("data", "bytes", "lock", "unlock", "surface_id", "release"):
    getattr(native, f"anex_memory_{name}").argtypes = [pointer]
for name in ("free", "function_free"):
    getattr(native, f"anex_ane_{name}").argtypes = [pointer]


class Failure(Exception):
    def __init__(self, status: str, message: str) -> None:
        super().__init__(f"{status}: {message}")
        self.status, self.message = status, message


def call(function: str, *arguments) -> None:
    error = Error()
    status = getattr(native, f"anex_{function}")(*arguments, ctypes.byref(error))
    if status:
        raise Failure(STATUSES[status], error.text.decode())


def account() -> Account:
    return native.anex_ane_get_account()


def cache_has(identifier: bytes) -> bool:
    has = flag()
    call("ane_cache_has", identifier, ctypes.byref(has))
    return has.value


def cache_purge(identifier: bytes) -> None:
    call("ane_cache_purge", identifier)


def device() -> Device:
    found = Device()
    call("ane_get_device", ctypes.byref(found))
    return found


def selectors() -> list[Selector]:
    found = [Selector() for _ in range(native.anex_ane_selector_count())]
    for i, selector in enumerate(found):
        call("ane_get_selector", i, ctypes.byref(selector))
    return found


@contextmanager
def limits(*, compiles: int | None = None, loaded: int | None = None) -> Iterator[None]:
    before = account()
    native.anex_ane_set_limits(
        before.compile_limit if compiles is None else compiles, before.load_limit if loaded is None else loaded
    )
    try:
        yield
    finally:
        native.anex_ane_set_limits(before.compile_limit, before.load_limit)


def scale(by: float, shape: tuple[int, ...] = (1, 4, 1, 32), functions: tuple[str, ...] = ("main",)) -> str:
    """MIL of functions that multiply x, the first by ``by``, the next by one more, and so on."""
    t = f"tensor<fp16, {list(shape)}>"
    bodies = "".join(
        f"func {name}<ios18>({t} x) {{\n"
        f'fp16 k = const()[name = string("k"), val = fp16({by + i})];\n'
        f'{t} y = mul(x = x, y = k)[name = string("y")];\n}} -> (y);\n'
        for i, name in enumerate(functions)
    )
    return f"program(1.3)\n{BUILD}\n{{\n{bodies}}}\n"


def scaled(by: float, **options) -> tuple[Program, Function]:
    program = Program(scale(by), **options)
    return program, program.bind({"x": ROW}, {"y": ROW})


class Memory:
    """An ``anex_memory``, given back when closed or dropped."""

    def __init__(self, handle: ctypes.c_void_p) -> None:
        self.handle = handle

    @classmethod
    def new(cls, nbytes: int) -> Memory:
        handle = pointer()
        call("memory_new", size(nbytes), ctypes.c_bool(True), ctypes.byref(handle))
        return cls(handle)

    @classmethod
    def of_surface(cls, number: int) -> Memory:
        handle = pointer()
        call("memory_of_surface", u32(number), ctypes.byref(handle))
        return cls(handle)

    @property
    def nbytes(self) -> int:
        return native.anex_memory_bytes(self.handle)

    @property
    def surface_id(self) -> int:
        return native.anex_memory_surface_id(self.handle)

    @contextmanager
    def locked(self) -> Iterator[None]:
        native.anex_memory_lock(self.handle)
        try:
            yield
        finally:
            native.anex_memory_unlock(self.handle)

    def view(self, tensor: Tensor) -> np.ndarray:
        """As the port's shape and strides have it; to be touched while locked."""
        whole = (ctypes.c_char * self.nbytes).from_address(native.anex_memory_data(self.handle))
        dtype = next(name for name, code in _native.DTYPES.items() if code == tensor.dtype)
        return np.ndarray(tensor.shape[: tensor.rank], dtype, buffer=whole, strides=tensor.strides[: tensor.rank])

    def close(self) -> None:
        native.anex_memory_release(self.handle)
        self.handle = pointer()

    __del__ = close


class Function:
    def __init__(self, program: Program, name: str | None, inputs: dict, outputs: dict) -> None:
        self.program, self.n_inputs = program, len(inputs)
        self.ports = (Port * (len(inputs) + len(outputs)))()
        for port, (key, (dtype, shape)) in zip(self.ports, [*inputs.items(), *outputs.items()], strict=True):
            port.name = key.encode()
            port.tensor.rank, port.tensor.dtype = len(shape), _native.DTYPES[dtype]
            port.tensor.shape[: len(shape)] = shape
        self.handle = pointer()
        after = ctypes.cast(ctypes.byref(self.ports, ctypes.sizeof(Port) * len(inputs)), ctypes.POINTER(Port))
        named = None if name is None else name.encode()
        call("ane_bind", program.handle, named, len(inputs), self.ports, len(outputs), after, ctypes.byref(self.handle))

    def memories(self) -> list[Memory]:
        return [Memory.new(port.bytes) for port in self.ports]

    def fill(self, memories: list[Memory], *values) -> None:
        for memory, port, value in zip(memories, self.ports, values, strict=False):
            with memory.locked():
                memory.view(port.tensor)[...] = value

    def read(self, memories: list[Memory]) -> list[np.ndarray]:
        found = []
        for memory, port in list(zip(memories, self.ports, strict=True))[self.n_inputs :]:
            with memory.locked():
                found.append(memory.view(port.tensor).copy())
        return found

    def run(self, memories: list[Memory]) -> None:
        call("ane_run", self.handle, array_of(memories))

    def measure(self, memories: list[Memory]) -> Stats:
        stats = Stats()
        call("ane_run_measured", self.handle, array_of(memories), ctypes.byref(stats))
        return stats

    def submit(self, memories: list[Memory], then: Callable[[str, str], None]) -> object:
        """``then(status, message)`` is called on the framework's thread. Keep what this returns until then."""
        done = Done(lambda _, status, error: then(STATUSES[status], error.contents.text.decode()))
        call("ane_submit", self.handle, array_of(memories), done, None)
        return done

    def __call__(self, *values) -> list[np.ndarray]:
        memories = self.memories()
        self.fill(memories, *values)
        self.run(memories)
        return self.read(memories)

    def close(self) -> None:
        native.anex_ane_function_free(self.handle)
        self.handle = pointer()


def array_of(memories: list[Memory]) -> ctypes.Array:
    return (pointer * len(memories))(*[memory.handle for memory in memories])


class Program:
    def __init__(self, mil: str, blobs: dict[str, bytes] | None = None, **options) -> None:
        given = list((blobs or {}).items())
        array = (Blob * max(1, len(given)))(*[Blob(path.encode(), data, len(data)) for path, data in given])
        self.handle, self.functions = pointer(), []
        chosen = Options(**{"qos": 21, **options})
        code = mil.encode()
        where = ctypes.byref(self.handle)
        call("ane_compile", code, size(len(code)), len(given), array, ctypes.byref(chosen), where)

    def bind(self, inputs: dict, outputs: dict, name: str | None = "main") -> Function:
        self.functions.append(Function(self, name, inputs, outputs))
        return self.functions[-1]

    @property
    def info(self) -> Info:
        info = Info()
        native.anex_ane_get_info(self.handle, ctypes.byref(info))
        return info

    def keep(self, keep: bool = True) -> None:
        native.anex_ane_keep(self.handle, flag(keep))

    def unload(self) -> None:
        call("ane_unload", self.handle)

    def close(self) -> None:
        for function in self.functions:
            function.close()
        native.anex_ane_free(self.handle)
        self.handle, self.functions = pointer(), []

    def __enter__(self) -> Program:
        return self

    def __exit__(self, *_) -> None:
        self.close()
