"""Malformed MIL text raises FormatError, with the place and the reason, at once, and never anything else.

The mutation test also reads ``../shared/reference/mil_corpus``; without it, it runs on ``tests/data``.
"""

import pathlib
import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from anex import FormatError, mil
from anex.mil.proto import equal

DATA = pathlib.Path(__file__).parent / "data"
CORPUS = pathlib.Path(__file__).parents[2] / "shared/reference/mil_corpus"
TEXTS = [path.read_text() for path in [*sorted(DATA.glob("*.mil")), *sorted(CORPUS.glob("*Fixtures*.mil"))]]
LONG = 300_000


def main(body="", *, inputs="fp32 x", outputs="x"):
    return f"program(1.3)\n{{\nfunc main<ios18>({inputs}) {{\n{body}\n}} -> ({outputs});\n}}"


def const(type, literal):
    return main(f"{type} y = const()[val = {type}({literal})];")


def refused(text, *parts):
    with pytest.raises(FormatError) as caught:
        mil.from_text(text)
    for part in parts:
        assert part in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "line 1, column 1: expected 'program', found the end of the text"),
        ("\ufeff \n", "line 2, column 1: expected 'program', found the end of the text"),
        (
            "program(2.0){}",
            "line 1, column 9: expected a version of MIL text such as 1.0 or 1.3, found '2.0'",
        ),
        (
            "program(1.0)\n  // hi\n{}",
            "line 2, column 3: expected '[' or '{', found '/' (MIL text has no comments)",
        ),
        (
            "program(1.0)\n# hi\n{}",
            "line 2, column 1: expected '[' or '{', found '#' (MIL text has no comments)",
        ),
        ("program(1.0){} x", "line 1, column 16: expected the end of the text after the program, found 'x'"),
        ("program(1.0){}\0", "found '\\x00'"),
        ("program(1.0)\n\ud800", "line 2, column 1: '\\ud800' is no character"),
        (b"program(1.0)\n\xff", "line 2, column 1: byte 0xff is not UTF-8"),
        ("program(1.0)[]{}", "expected the name of an attribute, found ']'"),
        ("program(1.0)[a = 3]{}", "expected a type, found '3'"),
        ('program(1.0)[a = string("x', "expected a literal of type string, found a string that never ends"),
        (main("relu(x = x)"), "line 5, column 1: expected '[' or ';', found '}'"),
        (main("fp32 y relu(x = x);"), "line 4, column 8: expected ',' or '=', found 'relu'"),
        (main("fp32 y = relu(x);"), "line 4, column 16: expected '=', found ')'"),
        (main("fp32 y = relu(x = 3);"), "expected a name or a typed value, found '3'"),
        (main("fp31 y = relu(x = x);"), "line 4, column 1: expected a type, found 'fp31'"),
        (main("tensor<fp31, [1]> y = relu(x = x);"), "expected a scalar type, found 'fp31'"),
        (main("tensor<fp32, [-1]> y = relu(x = x);"), "expected a size or '?', found '-1'"),
        (main("tensor<fp32, [\u0663]> y = relu(x = x);"), "expected a size or '?'"),
        (main("fp32 é = relu(x = x);"), "expected a name, found 'é'"),
        (main("tensor<fp32, [18446744073709551616]> y = relu(x = x);"), "expected a size below 2^64"),
        (main(f"tensor<fp32, [{'1, ' * 64}1]> y = relu(x = x);"), "expected at most 64 dimensions, found 65"),
        (main('fp32 y = relu(x = x)[name = string("y")] fp32 z'), "expected ';', found 'fp32'"),
        (const("int32", ""), "expected a literal of type int32, found ')'"),
        (const("int32", "1.5"), "line 4, column 31: expected a literal of type int32, found '1.5'"),
        (const("int32", "\u0663"), "expected a literal of type int32"),
        (const("int32", "1_000"), "expected ')', found '_000'"),
        (const("int32", "9" * 5000), "expected a literal of type int32, found '999"),
        (const("int8", "128"), "128 does not fit int8 (-128 to 127)"),
        (const("uint8", "-1"), "-1 does not fit uint8 (0 to 255)"),
        (const("uint64", "18446744073709551616"), "does not fit uint64"),
        (const("bool", "1"), "expected a literal of type bool, found '1'"),
        (const("fp32", "infinity"), "expected a literal of type fp32, found 'infinity'"),
        (const("fp32", "true"), "expected a literal of type fp32, found 'true'"),
        (const("fp16", "65520"), "65520.0 does not fit fp16"),
        (const("fp32", "1e39"), "1e+39 does not fit fp32"),
        (const("fp64", "1e999"), "'1e999' does not fit fp64"),
        (const("fp64", "0x1p+99999"), "'0x1p+99999' does not fit fp64"),
        (const("bf16", "0x1p+128"), "does not fit bf16"),
        (const("fp8e4m3fn", "inf"), "inf does not fit fp8e4m3fn"),
        (const("string", "x"), "expected a literal of type string, found 'x'"),
        (const("tensor<int32, [2]>", "[1]"), "tensor<int32, [2]> takes 2 elements, found 1"),
        (const("tensor<int32, [2]>", "1, 2"), "expected '[', found '1'"),
        (const("tensor<int32, [2]>", "[1 2]"), "expected ',' to match tensor<int32, [2]>, found '2'"),
        (const("tensor<int32, [2]>", "[1, 2"), "expected ',' or ']', found ')'"),
        (
            const("tensor<int32, [2, 2]>", "[1, 2, 3, 4]"),
            "expected '[' to match tensor<int32, [2, 2]>, found '1'",
        ),
        (const("tensor<int32, [2, 2]>", "[[1, 2], [3]]"), "tensor<int32, [2, 2]> takes 4 elements, found 3"),
        (const("tensor<int32, [1000000000000]>", "[1, 2]"), "takes 1000000000000 elements, found 2"),
        (const("tensor<int32, [1000000, 1000000, 0]>", "[[]]"), "expected [], the literal of"),
        (const("tensor<int8, [3]>", "[1, 2, 999]"), "line 4, column 62: 999 does not fit int8"),
        (const("tensor<fp16, [3]>", "[1, 1e9, 2]"), "line 4, column 59: 1000000000.0 does not fit fp16"),
        (const("tensor<int32, [?, ?]>", "[[1]]"), "may leave one dimension open, not more"),
        (const("state<fp16>", "1"), "a state has no literal"),
        (const("list<string, 3>", '["a"]'), "expected a list of 3 elements, found 1"),
        (const("tuple<int32, int32>", "(1)"), "expected ',', found ')'"),
        (const("dict<string, int32>", '{{"a", 1}, {"a", 2}}'), "this key is in the dictionary already"),
        (const("fp16", 'BLOBFILE(path = string("a"))'), "expected ',', found ')'"),
        (
            const("fp16", 'BLOBFILE(path = string("a"), path = string("a"))'),
            "expected one 'path' and one 'offset'",
        ),
        (const("fp16", 'BLOBFILE(path = string("a"), offset = int32(1))'), "expected a value of type uint64"),
        (const("fp16", 'BLOBFILE(path = string("a"), offset = uint64(-1))'), "-1 does not fit uint64"),
    ],
)
def test_an_error_says_where_it_is_what_was_found_and_what_was_expected(text, message):
    assert refused(text).startswith("line ")
    refused(text, message)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (main("fp32 x = relu(x = x);"), "line 4, column 6: 'x' is defined twice, first in line 3"),
        (main("fp32 y, fp16 y = f();"), "'y' is defined twice, first in line 4"),
        (main("fp32 y = f();\nfp32 y = f();"), "line 5, column 6: 'y' is defined twice, first in line 4"),
        (main("int8 y = const()[val = int8(1)];\nint8 y = const()[val = int8(2)];"), "'y' is defined twice"),
        (main("f(x = x)(fp32 x) {} -> ();"), "'x' is defined twice, first in line 3"),
        (main(inputs="fp32 x, fp16 x"), "'x' is defined twice"),
        (main("fp32 y = f(x = x, x = x);"), "op f (y): argument 'x' is given twice"),
        (main("fp32 y = f()[a = bool(true), a = bool(true)];"), "attribute 'a' is given twice"),
        (main()[:-1] + main()[15:], "function 'main' is defined twice"),
        (main("fp32 y = f(x = z);"), "line 4, column 16: op f (y): x = 'z', which is not defined before it"),
        (main("fp32 y = f(x = y);"), "op f (y): x = 'y', which is not defined before it"),
        (main("fp32 y = f(x = (x, z));\nfp32 z = f();"), "x = 'z', which is not defined before it"),
        (main("f()() { fp32 y = g(); } -> (y);\nf(x = y);"), "op f: x = 'y', which is not defined before it"),
        (main(outputs="y"), "function 'main' returns 'y', which is not defined in it"),
        (main("fp32 y = f()() {} -> (y);"), "a block of op f (y) returns 'y', which is not defined in it"),
    ],
)
def test_names_are_defined_once_and_before_their_use(text, message):
    refused(text, message)


def test_blocks_see_the_names_around_them_and_keep_their_own():
    block = "() { fp32 a = g(x = x); } -> (a)"
    mil.from_text(main(f"fp32 y = f(){block}{block};\nfp32 a = f(x = y){block.replace('a', 'b')};"))


def test_a_const_may_be_repeated_word_for_word():
    mil.from_text(main("int8 y = const()[val = int8(1)];\nint8 y = const()[val = int8(1)];"))


@pytest.mark.memory
@pytest.mark.parametrize(
    "text",
    [
        "[" * LONG,
        "program(1.0)[a = " + "tuple<" * LONG,
        "program(1.0)[a = list<list<int32, ?>, ?>(" + "[" * LONG,
        const("tensor<int32, [1]>", "[" * LONG),
        const("tensor<int32, [" + "1, " * LONG + "1]>", "1"),
        const("tensor<int32, [" + "?, " * 60 + "?]>", "[" * LONG),
        const("list<tensor<int32, [" + "?, " * 60 + "?]>, ?>", "[" + "[" * 60 + "1," * LONG),
        const("int32", "-" * LONG),
        const("int32", "1" * LONG),
        const("fp64", "0x" + "1" * LONG + "p0"),
        const("fp64", "1e" + "1" * LONG),
        const("fp64", "0x" + "1" * LONG),
        "program(1.0)[a = " + "dict<string, " * LONG + "string" + ">" * LONG + "()",
        main("f()() {" * LONG),
        main("f(" * LONG),
        '"' * LONG + "!",
        '"' + '\\"' * LONG,
        "\\" * LONG,
        " " * LONG,
        "program(1.0){}" + " \n" * LONG + "x",
        "program" * LONG,
        "tensor<" * LONG,
        "/" * LONG,
    ],
    ids=lambda text: text[:30],
)
def test_no_text_takes_long_or_deep(text):
    start = time.process_time()
    refused(text)
    assert time.process_time() - start < 2


def nested(kind, levels):
    if kind == "blocks":
        return main("f()() {" * levels + "} -> ()" + "; } -> ()" * (levels - 1) + ";")
    if kind == "types":
        return main(inputs="list<" * levels + "fp32" + ", ?>" * levels + " x")
    opening, closing = {"lists": ("list<{}, 1>", "[{}]"), "dicts": ("dict<string, {}>", '{{{{"a", {}}}}}')}[kind]
    type, literal = "int32", "1"
    for _ in range(levels):
        type, literal = opening.format(type), closing.format(literal)
    value = f"{type}({literal})"
    return main(f"f()() {{ f()() {{ f(x = {value}); }} -> (); }} -> ();")


@pytest.mark.parametrize("kind", ["blocks", "types", "lists", "dicts"])
def test_whatever_depth_is_accepted_can_be_saved_and_loaded_in_a_model(kind):
    from coremltools.proto import Model_pb2

    for levels in range(1, 60):
        try:
            program = mil.from_text(nested(kind, levels))
        except FormatError:
            break
        program.DiscardUnknownFields()
        model = Model_pb2.Model(mlProgram=program)
        assert equal(Model_pb2.Model.FromString(model.SerializeToString()).mlProgram, program)
        assert equal(mil.from_text(mil.to_text(program)), program)
    assert 15 < levels < 60
    refused(nested(kind, levels), "nested too deeply")


def survives(text):
    """Either a program, which prints and parses to itself, or FormatError."""
    try:
        program = mil.from_text(text)
    except FormatError:
        refused(text, "line ", "column ")
        return
    assert mil.to_text(program).removesuffix("\n") == text.removesuffix("\n")
    assert equal(mil.from_text(mil.to_text(program, canonical=True)), program)


PIECES = [
    "[",
    "]",
    "(",
    ")",
    "{",
    "}",
    "<",
    ">",
    ",",
    "=",
    ";",
    "->",
    '"',
    "\\",
    "?",
    "-",
    "x",
    "0",
    "1e9",
    "inf",
]
PIECES += [
    "tensor<",
    "int32(",
    "string(",
    "true",
    "BLOBFILE(",
    "const",
    "\n",
    "é",
    "\0",
    "//",
    "]]",
    "18446744073709551616",
]


@settings(max_examples=500, deadline=None)
@given(st.data())
def test_a_damaged_text_of_the_corpus_is_a_program_or_a_format_error(data):
    text = data.draw(st.sampled_from(TEXTS))
    for _ in range(data.draw(st.integers(1, 3))):
        start = data.draw(st.integers(0, len(text)))
        end = min(len(text), start + data.draw(st.sampled_from([0, 0, 1, 1, 2, 7, 40, len(text)])))
        text = text[:start] + data.draw(st.sampled_from(["", *PIECES])) + text[end:]
    survives(text)


@settings(max_examples=200, deadline=None)
@given(st.lists(st.sampled_from([*PIECES, *main("fp32 y = f(a = x)[b = int8(1)];").split(" ")]), max_size=40))
def test_a_heap_of_tokens_is_a_program_or_a_format_error(tokens):
    survives(" ".join(tokens))
    survives(main(" ".join(tokens)))


@settings(max_examples=100, deadline=None)
@given(st.one_of(st.binary(max_size=60), st.text(max_size=60)))
def test_rubbish_is_a_format_error(text):
    with pytest.raises(FormatError):
        mil.from_text(text)
