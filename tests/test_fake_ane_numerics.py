"""What the evaluator does to numbers when it is asked to be like the hardware, and what it refuses."""

import os
import re
import shutil
import struct
import subprocess
import sys
from pathlib import Path

import lean
import numpy as np
import pytest
from coremltools.converters.mil.mil.input_type import TupleInputType
from coremltools.converters.mil.mil.ops.registry import SSAOpRegistry
from fake_ane import build, build_interpreter, interpreter
from mil_facts import text

from anex import _native

HERE = Path(__file__).parent / "fake_ane"
PATH = "@model_path/weights/weight.bin"
X = "tensor<fp16, [1, 4, 1, 8]>"


@pytest.fixture(scope="module")
def parse():
    library = interpreter.load(build_interpreter.build())
    return lambda source, files=None: interpreter.Program(library, source, files)


# ---- numerics -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("op", "exact", "narrow"), [("reduce_sum", 4096, 2048), ("reduce_mean", 1, 0.5)])
@pytest.mark.parametrize(("shape", "axes"), [((2, 4096), [1]), ((4096, 2), [0]), ((2, 64, 3, 64), [-1, 1])])
def test_narrow_reductions_stop_counting_at_2048(parse, op, exact, narrow, shape, axes):
    kept = [1 if i in axes or i - len(shape) in axes else n for i, n in enumerate(shape)]
    body = f"""tensor<int32, [{len(axes)}]> a = const()[val = tensor<int32, [{len(axes)}]>({axes})];
               tensor<fp16, {kept}> y = {op}(axes = a, keep_dims = bool(true), x = x);"""
    program, x = parse(text(body, takes=f"tensor<fp16, {list(shape)}> x")), {"x": np.ones(shape, "float16")}
    assert (program.run(x)[0] == exact).all()
    assert (program.run(x, narrow_reduce=True)[0] == narrow).all()


def test_a_narrow_sum_keeps_each_axis_apart(parse):
    body = "tensor<fp16, [3]> y = reduce_sum(axes = tensor<int32, [2]>([0, 2]), keep_dims = bool(false), x = x);"
    x = np.arange(24, dtype="float16").reshape(2, 3, 4)
    program = parse(text(body, takes="tensor<fp16, [2, 3, 4]> x"))
    np.testing.assert_array_equal(program.run({"x": x}, narrow_reduce=True)[0], x.sum((0, 2)))


def test_products_are_infinite_from_32752_on(parse):
    body = """tensor<fp16, [1, 4]> y = matmul(transpose_x = bool(false), transpose_y = bool(false), x = x, y = w);
              tensor<fp16, [1, 4]> z = mul(x = y, y = fp16(1));"""
    program = parse(text(body, takes="tensor<fp16, [1, 1]> x, tensor<fp16, [1, 4]> w", gives="z"))
    given = {"x": np.ones((1, 1), "float16"), "w": np.array([[32736, 32752, -40000, np.nan]], "float16")}
    np.testing.assert_array_equal(program.run(given)[0], given["w"])
    np.testing.assert_array_equal(program.run(given, matmul_cliff=True)[0], [[32736, np.inf, -np.inf, np.nan]])


def test_subnormals_become_zero_after_each_op(parse):
    smallest = 2.0**-14
    body = f"{X} h = mul(x = x, y = fp16(0x1p-2)); {X} y = mul(x = h, y = fp16(0x1p+2));"
    x = np.array([smallest, smallest * 4, -smallest, 0, 1, -1, smallest * 3.996, 2], "float16")
    program = parse(text(body))
    given = {"x": np.broadcast_to(x, (1, 4, 1, 8))}
    np.testing.assert_array_equal(program.run(given)[0], given["x"])
    found = program.run(given, flush_subnormals=True)[0]
    np.testing.assert_array_equal(found[0, 3, 0], [0, smallest * 4, 0, 0, 1, -1, 0, 2])


@pytest.mark.parametrize("begin", [0, 1, -8, -7])
def test_slices_that_begin_inside_a_row_overflow_above_4094(parse, begin):
    start, n = begin % 8, 8 - begin % 8
    body = f"""tensor<int32, [4]> b = const()[val = tensor<int32, [4]>([0, 1, 0, {begin}])];
    tensor<fp16, [1, 3, 1, {n}]> y = slice_by_index(begin = b, end = tensor<int32, [4]>([1, 4, 1, 8]), x = x);
    tensor<int32, [4]> c = const()[val = tensor<int32, [4]>([0, 1, 0, {start}])];
    tensor<fp16, [1, 3, 1, {n}]> z = slice_by_size(begin = c, size = tensor<int32, [4]>([1, 3, 1, {n}]), x = x);"""
    x = np.array([5000, 4094, 4096, -4096, 4094, -4094, 60000, np.nan], "float16")
    cut = np.array([5000, 4094, np.inf, -np.inf, 4094, -4094, np.inf, np.nan], "float16") if start else x
    program = parse(text(body, gives="y, z"))
    for found in program.run({"x": np.broadcast_to(x, (1, 4, 1, 8))}, slice_clamp=True):
        np.testing.assert_array_equal(found[0, 0, 0], cut[start:])


@pytest.mark.parametrize("constant", [False, True])
def test_attention_may_ignore_its_mask(parse, constant):
    q = "tensor<fp16, [1, 2, 3, 4]>"
    mask = "tensor<fp16, [3, 3]>([[0, -1e4, -1e4], [0, 0, -1e4], [0, 0, 0]])" if constant else "m"
    op = f"{q} y = scaled_dot_product_attention(key = k, query = k, value = v"
    takes = f"{q} k, {q} v, tensor<fp16, [3, 3]> m"
    rng = np.random.default_rng(1)
    given = {name: rng.normal(size=(1, 2, 3, 4)).astype("float16") for name in "kv"}
    given["m"] = np.triu(np.full((3, 3), -1e4, "float16"), 1)
    masked, plain = parse(text(op + f", attn_mask = {mask});", takes)), parse(text(op + ");", takes))
    assert (masked.run(given)[0] != plain.run(given)[0]).any()
    np.testing.assert_array_equal(masked.run(given, sdpa_ignores_mask=True)[0], plain.run(given)[0])


# ---- what is refused ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("body", "gives", "sentence"),
    [
        (f"{X} y = exp(x = z);", "y", "'z' is used, but nothing before defines it"),
        (f"{X} z = exp(x = y); {X} y = exp(x = x);", "y", "'y' is used, but nothing before"),
        (f"{X} y = exp(x = x);", "z", "output 'z' is nothing that the function makes"),
        (f"{X} y = exp(x = x);", "", "without outputs"),
        (f"{X} y = exp(x = x); {X} y = exp(x = x);", "y", "'y' is defined twice"),
        (f"{X} y = frobnicate(x = x);", "y", "'frobnicate' is no op that this machine has"),
        (f"{X} y = exp(x = x, z = x);", "y", "exp 'y' has no argument 'z'"),
        (f"{X} y = add(x = x);", "y", "add 'y' needs its argument 'y'"),
        (f"{X} y = add(x = x, x = x);", "y", "argument 'x' is given twice"),
        (f"{X} y = add(x = x, y = (x, x));", "y", "argument 'y' is no list"),
        (f"{X} y = add(x = x, y = fp32(1));", "y", "shapes or dtypes"),
        (f"{X} y = softmax(axis = x, x = x);", "y", "argument 'axis' must be a constant"),
        (f"{X} y = gelu(mode = int32(1), x = x);", "y", "argument 'mode' must be a string"),
        (f'{X} y = add(x = x, y = string("a"));', "y", "argument 'y' must be a tensor"),
        (f"{X} y = read_state(input = x);", "y", "argument 'input' must be a state"),
        ("tensor<fp16, [1, 4, 1, 9]> y = exp(x = x);", "y", r"makes float16 \[1, 4, 1, 8\]; its result is declared"),
        (f"{X} y, {X} z = exp(x = x);", "y", "exp 'y' has 1 results, not 2"),
        ("tensor<fp32, [1, 4, 1, 8]> y = exp(x = x);", "y", "declared as float32"),
        ("tensor<bf16, [2]> y = const()[val = tensor<bf16, [2]>([1, 2])];", "y", "is bf16, which"),
        ("tensor<int8, [2]> y = const()[val = tensor<int8, [2]>([1, 128])];", "y", "'128' is no value of type int8"),
        ("tensor<int8, [2]> y = const()[val = tensor<int8, [2]>([1])];", "y", "expected ',', found ']'"),
        ("tensor<int8, [2]> y = const()[val = tensor<int8, [3]>([1, 2, 3])];", "y", "is not the type of its result"),
        ('tensor<int8, [2]> y = const()[name = string("y")];', "y", "attribute 'val'"),
        ("tensor<int8, [999999]> y = const()[val = tensor<int8, [999999]>([1])];", "y", "fewer elements"),
        (f"{X} y = cond(pred = x)() {{ }} -> (x)() {{ }} -> (x);", "y", "no control flow"),
        (f"{X} y = exp(x = x)", "y", "expected ';', found '}'"),
        (f'{X} y = exp(x = x)[name = string("y];', "y", "no closing quote"),
        (f"{X} y = exp(x = x); #", "y", "byte 0x23"),
        ("tensor<fp16, [?]> y = exp(x = x);", "y", "axis 0 of 'y' has no fixed size"),
        ("tensor<fp16, [1,1,1,1,1,1,1,1,1]> y = exp(x = x);", "y", "more than 8 axes"),
        ("tensor<fp16, [0]> y = exp(x = x);", "y", r"its result is declared as float16 \[0\]"),
        ("tensor<fp16, [1, 4, 1, 7]> y = split(axis = int32(-1), num_splits = int32(1), x = x);", "y", "do not fit"),
    ],
)
def test_a_wrong_program_is_refused_with_its_line(parse, body, gives, sentence):
    with pytest.raises(ValueError, match=f"^line [0-9]+: .*{sentence}"):
        parse(text(body, gives=gives))


@pytest.mark.parametrize("source", ["", "{", "program(1.0)", "program(2.0)[]{}", "\0", "é"])
def test_what_is_no_program_is_refused(parse, source):
    with pytest.raises(ValueError, match=r"^line 1: "):
        parse(source)


def test_nesting_has_an_end(parse):
    for opened in ("tuple<" * 10**5, "list<tensor<string, []>, 1>(" + "(" * 10**5):
        with pytest.raises(ValueError, match="nested more than 32 deep"):
            parse(f"program(1.3)[a = {opened}")


def record(kind=1, size=4, at=128, sentinel=0xDEADBEEF, version=2):
    return struct.pack("<II56x", 1, version) + struct.pack("<IIQQQ32x", sentinel, kind, size, at, 0) + b"\0\x3c\0\x40"


@pytest.mark.parametrize(
    ("files", "offset", "sentence"),
    [
        ({}, 64, "no weights were given"),
        ({PATH: b""}, 64, "is no weight file"),
        ({PATH: record(version=1)}, 64, "is no weight file"),
        ({PATH: record()}, 128, "offset 128 is outside"),
        ({PATH: record()}, 0, "offset 0 is outside"),
        ({PATH: record()}, 2**64 - 1, "is outside"),
        ({PATH: record()}, 2**64, "expected an offset"),
        ({PATH: record() + bytes(64)}, 128, "no record at offset 128"),
        ({PATH: record(sentinel=1)}, 64, "0x00000001 stands there"),
        ({PATH: record(kind=2)}, 64, "data type 2, not fp16"),
        ({PATH: record(size=6)}, 64, "asks for 4"),
        ({PATH: record(at=130)}, 64, "has 4 bytes at 130 of 132"),
        ({PATH: record(at=2**64 - 2)}, 64, "asks for 4"),
    ],
)
def test_a_wrong_weight_file_is_refused(parse, files, offset, sentence):
    place = f'BLOBFILE(path = string("{PATH}"), offset = uint64({offset}))'
    source = text(f"tensor<fp16, [2]> c = const()[val = tensor<fp16, [2]>({place})];", gives="c")
    with pytest.raises(ValueError, match=sentence):
        parse(source, files)
    for good in (record(), record(at=0)):  # some writers leave the place of the data out
        (found,) = parse(source.replace(str(offset), "64"), {PATH: good}).run({"x": np.zeros((1, 4, 1, 8), "float16")})
        np.testing.assert_array_equal(found, [1, 2])


def test_mutated_programs_trouble_no_sanitizer():
    """In a process of its own, with the evaluator's files under AddressSanitizer and UBSan."""
    library = build_interpreter.build(build_interpreter.SANITIZE)
    environment = {**os.environ, "PYTHONPATH": lean.path(HERE.parent)}
    if not build.EXTRA:  # else these tests run under a sanitizer, whose runtime is loaded
        ask = [["gcc", f"-print-file-name={name}"] for name in ("libasan.so", "libubsan.so")]
        runtimes = [subprocess.run(each, capture_output=True, text=True, check=True).stdout.strip() for each in ask]
        environment |= {"LD_PRELOAD": " ".join(runtimes), "ASAN_OPTIONS": "detect_leaks=0:allocator_may_return_null=1"}
    command = [sys.executable, "-m", "fake_ane.fuzz", library, "2000", HERE / "many_ops.mil"]
    done = subprocess.run(command, capture_output=True, text=True, env=environment, check=False)
    assert done.returncode == 0, done.stderr[-4000:]
    assert 1000 < int(done.stdout) < 2000


# ---- the tables and the files ------------------------------------------------------------------------------------


def rows():
    source = (HERE / "mil_ops.inc").read_text()
    for op, arguments in re.findall(r"^MIL_OP\((\w+), \w+, -?\d, ((?:\s*\"[^\"]*\")+)\)", source, re.MULTILINE):
        yield op, "".join(re.findall(r"\"([^\"]*)\"", arguments)).split()


def test_the_table_of_arguments_agrees_with_coremltools():
    table = dict(rows())
    assert table.pop("write_state") == ["input", "data"]
    own = {op for op in _native.kernels() if op.startswith("anex_")}
    own |= {"cond", "while_loop", "coreml_update_state", "conv_quantized"}
    assert set(table) == set(_native.kernels()) - own
    for op, words in table.items():
        versions = SSAOpRegistry.core_ops.get(op) or {None: SSAOpRegistry.dialect_ops[op]}
        kinds = [cls.input_spec.input_types for cls in versions.values()]
        listed = {name for each in kinds for name, kind in each.items() if isinstance(kind, TupleInputType)}
        assert {word.rstrip("?!$") for word in words} == {n for each in kinds for n in each if n[0] != "_"} - listed, op
        for word in words:
            known = [each[word.rstrip("?!$")] for each in kinds if word.rstrip("?!$") in each]
            optional = len(known) < len(kinds) or any(kind.optional for kind in known)
            assert ("?" in word, word[-1] in "!$") == (optional, all(kind.const for kind in known)), (op, word)


@pytest.mark.parametrize("compiler", [name for name in ("gcc", "clang", "clang-19") if shutil.which(name)])
def test_no_compiler_has_a_warning(compiler):
    flags = ["-std=c11", "-O1", "-Wall", "-Wextra", "-Wpedantic", "-Werror", "-fsyntax-only"]
    subprocess.run([compiler, *flags, *map(str, build_interpreter.sources())], check=True)


def test_files_of_the_evaluator_are_small():
    for path in [*HERE.glob("mil*"), HERE / "interpreter.h"]:
        lines = path.read_text().splitlines()
        assert len(lines) <= 600, path
        assert path.suffix == ".mil" or max(map(len, lines)) <= 120, path
