"""MIL text and protobuf are the same thing said twice, and coremlc's own text comes back byte for byte.

Tests with "corpus" in their name also read the files of ``../shared/reference/mil_corpus``, Apple's and
other people's, which are not ours to ship; without that folder they run on ``tests/data`` alone.
"""

import math
import pathlib
import subprocess
import sys
import time

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from milgen import programs, sort_inputs, value_text

from anex import ArgumentError, FormatError, mil
from anex.mil.proto import equal, kept_source
from anex.mil.scalars import SCALARS, hexadecimal

DATA = pathlib.Path(__file__).parent / "data"
CORPUS = pathlib.Path(__file__).parents[2] / "shared/reference/mil_corpus"
OWN = sorted(DATA.glob("*.mil"))
TEXTS = OWN + sorted(CORPUS.glob("**/*.mil"))
COMPILED = [DATA / "canonical_1_0.mil", DATA / "canonical_1_3.mil", *sorted(CORPUS.glob("pairs/*.mil"))]
BY_HAND = ("written_by_hand", "no_build_info", "christopherkarani")


def name(path):
    return path.stem[-70:]


def main(body="", *, inputs="fp32 x", outputs="x", opset="ios18", version="1.3"):
    return f"program({version})\n{{\nfunc main<{opset}>({inputs}) {{\n{body}\n}} -> ({outputs});\n}}"


def const(type, literal):
    """The Value of a const of this type and literal."""
    program = mil.from_text(main(f"{type} y = const()[val = {type}({literal})];"))
    return program.functions["main"].block_specializations["CoreML8"].operations[0].attributes["val"]


@pytest.mark.parametrize("path", TEXTS, ids=name)
def test_a_text_of_the_corpus_comes_back_byte_for_byte(path):
    data = path.read_bytes()
    assert mil.to_text(mil.from_text(data)).encode().removesuffix(b"\n") == data.removesuffix(b"\n")


@pytest.mark.parametrize("path", TEXTS, ids=name)
def test_coremlc_text_of_the_corpus_needs_no_source_and_other_text_keeps_it(path):
    assert (kept_source(mil.from_text(path.read_text())) is not None) == path.name.startswith(BY_HAND)


@pytest.mark.parametrize("path", TEXTS, ids=name)
def test_the_canonical_form_of_a_corpus_text_means_the_same_and_is_its_own_canonical_form(path):
    program = mil.from_text(path.read_text())
    canonical = mil.to_text(program, canonical=True)
    assert equal(mil.from_text(canonical), program)
    assert mil.to_text(mil.from_text(canonical), canonical=True) == canonical


@pytest.mark.parametrize("path", COMPILED, ids=name)
def test_a_model_of_the_corpus_prints_as_coremlc_compiled_it(path):
    from coremltools.proto import Model_pb2

    source = path.with_suffix(".mlmodel")
    if source.exists():
        model = Model_pb2.Model.FromString(source.read_bytes())
    else:
        model = Model_pb2.Model(mlProgram=mil.from_text(path.read_bytes()))
    text = mil.to_text(model)
    assert text.encode() == path.read_bytes()
    assert equal(mil.from_text(text), sort_inputs(model.mlProgram))


@pytest.mark.parametrize("path", OWN, ids=name)
def test_carriage_returns_and_a_byte_order_mark_change_nothing(path):
    text = path.read_text()
    for variant in (text.replace("\n", "\r\n"), "\ufeff" + text, text + "\n", text.encode("utf-8-sig")):
        assert equal(mil.from_text(variant), mil.from_text(text))
    assert mil.to_text(mil.from_text("\ufeff" + text)) == "\ufeff" + text


@settings(max_examples=25, deadline=None)
@given(programs())
def test_any_program_survives_its_text(program):
    text = mil.to_text(program)
    again = mil.from_text(text)
    assert equal(again, program)
    assert kept_source(again) is None
    assert mil.to_text(again) == text


def test_a_source_is_forgotten_when_the_program_no_longer_says_it():
    program = mil.from_text(main('fp32 y=relu(x=x)[name=string("y")];', outputs="y"))
    assert "y=relu" in mil.to_text(program)
    program.functions["main"].block_specializations["CoreML8"].operations[0].type = "tanh"
    assert "            fp32 y = tanh(x = x)[name" in mil.to_text(program)


def test_a_source_survives_being_saved_and_is_not_trusted_when_forged():
    from anex.mil.proto import keep_source

    program = mil.from_text(main())
    loaded = type(program).FromString(program.SerializeToString())
    assert mil.to_text(loaded) == main()
    keep_source(loaded, main(opset="ios26"))
    assert "func main<ios18>(fp32 x) {\n" in mil.to_text(loaded)
    keep_source(loaded, "rubbish")
    assert "func main<ios18>(fp32 x) {\n" in mil.to_text(loaded)


@pytest.mark.parametrize(("opset", "version"), [("ios15", "1.0"), ("ios17", "1.0"), ("ios18", "1.3"), ("ios26", "1.3")])
def test_the_version_of_the_text_follows_the_opset(opset, version):
    program = mil.from_text(main(opset=opset, version=version))
    program.DiscardUnknownFields()
    assert mil.to_text(program).startswith(f"program({version})\n")


def test_a_text_keeps_its_version_although_the_opset_says_another():
    text = main(opset="ios16", version="1.3")
    program = mil.from_text(text)
    assert mil.to_text(program) == text
    assert mil.to_text(program, canonical=True).startswith("program(1.3)")
    assert "main<ios16>(fp32 x)" in mil.to_text(program, canonical=True)
    assert "main<ios16>(tensor<fp32, []> x)" in mil.to_text(program, version="1.0")


def test_parameters_are_sorted_by_name_unless_somebody_wrote_them_down_otherwise():
    program = mil.from_text(main(inputs="fp32 x, fp16 b"))
    assert "(fp32 x, fp16 b)" in mil.to_text(program, canonical=True)
    program.DiscardUnknownFields()
    assert "(fp16 b, fp32 x)" in mil.to_text(program)


def test_build_info_is_merged_sorted_and_supplied_by_the_version_of_the_text():
    program = mil.from_text(main())
    assert '{{"coremlc-component-MIL", "3510.2.1"}, {"coremlc-version", "3505.4.1"}}' in mil.to_text(
        program, canonical=True
    )
    assert '"3500.14.1"}, {"coremlc-version", "3500.32.1"}' in mil.to_text(program, version="1.0")
    text = main().replace(
        "{", '[buildInfo = dict<string, string>({{"x", "1"}, {"coremlc-version", "7"}, {"a", ""}})]{', 1
    )
    merged = '{{"a", ""}, {"coremlc-component-MIL", "3510.2.1"}, {"coremlc-version", "7"}, {"x", "1"}}'
    assert merged in mil.to_text(mil.from_text(text), canonical=True)


@pytest.mark.parametrize(
    ("type", "literal", "field", "stored"),
    [
        ("bool", "true", "bools", [True]),
        ("string", r'"a\"\\\n日"', "strings", ['a"\\\n日']),
        ("fp16", "-0x1.8p+1", "bytes", b"\x00\xc2"),
        ("fp32", "0x1.8p+1", "floats", [3]),
        ("fp64", "0.1", "doubles", [0.1]),
        ("bf16", "0x1.02p+0", "bytes", b"\x81\x3f"),
        ("int8", "-2", "bytes", b"\xfe"),
        ("int16", "-2", "ints", [-2]),
        ("uint16", "65535", "ints", [65535]),
        ("int32", "-2147483648", "ints", [-2147483648]),
        ("uint32", "4294967295", "bytes", b"\xff\xff\xff\xff"),
        ("int64", "-1", "longInts", [-1]),
        ("uint64", "18446744073709551615", "longInts", [-1]),
        ("tensor<int4, [5]>", "[-8, 7, 1, -1, 3]", "bytes", b"\x78\xf1\x03"),
        ("tensor<uint1, [9]>", "[1, 0, 1, 1, 0, 0, 0, 1, 1]", "bytes", b"\x8d\x01"),
        ("tensor<uint3, [9]>", "[1, 2, 3, 4, 5, 6, 7, 0, 1]", "bytes", b"\xd1\x58\x1f\x01"),
        ("tensor<uint6, [5]>", "[1, 2, 63, 4, 5]", "bytes", b"\x81\xf0\x13\x05"),
        ("tensor<fp8e4m3fn, [2]>", "[448, -0x1p-9]", "bytes", b"\x7e\x81"),
        ("tensor<fp8e5m2, [2]>", "[inf, 57344]", "bytes", b"\x7c\x7b"),
        ("tensor<fp16, [2, 0]>", "[]", "bytes", b""),
        ("tensor<fp16, [2, 0]>", "[[], []]", "bytes", b""),
        ("tensor<int32, [?]>", "[1, 2]", "ints", [1, 2]),
    ],
)
def test_a_value_is_stored_in_the_field_that_coremltools_uses(type, literal, field, stored):
    tensor = const(type, literal).immediateValue.tensor
    assert tensor.WhichOneof("value") == field
    values = getattr(tensor, field).values
    assert (values if field == "bytes" else list(values)) == stored


@pytest.mark.parametrize("kind", ["bf16", "fp8e4m3fn", "fp8e5m2"])
def test_small_floats_agree_with_torch(kind):
    dtype = {"bf16": torch.bfloat16, "fp8e4m3fn": torch.float8_e4m3fn, "fp8e5m2": torch.float8_e5m2}[kind]
    numbers = torch.randn(500, generator=torch.manual_seed(1), dtype=torch.float64)
    edges = torch.tensor([0.0, -0.0, 1.0 if kind == "fp8e4m3fn" else math.inf, -3.0])
    values = torch.cat([(numbers * torch.logspace(-12, 2, 500)).float(), edges])
    expected = values.to(dtype).view(torch.uint8).numpy().tobytes()
    literals = ", ".join(hexadecimal(value) for value in values.tolist())
    value = const(f"tensor<{kind}, [{len(values)}]>", f"[{literals}]")
    assert value.immediateValue.tensor.bytes.values == expected


@given(st.floats())
def test_a_float_is_printed_exactly_and_normalised(value):
    text = hexadecimal(value)
    if math.isfinite(value):
        assert math.copysign(1, float.fromhex(text)) == math.copysign(1, value)
        assert float.fromhex(text) == value
        assert text.lstrip("-").startswith("0x1" if value else "0x0p+0")
        assert not text.split("p")[0].endswith((".", "." + "0"))
    else:
        assert text in ("inf", "-inf", "nan", "-nan")


@given(st.data(), st.sampled_from(list(SCALARS.values())))
def test_a_literal_comes_back_as_it_was_printed(data, scalar):
    literal = data.draw(value_text(scalar))
    text = main(f"{scalar.name} y = const()[val = {scalar.name}({literal})];")
    canonical = mil.to_text(mil.from_text(text), canonical=True)
    assert f"= {scalar.name}({literal})]" in canonical


def test_the_type_of_a_scalar_is_read_in_both_spellings():
    new, old = (main(f"{t} y = const()[val = {t}(1)];") for t in ("int32", "tensor<int32, []>"))
    assert equal(mil.from_text(new), mil.from_text(old))


def test_nested_values_have_their_actual_shape_and_open_sizes_survive():
    text = 'dict<string, list<tensor<int32, [?]>, ?>>({{"a", [[1], [2, 3], []]}})'
    program = mil.from_text(main().replace("{", f"[shapes = {text}]{{", 1))
    lists = program.attributes["shapes"].immediateValue.dictionary.values[0].value.immediateValue.list.values
    assert [value.type.tensorType.dimensions[0].constant.size for value in lists] == [1, 2, 0]
    assert f"shapes = {text}]" in mil.to_text(program, canonical=True)


@pytest.mark.memory
def test_a_megabyte_is_parsed_and_printed_in_time():
    numbers = ", ".join(map(str, range(30000)))
    lines = [
        f'tensor<fp16, [1, 64, 1, 1500]> y{i} = add(x = x, y = y{i - 1})[name = string("op_{i}_cast_fp16")];'
        for i in range(1, 9500)
    ]
    first = f"tensor<int32, [30000]> y0 = const()[val = tensor<int32, [30000]>([{numbers}])];"
    text = main("\n".join([first, *lines]))
    assert len(text) > 1_000_000
    start = time.process_time()
    program = mil.from_text(text)
    parsed = time.process_time()
    mil.to_text(program, canonical=True)
    printed = time.process_time()
    assert parsed - start < 1.5
    assert printed - parsed < 1.0


def test_what_is_no_program_or_has_no_text_is_refused():
    from coremltools.proto import MIL_pb2, Model_pb2

    with pytest.raises(ArgumentError, match="not int"):
        mil.to_text(3)
    with pytest.raises(ArgumentError, match="not list"):
        mil.from_text([])
    with pytest.raises(ArgumentError, match="2"):
        mil.to_text(MIL_pb2.Program(), version="2.0")
    with pytest.raises(FormatError, match="neuralNetwork"):
        mil.to_text(Model_pb2.Model(neuralNetwork={}))
    program = mil.from_text(main("fp32 y = relu(x = x);"))
    op = program.functions["main"].block_specializations["CoreML8"].operations[0]
    op.outputs[0].name = "a/b"
    with pytest.raises(FormatError, match=r"function 'main': op relu .*'a/b' is no name"):
        mil.to_text(program)
    op.outputs[0].name = "y"
    op.outputs[0].type.tensorType.rank = 3
    with pytest.raises(FormatError, match="rank 3 with 0 dimensions"):
        mil.to_text(program)
    op.outputs[0].type.tensorType.rank = 0
    value = op.attributes["a"]
    value.CopyFrom(const("list<int32, 2>", "[1, 2]"))
    value.type.listType.length.constant.size = 10**12
    with pytest.raises(FormatError, match="2 elements in a list of 1000000000000"):
        mil.to_text(program)
    value.type.listType.length.constant.size = 2
    value.type.listType.type.tensorType.dataType = 10
    with pytest.raises(FormatError, match="found int32 in place of fp16"):
        mil.to_text(program)
    value.CopyFrom(const("tensor<int32, [2]>", "[1, 2]"))
    value.type.tensorType.dimensions[0].constant.size = 10**12
    with pytest.raises(FormatError, match=r"2 values for tensor<int32, .1000000000000.>"):
        mil.to_text(program)
    program.functions["main"].opset = "CoreML9"
    with pytest.raises(FormatError, match="no block for its opset 'CoreML9'"):
        mil.to_text(program)


def test_importing_anex_mil_does_not_import_coremltools():
    code = "import anex.mil.blob, sys; assert not {'coremltools', 'google.protobuf'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True, cwd=pathlib.Path(__file__).parents[1])
