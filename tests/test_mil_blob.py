"""Weight files: the references of a program, the check that comes before any reading, reading and writing.

The last test also reads ``../shared/reference/mil_corpus/pairs``; without it, it checks our own text only.
"""

import pathlib
import struct

import numpy as np
import pytest

from anex import DTypeError, FormatError, MissingFileError, UnsupportedError, mil
from anex.mil import blob
from anex.mil.blob import Reference

PAIRS = pathlib.Path(__file__).parents[2] / "shared/reference/mil_corpus/pairs"
DATA = pathlib.Path(__file__).parent / "data"

# MIL type, elements, and their bytes in the file: sub-byte ones are packed from the lowest bit.
ARRAYS = [
    ("fp16", np.arange(5, dtype=np.float16), None),
    ("fp32", np.arange(3, dtype=np.float32), None),
    ("uint8", np.arange(65, dtype=np.uint8), None),
    ("int8", np.arange(-3, 3, dtype=np.int8), None),
    ("int16", np.arange(-2, 2, dtype=np.int16), None),
    ("uint16", np.arange(4, dtype=np.uint16), None),
    ("int32", np.arange(-2, 2, dtype=np.int32), None),
    ("uint32", np.arange(4, dtype=np.uint32), None),
    ("int4", np.int8([-8, 7, 1, -1, 3]), b"\x78\xf1\x03"),
    ("uint4", np.uint8([1, 2, 3, 4, 15]), b"\x21\x43\x0f"),
    ("uint1", np.uint8([1, 0, 1, 1, 0, 0, 0, 1, 1]), b"\x8d\x01"),
    ("uint2", np.uint8([0, 1, 2, 3, 3]), b"\xe4\x03"),
    ("uint3", np.uint8([1, 2, 3, 4, 5, 6, 7, 0, 1]), b"\xd1\x58\x1f\x01"),
    ("uint6", np.uint8([1, 2, 63, 4, 5]), b"\x81\xf0\x13\x05"),
]


def reference(offset=64, dtype="fp16", shape=(5,)):
    return Reference("@model_path/weights/weight.bin", offset, dtype, shape, "op const (w)")


def header(count=1, version=2):
    return struct.pack("<II56x", count, version)


def record(code=1, size=10, data=128, padding=0, sentinel=0xDEADBEEF):
    return struct.pack("<IIQQQ32x", sentinel, code, size, data, padding)


FP16 = np.arange(5, dtype=np.float16).tobytes()


@pytest.fixture
def write(tmp_path):
    def write(*parts):
        (tmp_path / "weight.bin").write_bytes(b"".join(parts))
        return tmp_path / "weight.bin"

    return write


def test_every_type_is_written_in_apples_layout_and_read_back(tmp_path):
    path = tmp_path / "weight.bin"
    writer = blob.Writer(path)
    offsets = [writer.write(array, dtype) for dtype, array, _ in ARRAYS]
    del writer
    references = [
        reference(offset, dtype, array.shape) for offset, (dtype, array, _) in zip(offsets, ARRAYS, strict=True)
    ]
    blob.check(path, references)
    data = path.read_bytes()
    for ref, (_, array, packed) in zip(references, ARRAYS, strict=True):
        assert ref.offset % 64 == 0
        packed = packed or array.tobytes()
        assert data[ref.offset + 64 :][: len(packed)] == packed
        again = blob.read(path, ref)
        assert again.dtype == array.dtype
        np.testing.assert_array_equal(again, array)


def test_an_array_has_the_shape_of_its_reference_and_outlives_the_file(write):
    path = write(header(), record(size=12), np.arange(6, dtype=np.float16).tobytes())
    array = blob.read(path, reference(shape=(2, 3)))
    path.unlink()
    assert array.tolist() == [[0, 1, 2], [3, 4, 5]]


@pytest.mark.parametrize(
    ("parts", "wanted", "message"),
    [
        ([], {}, "found no bytes, a weight file's header has 64"),
        ([header()[:10]], {}, "found 10 bytes"),
        (
            [header(version=1), record(), FP16],
            {},
            "version 1: the older format of Espresso, version 2 is needed",
        ),
        ([header(version=7), record(), FP16], {}, "weight file of version 7, version 2 is needed"),
        (
            [header(), record(), FP16],
            {"offset": 4096},
            "offset 4096: outside of the file, whose records lie in 64 to 138",
        ),
        ([header(), record(), FP16], {"offset": 2**64 - 1}, "outside of the file"),
        ([header(), record(), FP16], {"offset": 0}, "offset 0: outside of the file"),
        (
            [header(), record(), FP16, bytes(60)],
            {"offset": 128},
            "one starts 64 bytes before, and its offset, 64,",
        ),
        ([header(), record(), FP16], {"offset": 70}, "no record starts here: found 0x"),
        ([header(), record(), FP16], {"offset": 70}, "records start at multiples of 64"),
        ([header(), record(sentinel=1), FP16], {}, "found 0x00000001, not 0xdeadbeef"),
        ([header(), record(code=4), FP16], {}, "found int8, need fp16"),
        ([header(), record(code=99), FP16], {}, "found data of unknown type 99, need fp16"),
        ([header(), record(), FP16], {"dtype": "fp32"}, "found fp16, need fp32"),
        ([header(), record(), FP16], {"shape": (6,)}, "found 10 bytes, need 12 for 6 elements of fp16"),
        ([header(), record(size=2**63), FP16], {}, "found 9223372036854775808 bytes, need 10"),
        (
            [header(), record(code=8, size=1, padding=2), b"\0"],
            {"dtype": "int4", "shape": (1,)},
            "less 2 bits",
        ),
        (
            [header(), record(), FP16[:4]],
            {},
            "its data ends at 138, found only 132 bytes: the file is truncated",
        ),
        ([header(), record(data=2**63), FP16], {}, "the file is truncated"),
        ([header(), record(data=0), FP16], {}, "its record says that the data start at 0, need 128"),
    ],
)
def test_a_wrong_file_is_refused_with_file_offset_and_reason(write, parts, wanted, message):
    path = write(*parts)
    with pytest.raises(FormatError) as caught:
        blob.check(path, [reference(**wanted)])
    assert str(path) in str(caught.value)
    assert message in str(caught.value)
    with pytest.raises(FormatError):
        blob.read(path, reference(**wanted))


def test_a_missing_file_is_named(tmp_path):
    for path in (tmp_path / "none.bin", tmp_path, tmp_path / "none" / "weight.bin"):
        with pytest.raises(MissingFileError, match=f"no weight file {path}"):
            blob.check(path, [reference()])


@pytest.mark.parametrize(
    "parts",
    [
        [header(count=0), record(), FP16],
        [header(count=77), record(), FP16],
        [header(), record(data=192), bytes(64), FP16],
        [header(), record(data=133), bytes(5), FP16],
        [header(), record(), FP16, b"anything after it"],
    ],
)
def test_what_the_ane_does_not_mind_is_no_error(write, parts):
    assert blob.read(write(*parts), reference()).tolist() == [0, 1, 2, 3, 4]


def test_records_may_be_unaligned_and_padding_bits_left_out(write):
    second = 64 + 64 + len(FP16)
    path = write(header(), record(), FP16, record(code=8, size=3, data=second + 64), b"\x78\xf1\x03")
    assert blob.read(path, reference(second, "int4")).tolist() == [-8, 7, 1, -1, 3]


def test_the_references_of_a_program_are_found_wherever_they_are():
    text = """program(1.3)
        [a = list<fp16, 2>([BLOBFILE(path = string("p"), offset = uint64(64)), 0x0p+0])]
        {
        func main<ios18>(fp16 x)
            [b = dict<string, fp32>({{"k", BLOBFILE(path = string("q"), offset = uint64(1))}})] {
        f(x = (x, int8(BLOBFILE(path = string("p"), offset = uint64(128)))))()
            { g()[w = tensor<uint4, [2, 3]>(BLOBFILE(path = string("p"), offset = uint64(192)))]; } -> ();
        } -> (x);
        }"""
    found = blob.references(mil.from_text(text))
    assert [(ref.offset, ref.dtype, ref.shape, ref.owner) for ref in found["p"]] == [
        (128, "int8", (), "op f ()"),
        (192, "uint4", (2, 3), "op g ()"),
        (64, "fp16", (), "the program"),
    ]
    assert [(ref.offset, ref.size) for ref in found["q"]] == [(1, 1)]


@pytest.mark.parametrize("type", ["string", "bool", "int64", "fp64", "tensor<fp16, [?]>", "list<fp16, 1>"])
def test_a_type_that_no_weight_file_holds_is_refused(type):
    value = f'{type}(BLOBFILE(path = string("p"), offset = uint64(64)))'
    program = mil.from_text(f"program(1.3)[a = {value}]{{}}")
    with pytest.raises(FormatError, match=r"the program: .* in a weight file"):
        blob.references(program)


def test_the_writer_takes_no_other_dtype_and_no_type_that_coremltools_lacks(tmp_path):
    writer = blob.Writer(tmp_path / "weight.bin")
    with pytest.raises(DTypeError, match="fp16 takes an array of float16, not float32"):
        writer.write(np.zeros(3, np.float32), "fp16")
    with pytest.raises(DTypeError, match="int4 takes an array of int8"):
        writer.write(np.zeros(3, np.uint8), "int4")
    for dtype in ("bf16", "bool", "nonsense"):
        with pytest.raises(UnsupportedError, match=dtype):
            writer.write(np.zeros(3, np.float32), dtype)


@pytest.mark.parametrize("path", [DATA / "canonical_1_0.mil", *sorted(PAIRS.glob("*.mil"))], ids=lambda path: path.stem)
def test_the_weights_of_a_corpus_pair_pass_the_check(path, tmp_path):
    found = blob.references(mil.from_text(path.read_text()))
    weights = path.with_name(f"{path.stem}.weight.bin")
    for references in found.values():
        if weights.exists():
            blob.check(weights, references)
        else:
            with pytest.raises(MissingFileError):
                blob.check(weights, references)
    assert found


def test_a_file_of_zeros_holds_every_reference_and_little_room(tmp_path):
    wanted = [
        blob.Reference("w", 64, "fp16", (3, 5), "a"),
        blob.Reference("w", 192, "uint4", (7,), "b"),
        blob.Reference("w", 1 << 20, "int8", (1 << 20,), "c"),
    ]
    blob.write_zeros(tmp_path / "w", wanted)
    blob.check(tmp_path / "w", wanted)
    assert not blob.read(tmp_path / "w", wanted[0]).any()
    assert (tmp_path / "w").stat().st_blocks * 512 < 1 << 16
    with pytest.raises(FormatError, match="4 GiB"):
        blob.write_zeros(tmp_path / "w", [blob.Reference("w", 64, "fp16", (1 << 40,), "a")])
    with pytest.raises(FormatError, match="header"):
        blob.write_zeros(tmp_path / "w", [blob.Reference("w", 0, "fp16", (1,), "a")])
