"""The evaluator behind the stand-in framework, by itself, against the CPU engine and against written-out numbers.

The tests of the corpus also read ``../shared/reference/mil_corpus``; without it they try our own texts only.
"""

import re
import struct
import threading
from pathlib import Path

import coremltools as ct
import harness
import numpy as np
import pytest
from coremltools.converters.mil.mil import Builder as mb
from coremltools.converters.mil.mil import Function, Program, types
from fake_ane import build_interpreter, interpreter
from fake_ane.cases import CASES, CONSTANTS, FOUR_BITS, ONE_BIT, half
from mil_facts import CORPUS, text, zero_weights

import anex
from anex import _native, mil, store
from anex.devices.cpu import lower
from anex.mil import blob

HERE = Path(__file__).parent
PATH = "@model_path/weights/weight.bin"
BUILD_INFO = '[buildInfo = dict<tensor<string, []>, tensor<string, []>>({{"coremlc-version", "3505.4.1"}})]'


@pytest.fixture(scope="module")
def parse():
    library = interpreter.load(build_interpreter.build())
    return lambda source, files=None: interpreter.Program(library, source, files)


def weight_file(*records):
    """(data type, bytes) each, as Apple's writer lays them out; the first record is at 64."""
    data = bytearray(struct.pack("<II56x", len(records), 2))
    for kind, values in records:
        data += bytes(-len(data) % 64)
        data += struct.pack("<IIQQQ32x", 0xDEADBEEF, kind, len(values), len(data) + 64, 0) + values
    return bytes(data)


def same_as_cpu(parse, program):
    """One run here and one on the CPU engine, every op rounding: equal bits."""
    function, compiled = program.functions["main"], anex.compile(program, device="cpu")
    source, weights = store.to_text(program)
    rng = np.random.default_rng(3)
    given = dict(zip(function.inputs, getattr(program, "test_inputs", ()), strict=False))
    for name, spec in compiled.inputs.items():
        given[name] = np.asarray(given.get(name, rng.uniform(-1, 1, spec.shape))).astype(spec.dtype)
    wanted = lower(function, compiled.inputs, compiled.outputs, strict=True).run(
        tuple(given[name] for name in compiled.inputs)
    )
    found = parse(source, {PATH: weights}).run(given)
    for left, right in zip(found, wanted if isinstance(wanted, tuple) else (wanted,), strict=True):
        np.testing.assert_array_equal(left, np.asarray(right))


# ---- text ---------------------------------------------------------------------------------------------------


def test_both_dialects_say_the_same(parse):
    body = "{t} half = const()[name = {s}, val = {t}(0x1p-1)]; tensor<fp16, [4]> y = mul(x = x, y = half)[name = {s}];"
    new = f"program(1.3)[buildInfo = dict<string, string>({{}})]{{func main<ios18>(tensor<fp16, [4]> x) {{ {body} }}"
    old = f"program(1.0)\n{BUILD_INFO}\n{{ func main<ios16>(tensor<fp16, [4]> x) {{ {body} }}"
    x = np.arange(4, dtype="float16")
    for source, scalar, string in ((new, "fp16", 'string("h")'), (old, "tensor<fp16, []>", 'tensor<string, []>("h")')):
        program = parse((source + " -> (y);}").replace("{t}", scalar).replace("{s}", string))
        assert (program.functions, program.ops()) == (["main"], ["mul"])
        assert program.ports(False) == {"x": ((4,), "float16")}
        np.testing.assert_array_equal(program.run({"x": x})[0], x / 2)


@pytest.mark.parametrize(
    ("kind", "literal", "expected"),
    [
        ("fp16", "[0x1.8p+1, -0x1p-24, 0x0p+0, inf]", np.array([3, -(2.0**-24), 0, np.inf], "float16")),
        ("fp16", "[1.5, -2e-1, 7, 65519.99]", np.array([1.5, -0.2, 7, 65504], "float16")),
        ("fp16", "[-inf, nan, 1.000488281251, 0.00001]", np.array([-np.inf, np.nan, 1 + 2**-10, 1e-5], "f2")),
        ("fp32", "[0x1.010102p-8, -1.5E+3, 0x1p-149, 0.1]", np.array([257.00394 / 65536, -1500, 2**-149, 0.1], "f4")),
        ("int32", "[-2147483648, 2147483647, 0, 1]", np.array([-(2**31), 2**31 - 1, 0, 1], "int32")),
        ("int64", "[-5, 0, 1, 2]", np.array([-5, 0, 1, 2], "int32")),
        ("uint16", "[0, 65535, 1, 2]", np.array([0, 65535, 1, 2], "uint16")),
        ("int8", "[-128, 127, 0, 1]", np.array([-128, 127, 0, 1], "int8")),
        ("int4", "[-8, 7, 0, 1]", np.array([-8, 7, 0, 1], "int8")),
        ("uint1", "[1, 0, 1, 1]", np.array([1, 0, 1, 1], "uint8")),
        ("bool", "[true, false, false, true]", np.array([True, False, False, True])),
    ],
)
def test_literals(parse, kind, literal, expected):
    body = f"tensor<{kind}, [4]> c = const()[val = tensor<{kind}, [4]>({literal})];"
    (found,) = parse(text(body, gives="c")).run({"x": np.zeros((1, 4, 1, 8), "float16")})
    assert found.dtype == expected.dtype
    np.testing.assert_array_equal(found, expected)


@pytest.mark.parametrize(
    ("kind", "code", "data", "expected"),
    [
        ("fp16", 1, np.array([1, -2], "<f2").tobytes(), np.array([1, -2], "float16")),
        ("fp32", 2, np.array([1, -2], "<f4").tobytes(), np.array([1, -2], "float32")),
        ("int16", 6, b"\xfe\xff\x01\x00", np.array([-2, 1], "int16")),
        ("int4", 8, bytes.fromhex("78f103"), np.array([-8, 7, 1, -1, 3], "int8")),
        ("uint4", 11, bytes.fromhex("21430f"), np.array([1, 2, 3, 4, 15], "uint8")),
        ("uint1", 9, bytes.fromhex("8d01"), np.array([1, 0, 1, 1, 0, 0, 0, 1, 1], "uint8")),
        ("uint2", 10, bytes.fromhex("e403"), np.array([0, 1, 2, 3, 3], "uint8")),
        ("uint3", 12, bytes.fromhex("d1581f01"), np.array([1, 2, 3, 4, 5, 6, 7, 0, 1], "uint8")),
        ("uint6", 13, bytes.fromhex("81f01305"), np.array([1, 2, 63, 4, 5], "uint8")),
    ],
)
def test_weight_files(parse, kind, code, data, expected):
    """The packed bytes are those that coremltools 9 writes for these values."""
    type_ = f"tensor<{kind}, [{len(expected)}]>"
    place = f'BLOBFILE(offset = tensor<uint64, []>(128), path = string("{PATH}"))'
    program = parse(
        text(f"{type_} c = const()[val = {type_}({place})];", gives="c"),
        {"other": b"", PATH: weight_file((1, bytes(0)), (code, data))},
    )
    np.testing.assert_array_equal(program.run({"x": np.zeros((1, 4, 1, 8), "float16")})[0], expected)


def test_every_text_of_the_corpus_is_read_or_has_no_fixed_shape(parse, tmp_path):
    refused = []
    for path in [*sorted(CORPUS.glob("**/*.mil")), HERE / "fake_ane/many_ops.mil", HERE / "data/canonical_1_0.mil"]:
        source = path.read_text()
        references = blob.references(mil.from_text(source))
        zero_weights(tmp_path, references)
        files = {name: (tmp_path / name.removeprefix("@model_path/")).read_bytes() for name in references}
        try:
            program = parse(source, files)
            assert program.ops()
        except ValueError as error:
            refused.append(str(error))
    known = "has no fixed size|has blocks|'raxCh' is defined twice"  # the last by a generator, never compiled here
    assert all(re.search(known, sentence) for sentence in refused), refused
    assert len(refused) <= 6


# ---- runs ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("op", sorted(CASES))
def test_each_op_gives_the_bits_of_the_cpu_engine(parse, op):
    program = harness.build(op, CASES[op], constants=CONSTANTS)
    if "y" in program.functions["main"].inputs:  # text has one namespace
        program.functions["main"].outputs[0].name = "result"
    assert op in parse(*with_weights(program)).ops()
    same_as_cpu(parse, program)


def with_weights(program):
    source, weights = store.to_text(program)
    return source, {PATH: weights}


def test_the_cases_are_all_ops_that_have_inputs_and_no_blocks():
    others = {"conv_quantized"}  # no machine takes it
    others |= {"cond", "while_loop", "read_state", "coreml_update_state", "fill", "range_1d"}
    others |= {op for op in _native.kernels() if op.startswith(("anex_", "constexpr_", "random_"))}
    assert set(CASES) == set(_native.kernels()) - others


@pytest.mark.parametrize("opset", ["iOS16", "iOS18"])
def test_compressed_weights(parse, rng, opset):
    program, old = Program(), opset == "iOS16"
    mask, values = rng.integers(0, 2, (6, 8)), rng.normal(size=48).astype("float16")
    values, few = values[: mask.sum()], rng.integers(0, 16, (6, 8))
    with Function({"x": mb.placeholder((6, 8), dtype=types.fp16)}, ct.target[opset]) as function:
        whole = rng.integers(-128, 128, (6, 8)).astype("int8")
        scale = np.linspace(0.1, 0.9, 6, dtype="float16")
        made = []
        if old:
            packed, table = np.packbits(mask.ravel(), bitorder="little"), half(16)
            shape = np.array([6, 8], "uint32")
            nibbles = (few.ravel()[::2] | few.ravel()[1::2] << 4).astype("uint8")
            made.append(
                mb.constexpr_affine_dequantize(quantized_data=whole, zero_point=np.int8(3), scale=scale, axis=0)
            )
            made.append(mb.constexpr_lut_to_dense(indices=nibbles, lut=table, shape=shape))
            made.append(mb.constexpr_sparse_to_dense(nonzero_data=values, mask=packed, shape=shape))
        else:
            bits, table = mask.astype(ONE_BIT), half(2, 1, 16, 1)
            made.append(mb.constexpr_blockwise_shift_scale(data=whole, scale=scale.reshape(6, 1)))
            made.append(mb.constexpr_lut_to_dense(indices=few.astype(FOUR_BITS), lut=table))
            made.append(mb.constexpr_sparse_to_dense(nonzero_data=values, mask=bits))
            kept, numbers = mb.constexpr_lut_to_sparse(
                indices_mask=bits, indices_nonzero_data=few[mask != 0].astype(FOUR_BITS), lut=half(1, 1, 16, 1)
            )
            made.append(mb.constexpr_sparse_to_dense(nonzero_data=numbers, mask=kept))
            kept, numbers = mb.constexpr_sparse_blockwise_shift_scale(
                data_mask=bits, nonzero_data=whole[mask != 0], scale=scale.reshape(6, 1)
            )
            made.append(mb.constexpr_sparse_to_dense(nonzero_data=numbers, mask=kept))
        function.set_outputs([mb.concat(values=[function.inputs["x"], *made], axis=0)])
    program.add_function("main", function)
    same_as_cpu(parse, program)
    ops = parse(*with_weights(program)).ops()
    assert len([op for op in ops if op.startswith("constexpr_")]) == len(made) + (0 if old else 2)


def test_random_ops_run(parse):
    body = """tensor<int32, [1]> s = const()[val = tensor<int32, [1]>([64])];
              tensor<fp16, [64]> y = random_uniform(high = fp16(3), low = fp16(2), seed = int32(1), shape = s);
              tensor<fp16, [64]> z = random_bernoulli(prob = fp16(0.5), seed = int32(1), shape = s);"""
    y, z = parse(text(body, gives="y, z")).run({"x": np.zeros((1, 4, 1, 8), "float16")})
    assert 2 <= y.min() < y.max() <= 3
    assert set(z.tolist()) == {0, 1}


def test_several_functions_and_states(parse):
    program = parse((HERE / "fake_ane/many_ops.mil").read_text(), {PATH: weight_file((1, bytes(32)))})
    assert program.functions == ["main", "second"]
    assert program.ops(1) == ["read_state", "add", "write_state", "mul"]
    room = np.zeros((2, 4), "float16")
    total = room[:, 1]  # a state that is not packed is written too
    for _ in range(2):
        (y,) = program.run({"x": np.array([1, 2], "float16"), "total": total}, 1)
    np.testing.assert_array_equal(y, [4, 8])
    np.testing.assert_array_equal(room, [[0, 2, 0, 0], [0, 4, 0, 0]])


def test_padded_rows_come_in_and_go_out(parse):
    program = parse(
        text("tensor<fp16, [1, 4, 1, 8]> y = exp(x = x); tensor<fp16, [1, 4, 1, 8]> z = relu(x = y);", gives="z, x")
    )
    room, left, right = (np.full((1, 4, 1, 32), 7, "float16") for _ in range(3))
    room[..., :8] = half(1, 4, 1, 8)
    program.run({"x": room[..., :8]}, outputs=[left[..., :8], right[..., :8]])
    np.testing.assert_allclose(left[..., :8], np.exp(room[..., :8].astype("float32")), rtol=1e-3)
    np.testing.assert_array_equal(right, room)
    assert (left[..., 8:] == 7).all()


def test_threads_share_a_program(parse):
    program = parse(
        text("tensor<fp16, [1, 4, 1, 8]> e = exp(x = x); tensor<fp16, [1, 4, 1, 8]> y = mul(x = e, y = e);")
    )
    given = [half(1, 4, 1, 8) for _ in range(4)]
    wanted, wrong = [program.run({"x": x})[0] for x in given], []

    def work(i):
        wrong.extend(k for k in range(200) if (program.run({"x": given[i]})[0] != wanted[i]).any())

    threads = [threading.Thread(target=work, args=(i,)) for i in range(4)]
    [thread.start() for thread in threads]
    [thread.join() for thread in threads]
    assert not wrong


def test_arrays_that_do_not_fit_are_refused(parse):
    program = parse(text("tensor<fp16, [1, 4, 1, 8]> y = exp(x = x);"))
    with pytest.raises(RuntimeError, match="'x' has another shape"):
        program.run({"x": np.zeros((1, 4, 8), "float16")})
    with pytest.raises(RuntimeError, match="'x' is float16, not float32"):
        program.run({"x": np.zeros((1, 4, 1, 8), "float32")})
    with pytest.raises(RuntimeError, match="no number 3"):
        program.run({}, 3)
