"""Programs of MIL text: functions, ops, blocks and their names, parsed into a MILSpec.Program."""

import re
from typing import TypeAlias

from .proto import Message, mil
from .tokens import END, Cursor
from .types import BLOCK_LEVELS, check_nesting
from .values import Values

_VERSION = re.compile(r"1\.[0-9]+")

#: Names of opsets in protobuf and in text. A name that is in neither column is kept as it is.
OPSETS = {
    "CoreML3": "ios13",
    "CoreML4": "ios14",
    "CoreML5": "ios15",
    "CoreML6": "ios16",
    "CoreML7": "ios17",
    "CoreML8": "ios18",
    "CoreML9": "ios26",
}
#: The names that an op may use: where each is defined and, for a const, its op.
Scope: TypeAlias = dict[str, tuple[int, Message]]

_PROTO_OPSETS = {text: proto for proto, text in OPSETS.items()}


def parse_program(text: str) -> tuple[Message, str]:
    """The MILSpec.Program that ``text`` says, and the version in its head, such as "1.0".

    Raises FormatError, with line and column, for anything that is no program.
    """
    return _Parser(Cursor(text)).program()


class _Parser:
    def __init__(self, c: Cursor):
        self.c = c
        self.values = Values(c)

    def program(self) -> tuple[Message, str]:
        c = self.c
        program = mil().Program(version=1)
        c.expect("program")
        c.expect("(")
        version = c.token
        if not _VERSION.fullmatch(version):
            raise c.unexpected("a version of MIL text such as 1.0 or 1.3")
        c.at += 1
        c.expect(")")
        if c.token == "[":
            self._attributes(program.attributes, 0)
        c.expect("{", *[] if program.attributes else ["["])
        while not c.accept("}"):
            self._function(program.functions)
        if c.token != END:
            raise c.unexpected("the end of the text after the program")
        return program, version

    def _function(self, functions: Message) -> None:
        c = self.c
        c.expect("func", "}")
        start = c.at
        name = c.name("the name of a function")
        if name in functions:
            raise c.error(f"function {name!r} is defined twice", start)
        function = functions[name]
        c.expect("<")
        opset = c.name("an opset such as ios18")
        function.opset = _PROTO_OPSETS.get(opset, opset)
        c.expect(">")
        scope: Scope = {}
        self._parameters(function.inputs, scope, 0)
        if c.token == "[":
            self._attributes(function.attributes, 0)
        self._body(function.block_specializations[function.opset], scope, 0, f"function {name!r}")
        c.expect(";")

    def _parameters(self, inputs: Message, scope: Scope, depth: int) -> None:
        """``(type name, …)`` into NamedValueTypes; the names go into ``scope``."""
        c = self.c
        c.expect("(")
        if c.accept(")"):
            return
        self._define(self._typed_names(inputs, depth), scope)
        c.expect(")", ",")

    def _typed_names(self, named: Message, depth: int) -> list[int]:
        """``type name, …`` into NamedValueTypes; returns where the names are."""
        c = self.c
        where = []
        while True:
            type = self.values.type(depth)
            where.append(c.at)
            named.add(name=c.name("a name"), type=type.message)
            if not c.accept(","):
                return where

    def _define(self, where: list[int], scope: Scope, const: Message = None) -> None:
        """Put the names at ``where`` into ``scope``. Hand-written text may repeat a const word for word."""
        c = self.c
        for at in where:
            name = c.tokens[at]
            if name in scope:
                first, same = scope[name]
                if const is None or const != same:
                    line, _ = c.position(first)
                    raise c.error(f"{name!r} is defined twice, first in line {line}", at)
            scope[name] = at, const

    def _body(self, block: Message, scope: Scope, depth: int, owner: str) -> None:
        """``{ op … } -> (names)``; ``scope`` holds the names that its ops may use, and gets theirs."""
        c = self.c
        check_nesting(c, depth)
        c.expect("{")
        while not c.accept("}"):
            self._op(block.operations.add(), scope, depth)
        c.expect("->")
        c.expect("(")
        if c.accept(")"):
            return
        while True:
            name = c.name("the name of an output")
            if name not in scope:
                raise c.error(f"{owner} returns {name!r}, which is not defined in it", c.at - 1)
            block.outputs.append(name)
            if not c.accept(","):
                break
        c.expect(")", ",")

    def _op(self, op: Message, scope: Scope, depth: int) -> None:
        c = self.c
        results: list[int] = []
        if c.tokens[c.at + 1] != "(":  # otherwise an op without results: name(…)
            results = self._typed_names(op.outputs, depth)
            c.expect("=", ",")
        op.type = c.name("the name of an op")
        c.expect("(")
        if not c.accept(")"):
            self._arguments(op, scope, depth)
        if c.token == "[":
            self._attributes(op.attributes, depth)
        while c.token == "(":
            block = op.blocks.add()
            outer = len(scope)
            self._parameters(block.inputs, scope, depth + BLOCK_LEVELS)
            if c.token == "[":
                self._attributes(block.attributes, depth + BLOCK_LEVELS)
            self._body(block, scope, depth + BLOCK_LEVELS, f"a block of {_describe(op)}")
            while len(scope) > outer:  # what a block defines ends with it
                scope.popitem()
        c.expect(";", *[] if op.attributes else ["["])
        self._define(results, scope, op if op.type == "const" else None)

    def _arguments(self, op: Message, scope: Scope, depth: int) -> None:
        c = self.c
        while True:
            key = c.name("the name of an argument")
            if key in op.inputs:
                raise c.error(f"{_describe(op)}: argument {key!r} is given twice", c.at - 1)
            argument = op.inputs[key]
            c.expect("=")
            if c.accept("("):
                if not c.accept(")"):
                    self._binding(op, key, argument.arguments.add(), scope, depth)
                    while c.accept(","):
                        self._binding(op, key, argument.arguments.add(), scope, depth)
                    c.expect(")", ",")
            else:
                self._binding(op, key, argument.arguments.add(), scope, depth)
            if not c.accept(","):
                break
        c.expect(")", ",")

    def _binding(self, op: Message, key: str, binding: Message, scope: Scope, depth: int) -> None:
        """A name in ``scope``, or a value, which is told by what follows its first word."""
        c = self.c
        if c.tokens[c.at + 1] in ("<", "(") and c.is_name():
            self.values.value(binding.value, depth)
            return
        name = c.name("a name or a typed value")
        if name not in scope:
            raise c.error(f"{_describe(op)}: {key} = {name!r}, which is not defined before it", c.at - 1)
        binding.name = name

    def _attributes(self, attributes: Message, depth: int) -> None:
        c = self.c
        c.expect("[")
        while True:
            key = c.name("the name of an attribute")
            if key in attributes:
                raise c.error(f"attribute {key!r} is given twice", c.at - 1)
            c.expect("=")
            self.values.value(attributes[key], depth)
            if not c.accept(","):
                break
        c.expect("]", ",")


def _describe(op: Message) -> str:
    """The op in an error."""
    results = ", ".join(output.name for output in op.outputs)
    return f"op {op.type} ({results})" if results else f"op {op.type}"
