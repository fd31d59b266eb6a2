"""A client of the stand-in that sends what the framework's users send, without anex: to test the stand-in itself."""

from __future__ import annotations

import ctypes
import shutil
import struct
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from fake_ane import control
from objc import Runtime

LIB = control.library()
RUNTIME = Runtime(LIB)
HEADER = '[buildInfo = dict<string, string>({{"coremlc-version", "3505.4.1"}})]'
UINT, BOOL = ctypes.c_uint32, ctypes.c_ubyte
ALIGNMENT, WEIGHT = 64, "@model_path/weights/weight.bin"

for name, result, arguments in (
    ("Create", ctypes.c_void_p, [ctypes.c_void_p]),
    ("Lookup", ctypes.c_void_p, [UINT]),
    ("GetID", UINT, [ctypes.c_void_p]),
    ("GetSeed", UINT, [ctypes.c_void_p]),
    ("GetAllocSize", ctypes.c_size_t, [ctypes.c_void_p]),
    ("GetBaseAddress", ctypes.c_void_p, [ctypes.c_void_p]),
    ("Lock", ctypes.c_int, [ctypes.c_void_p, UINT, ctypes.c_void_p]),
    ("Unlock", ctypes.c_int, [ctypes.c_void_p, UINT, ctypes.c_void_p]),
):
    function = getattr(LIB, f"IOSurface{name}")
    function.restype, function.argtypes = result, arguments


def main(body: str, *, parameters: str = "tensor<fp16, [1, 4, 1, 8]> x", result: str = "y", name: str = "main") -> str:
    return f"func {name}<ios18>({parameters}) {{ {body} }} -> ({result});\n"


def text(*functions: str) -> bytes:
    return f"program(1.3)\n{HEADER}\n{{\n{''.join(functions)}}}\n".encode()


SUBTRACTION = text(
    main(
        'tensor<fp16, [1, 4, 1, 8]> y = sub(x = x, y = W)[name = string("y")];',
        parameters="tensor<fp16, [1, 4, 1, 8]> x, tensor<fp16, [1, 4, 1, 8]> W",
    )
)


def blob(values: np.ndarray, *, magic: int = 0xDEADBEEF, start: int = 128) -> bytes:
    """A weight file of one float16 tensor: header, record at 64, values at 128."""
    record = struct.pack("<IIQQ", magic, 1, values.nbytes, start).ljust(64, b"\0")
    return struct.pack("<II", 1, 2).ljust(64, b"\0") + record + values.astype("<f2").tobytes()


def with_weight(offset: int = 64) -> bytes:
    weight = (
        f'tensor<fp16, [1, 4, 1, 8]> w = const()[name = string("w"), val = tensor<fp16, [1, 4, 1, 8]>'
        f'(BLOBFILE(path = string("{WEIGHT}"), offset = uint64({offset})))];'
    )
    return text(main(weight + ' tensor<fp16, [1, 4, 1, 8]> y = add(x = x, y = w)[name = string("y")];'))


@dataclass
class Answer:
    """What a message with an NSError came back with."""

    ok: bool
    code: int | None = None
    domain: str = ""
    text: str = ""


def call(receiver: int, selector: str, *arguments: object) -> Answer:
    error = ctypes.c_void_p()
    done = RUNTIME.send(receiver, selector, *arguments, ctypes.addressof(error), result=BOOL)
    if not error.value:
        return Answer(bool(done))
    say = RUNTIME.string
    code = RUNTIME.send(error.value, "code", result=ctypes.c_long)
    domain, words = (RUNTIME.send(error.value, name) for name in ("domain", "localizedDescription"))
    return Answer(bool(done), code, say(domain), say(words))


class Surface:
    """Memory of so many bytes, and a view of it."""

    def __init__(self, size: int = 16384, *, is_global: bool = False, id: int | None = None) -> None:
        number = RUNTIME.number
        asked = {"Width": size, "Height": 1, "BytesPerElement": 1, "BytesPerRow": size, "AllocSize": size}
        properties = {f"IOSurface{key}": number(value) for key, value in asked.items()}
        if is_global:
            properties["IOSurfaceIsGlobal"] = number(1)
        self.ref = LIB.IOSurfaceLookup(id) if id else LIB.IOSurfaceCreate(RUNTIME.dictionary(properties))
        assert self.ref
        self.id = LIB.IOSurfaceGetID(self.ref)
        size = LIB.IOSurfaceGetAllocSize(self.ref)
        memory = (ctypes.c_uint8 * size).from_address(LIB.IOSurfaceGetBaseAddress(self.ref))
        self.bytes = np.frombuffer(memory, np.uint8)

    def rows(self, *shape: int) -> np.ndarray:
        """float16, rows 64 bytes apart."""
        *outer, width = shape
        room = -(-width * 2 // ALIGNMENT) * ALIGNMENT // 2
        count = int(np.prod(outer)) * room
        return self.bytes.view(np.float16)[:count].reshape(*outer, room)[..., :width]

    def write(self, values: np.ndarray) -> Surface:
        LIB.IOSurfaceLock(self.ref, 0, None)
        self.rows(*values.shape)[...] = values
        LIB.IOSurfaceUnlock(self.ref, 0, None)
        return self

    def wrap(self) -> int:
        return RUNTIME.send("_ANEIOSurfaceObject", "objectWithIOSurface:", self.ref)

    @property
    def references(self) -> int:
        return LIB.CFGetRetainCount(ctypes.c_void_p(self.ref))

    def close(self) -> None:
        LIB.CFRelease(ctypes.c_void_p(self.ref))


def descriptor(source: bytes = SUBTRACTION, blobs: dict[str, bytes] | None = None) -> int:
    data = RUNTIME.data
    weights = {path: RUNTIME.dictionary({"data": data(value)}) for path, value in (blobs or {}).items()}
    selector = "modelWithMILText:weights:optionsPlist:"
    return RUNTIME.send("_ANEInMemoryModelDescriptor", selector, data(source), RUNTIME.dictionary(weights), None)


class Model:
    """One _ANEInMemoryModel; inside a pool."""

    def __init__(self, source: bytes = SUBTRACTION, blobs: dict[str, bytes] | None = None) -> None:
        self.source, self.blobs = source, blobs or {}
        self.id = RUNTIME.send("_ANEInMemoryModel", "inMemoryModelWithDescriptor:", descriptor(source, blobs))
        self.path = Path(RUNTIME.string(RUNTIME.send(self.id, "localModelPath")))

    def write_files(self) -> Model:
        (self.path / "weights").mkdir(parents=True, exist_ok=True)
        (self.path / "model.mil").write_bytes(self.source)
        for path, value in self.blobs.items():
            (self.path / path.removeprefix("@model_path/")).write_bytes(value)
        return self

    def remove_files(self) -> None:
        shutil.rmtree(self.path, ignore_errors=True)

    def compile(self) -> Answer:
        return call(self.id, "compileWithQoS:options:error:", UINT(21), RUNTIME.dictionary())

    def load(self, **options: int) -> Answer:
        given = {key: RUNTIME.number(value) for key, value in options.items()}
        return call(self.id, "loadWithQoS:options:error:", UINT(21), RUNTIME.dictionary(given))

    def evaluate(self, request: int | None, **options: int) -> Answer:
        given = {key: RUNTIME.number(value) for key, value in options.items()}
        return call(self.id, "evaluateWithQoS:options:request:error:", UINT(21), RUNTIME.dictionary(given), request)

    def unload(self) -> Answer:
        return call(self.id, "unloadWithQoS:error:", UINT(21))

    def ready(self) -> Model:
        """Compiled and loaded."""
        self.write_files()
        assert self.compile().ok, control.reason()
        assert self.load().ok, control.reason()
        return self

    @property
    def attributes(self) -> dict:
        return RUNTIME.python(RUNTIME.send(self.id, "modelAttributes"))

    def has(self) -> bool:
        return bool(RUNTIME.send(self.id, "compiledModelExists", result=BOOL))


def request(
    inputs: list[tuple[Surface, int]], outputs: list[tuple[Surface, int]], procedure: int = 0, stats: int | None = None
) -> int:
    """Surfaces with their indices in the symbol table."""
    number, array = RUNTIME.number, RUNTIME.array
    sides = [
        made
        for side in (inputs, outputs)
        for made in (array(*(s.wrap() for s, _ in side)), array(*(number(i) for _, i in side)))
    ]
    selector = "requestWithInputs:inputIndices:outputs:outputIndices:weightsBuffer:perfStats:procedureIndex:"
    return RUNTIME.send("_ANERequest", selector, *sides, None, stats, number(procedure))


INVOKE = ctypes.CFUNCTYPE(None, ctypes.c_void_p, ctypes.c_void_p)


class Block(ctypes.Structure):
    """A block without captured variables, which nobody needs to copy."""

    _fields_ = (
        ("isa", ctypes.c_void_p),
        ("flags", ctypes.c_int),
        ("reserved", ctypes.c_int),
        ("invoke", INVOKE),
        ("descriptor", ctypes.c_void_p),
    )
    IS_GLOBAL = 1 << 28

    @classmethod
    def of(cls, function: Callable[[int | None], None]) -> Block:
        isa = ctypes.addressof(ctypes.c_char.in_dll(ctypes.CDLL("libBlocksRuntime.so.0"), "_NSConcreteGlobalBlock"))
        size = (ctypes.c_ulong * 2)(0, ctypes.sizeof(cls))
        made = cls(isa, cls.IS_GLOBAL, 0, INVOKE(lambda _, error: function(error)), ctypes.addressof(size))
        made.size = size
        return made


def child(code: str, **switches: control.Value) -> list[str]:
    """Python code in a process of its own that sees the same stand-in."""
    setup = f"import sys; sys.path[:0] = [{str(Path(__file__).parent)!r}]\nfrom fake_client import *\n"
    done = subprocess.run(
        [sys.executable, "-c", setup + code],
        env=control.environment(**switches),
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.split()


@pytest.fixture(autouse=True)
def fresh() -> Iterator[None]:
    """A pool, as every client needs one, and the stand-in as it is at first."""
    was_at = control.get("cache_dir")
    control.reset()
    with RUNTIME.pool():
        yield
    control.reset()
    assert control.get("cache_dir") == was_at
