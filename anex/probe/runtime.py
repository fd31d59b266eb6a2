"""What the Objective-C runtime tells of the framework's classes: which there are, their methods and properties.

Only public functions of the runtime are called, which Apple's and GNU's have alike; nothing of the framework is.
"""

from __future__ import annotations

import ctypes
import sys
from collections.abc import Iterator
from ctypes import POINTER, byref, c_char_p, c_int, c_uint, c_void_p
from typing import Any

from ..errors import UnsupportedError

LIBRARY = "/usr/lib/libobjc.A.dylib" if sys.platform == "darwin" else "libobjc.so.4"
PREFIX = "_ANE"
FUNCTIONS: dict[str, tuple[Any, list[Any]]] = {
    "objc_getClassList": (c_int, [c_void_p, c_int]),
    "objc_getClass": (c_void_p, [c_char_p]),
    "objc_getMetaClass": (c_void_p, [c_char_p]),
    "class_getName": (c_char_p, [c_void_p]),
    "class_copyMethodList": (POINTER(c_void_p), [c_void_p, POINTER(c_uint)]),
    "class_copyPropertyList": (POINTER(c_void_p), [c_void_p, POINTER(c_uint)]),
    "method_getName": (c_void_p, [c_void_p]),
    "method_getTypeEncoding": (c_char_p, [c_void_p]),
    "property_getName": (c_char_p, [c_void_p]),
    "sel_getName": (c_char_p, [c_void_p]),
}


def classes(prefix: str = PREFIX) -> list[str]:
    """The names of the loaded classes that begin so, in their order."""
    runtime = _runtime()
    count = runtime.objc_getClassList(None, 0)
    found = (c_void_p * count)()
    count = min(count, runtime.objc_getClassList(found, count))
    names = (runtime.class_getName(each).decode() for each in found[:count])
    return sorted(name for name in names if name.startswith(prefix))


def described(name: str) -> list[str]:
    """The methods of a class, each with its types, and its properties; empty where there is no such class."""
    runtime = _runtime()
    found = runtime.objc_getClass(name.encode())
    if not found:
        return []
    sides = (("+", runtime.objc_getMetaClass(name.encode())), ("-", found))
    lines = [
        f"{kind}[{name} {runtime.sel_getName(runtime.method_getName(each)).decode()}] "
        f"{(runtime.method_getTypeEncoding(each) or b'').decode()}"
        for kind, where in sides
        for each in _copied(runtime.class_copyMethodList, where)
    ]
    properties = _copied(runtime.class_copyPropertyList, found)
    return [*sorted(lines), *(f"@property {runtime.property_getName(each).decode()}" for each in properties)]


def _copied(list_of: Any, where: int) -> Iterator[int]:
    """What the runtime copies for us, and we free."""
    count = c_uint()
    several = list_of(where, byref(count))
    yield from (several[i] for i in range(count.value))
    if several:
        libc = ctypes.CDLL(None)
        libc.free.argtypes = [c_void_p]
        libc.free(several)


def _runtime() -> Any:
    try:
        library = ctypes.CDLL(LIBRARY)
        for name, (result, arguments) in FUNCTIONS.items():
            function = getattr(library, name)
            function.restype, function.argtypes = result, arguments
    except (OSError, AttributeError) as error:
        raise UnsupportedError(f"the Objective-C runtime is not as expected here: {error}") from error
    return library
