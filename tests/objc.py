"""Objective-C messages from Python, by the GNU runtime: what a client of the stand-in would send, without anex."""

from __future__ import annotations

import ctypes
from collections.abc import Iterator
from contextlib import contextmanager

Id = ctypes.c_void_p


class Runtime:
    """Classes and messages of the libraries in this process."""

    def __init__(self, library: ctypes.CDLL) -> None:
        self.library = library
        self.objc = ctypes.CDLL("libobjc.so.4")
        self.objc.objc_lookUpClass.restype = Id
        self.objc.sel_registerName.restype = Id
        self.objc.objc_msg_lookup.restype = Id
        self.objc.objc_msg_lookup.argtypes = [Id, Id]

    def find(self, name: str) -> int | None:
        return self.objc.objc_lookUpClass(name.encode())

    def send(self, receiver: int | str, selector: str, *arguments: object, result: object = Id) -> object:
        """Pointers for objects; `result` names what comes back."""
        target = self.find(receiver) if isinstance(receiver, str) else receiver
        assert target, f"there is no {receiver}"
        sel = self.objc.sel_registerName(selector.encode())
        method = self.objc.objc_msg_lookup(target, sel)
        types = [type(argument) if isinstance(argument, ctypes._SimpleCData) else Id for argument in arguments]
        return ctypes.CFUNCTYPE(result, Id, Id, *types)(method)(target, sel, *arguments)

    def has(self, receiver: int | str, selector: str) -> bool:
        sel = self.objc.sel_registerName(selector.encode())
        return bool(self.send(receiver, "respondsToSelector:", sel, result=ctypes.c_ubyte))

    def text(self, value: str) -> int:
        return self.send("NSString", "stringWithUTF8String:", ctypes.c_char_p(value.encode()))

    def string(self, value: int) -> str:
        return self.send(value, "UTF8String", result=ctypes.c_char_p).decode()

    def data(self, value: bytes) -> int:
        return self.send("NSData", "dataWithBytes:length:", ctypes.c_char_p(value), ctypes.c_ulong(len(value)))

    def number(self, value: int) -> int:
        return self.send("NSNumber", "numberWithLongLong:", ctypes.c_longlong(value))

    def array(self, *items: int) -> int:
        made = self.send("NSMutableArray", "array")
        for item in items:
            self.send(made, "addObject:", item, result=None)
        return made

    def dictionary(self, items: dict[str, int] | None = None) -> int:
        made = self.send("NSMutableDictionary", "dictionary")
        for key, value in (items or {}).items():
            self.send(made, "setObject:forKey:", value, self.text(key), result=None)
        return made

    def python(self, value: int | None) -> object:
        """Lists, dictionaries, strings and numbers as Python's."""
        if not value:
            return None
        is_a = {
            name: self.send(value, "isKindOfClass:", self.find(name), result=ctypes.c_ubyte)
            for name in ("NSString", "NSNumber", "NSArray", "NSDictionary")
        }
        if is_a["NSString"]:
            return self.string(value)
        if is_a["NSNumber"]:
            return self.send(value, "longLongValue", result=ctypes.c_longlong)
        if is_a["NSDictionary"]:
            keys = self.send(value, "allKeys")
            return {key: self.python(self.send(value, "objectForKey:", self.text(key))) for key in self.python(keys)}
        assert is_a["NSArray"]
        count = self.send(value, "count", result=ctypes.c_ulong)
        return [self.python(self.send(value, "objectAtIndex:", ctypes.c_ulong(i))) for i in range(count)]

    @contextmanager
    def pool(self) -> Iterator[None]:
        pool = self.send(self.send("NSAutoreleasePool", "alloc"), "init")
        try:
            yield
        finally:
            self.send(pool, "drain", result=None)
