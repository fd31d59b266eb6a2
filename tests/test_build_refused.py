"""anex.from_mlpackage and anex.from_mil: what is said of files and texts that are bad."""

import contextlib
import random
import re

import coremltools as ct
import numpy as np
import pytest
from mil_facts import HEADER, X, text

from anex import errors
from anex.load import from_mil, from_mlpackage
from anex.mil import blob


@pytest.mark.parametrize(
    ("body", "error", "message"),
    [
        (f"{X} y = frobnicate(x = x);", errors.UnsupportedError, "frobnicate 'y'.*nobody knows"),
        (f"{X} y = program(x = x);", errors.UnsupportedError, "program 'y'.*nobody knows"),
        (f"{X} y = custom_layer(x = x);", errors.UnsupportedError, "custom_layer 'y'.*nobody knows"),
        (f"{X} y = relu(x = z);", errors.FormatError, "'z'"),
        (f"{X} y = relu(x = y);", errors.FormatError, "'y'"),
        (f"{X} y = relu(x = h); {X} h = relu(x = x);", errors.FormatError, "'h'"),
        (f"{X} y = relu();", errors.CompileError, "relu 'y'.*Required input x is missing"),
        (f"{X} y = relu(q = x);", errors.CompileError, "relu 'y' has no argument 'q'; it takes x"),
        (f"{X} y = relu(x = x, name = x);", errors.CompileError, "no argument 'name'"),
        (f"{X} y = relu(x = x, before_op = x);", errors.CompileError, "no argument 'before_op'"),
        (f"{X} y = add(x = x, y = fp32(0x1p+0));", errors.CompileError, "add.*fp32"),
        (f"{X} y = add(x = x, y = tensor<fp16, [2]>([1, 2]));", errors.CompileError, "add 'y'.*Incompatible dim"),
        ("tensor<fp16, [8]> y = relu(x = x);", errors.CompileError, r"relu 'y': gives .*1,4,1,8.*declared"),
        (f"bf16 c = const()[val = bf16(1)]; {X} y = relu(x = x);", errors.UnsupportedError, "no bf16"),
        (
            "tensor<fp16, [1,1,1,1,4,8]> y = reshape(x = x, shape = tensor<int32, [6]>([1,1,1,1,4,8]));",
            errors.CompileError,
            "rank 6",
        ),
        (
            f'{X} y = add(x = x, y = tensor<fp16, [8]>(BLOBFILE(path=string("@model_path/../w"), offset=uint64(64))));',
            errors.FormatError,
            "leads out",
        ),
        (
            f'{X} y = add(x = x, y = tensor<fp16, [8]>(BLOBFILE(path=string("/etc/w"), offset=uint64(64))));',
            errors.FormatError,
            "leads out",
        ),
        (
            f'{X} y = add(x = x, y = tensor<fp16, [8]>(BLOBFILE(path=string("w.bin"), offset=uint64(64))));',
            errors.MissingFileError,
            "pass weights=",
        ),
    ],
)
def test_a_wrong_op_is_named_with_the_reason(body, error, message):
    with pytest.raises(error, match=message):
        from_mil(text(body))


@pytest.mark.parametrize(
    ("changes", "error", "message"),
    [
        ({"takes": "fp16 x"}, errors.UnsupportedError, "rank 0"),
        ({"takes": "list<fp16, 3> x"}, errors.UnsupportedError, "list"),
        ({"gives": "z"}, errors.FormatError, "z"),
        ({"opset": "ios99"}, errors.UnsupportedError, "opset"),
    ],
)
def test_a_wrong_signature_is_refused(changes, error, message):
    with pytest.raises(error, match=message):
        from_mil(text(f"{X} y = relu(x = x);", **changes))


def test_an_op_newer_than_the_opset_is_unsupported():
    body = f"{X} y = scaled_dot_product_attention(query = x, key = x, value = x);"
    with pytest.raises(errors.UnsupportedError, match="iOS18"):
        from_mil(text(body, opset="ios17"))


@pytest.mark.parametrize(
    "source", ["program(", "program(1.3)", "not MIL\nat all", HEADER, "/", "/nowhere/at.all", "\0"]
)
@pytest.mark.parametrize("read", [from_mil, from_mlpackage])
def test_what_is_neither_text_nor_a_model_is_refused(source, read):
    with pytest.raises((errors.FormatError, errors.MissingFileError)):
        read(source)


@pytest.mark.parametrize("source", [None, 3, ["a"]])
@pytest.mark.parametrize("read", [from_mil, from_mlpackage])
def test_what_is_no_path_is_an_argument_error(source, read):
    with pytest.raises(errors.ArgumentError, match="not a path"):
        read(source)


def test_a_path_that_does_not_exist_is_not_made(tmp_path):
    for read, name in ((from_mlpackage, "no.mlpackage"), (from_mil, "no.mlmodelc"), (from_mil, "no.mil")):
        with pytest.raises(errors.MissingFileError, match=name):
            read(tmp_path / name)
    assert not list(tmp_path.iterdir())


def test_the_wrong_reader_says_the_right_one(package, folder):
    with pytest.raises(errors.FormatError, match="from_mlpackage"):
        from_mil(package)
    with pytest.raises(errors.FormatError, match="from_mil"):
        from_mlpackage(folder)


def test_models_that_are_no_ml_programs_are_refused_by_kind(tmp_path):
    for kind in ("neuralNetwork", "pipeline", "glmRegressor"):
        model = ct.proto.Model_pb2.Model(specificationVersion=4)
        getattr(model, kind).SetInParent()
        (tmp_path / "m.mlmodel").write_bytes(model.SerializeToString())
        with pytest.raises(errors.UnsupportedError, match=kind):
            from_mlpackage(tmp_path / "m.mlmodel")
    (tmp_path / "p.mlmodelc" / "model0").mkdir(parents=True)
    (tmp_path / "p.mlmodelc" / "model0" / "model.mil").write_text("")
    with pytest.raises(errors.UnsupportedError, match=r"pipeline.*model0"):
        from_mil(tmp_path / "p.mlmodelc")


@pytest.mark.parametrize(
    ("name", "says"),
    [("Manifest.json", "no Manifest"), ("model.mlmodel", "does not exist"), ("weight.bin", "no .*weight.bin")],
)
def test_a_package_without_one_of_its_files_is_refused(package, name, says):
    next(package.rglob(name)).unlink()
    with pytest.raises((errors.MissingFileError, errors.FormatError), match=says):
        from_mlpackage(package)


@pytest.mark.parametrize("manifest", ["", "{", "[]", "{}", "null", '{"itemInfoEntries": 3}'])
def test_a_manifest_that_is_none_is_refused(package, manifest):
    (package / "Manifest.json").write_text(manifest)
    with pytest.raises(errors.FormatError, match="Manifest"):
        from_mlpackage(package)


@pytest.mark.parametrize("offset", [0, 1, 63, 65, 128, 10**9, 2**63, 2**64 - 1])
def test_an_offset_that_is_no_records_is_refused(folder, offset):
    path = folder / "model.mil"
    path.write_text(re.sub(r"offset = uint64\(64\)", f"offset = uint64({offset})", path.read_text()))
    with pytest.raises(errors.FormatError, match=str(offset)):
        from_mil(folder)


def test_a_weight_file_that_does_not_match_is_refused(folder, tmp_path):
    writer = blob.Writer(folder / "weights" / "weight.bin")
    writer.write(np.zeros(16, np.float32), "fp32")
    del writer
    with pytest.raises(errors.FormatError, match="fp32"):
        from_mil(folder)


@pytest.mark.parametrize("name", ["Manifest.json", "model.mlmodel", "weight.bin", "model.mil"])
def test_damage_is_answered_with_our_errors_only(name, package, folder):
    read, root = (from_mil, folder) if name == "model.mil" else (from_mlpackage, package)
    path = next(root.rglob(name))
    whole = path.read_bytes()
    random_ = random.Random(name)
    cuts = [random_.randrange(len(whole)) for _ in range(25)]
    damaged = [whole[:cut] for cut in cuts]
    for _ in range(60):
        changed = bytearray(whole)
        for _ in range(random_.choice([1, 1, 4])):
            changed[random_.randrange(len(changed))] = random_.randrange(256)
        damaged.append(bytes(changed))
    refused = 0
    for data in damaged:
        path.write_bytes(data)
        try:
            read(root)
        except errors.Error:
            refused += 1
    assert refused >= 20  # a flipped bit of a weight or a name is another model, not a bad one
    path.write_bytes(whole)
    assert read(root)


def test_every_token_of_a_text_may_be_another(folder):
    path = folder / "model.mil"
    tokens = re.findall(r"\s+|\w+|.", path.read_text())
    random_ = random.Random(5)
    for _ in range(80):
        changed = list(tokens)
        changed[random_.randrange(len(tokens))] = random_.choice([*tokens, ""])
        path.write_text("".join(changed))
        with contextlib.suppress(errors.Error):
            from_mil(folder)


def model_of(package):
    path = package / "Data" / "com.apple.CoreML" / "model.mlmodel"
    return path, ct.utils.load_spec(str(package))


def test_a_protobuf_that_uses_a_name_before_its_definition_is_refused(package):
    path, model = model_of(package)
    block = model.mlProgram.functions["main"].block_specializations["CoreML8"]
    reversed_ops = type(block)(operations=list(block.operations)[::-1])
    del block.operations[:]
    block.operations.MergeFrom(reversed_ops.operations)
    path.write_bytes(model.SerializeToString())
    with pytest.raises(errors.FormatError, match="not defined before it is used"):
        from_mlpackage(package)


def test_a_protobuf_that_defines_an_output_twice_is_refused(package):
    path, model = model_of(package)
    block = model.mlProgram.functions["main"].block_specializations["CoreML8"]
    block.operations.add().CopyFrom(next(op for op in block.operations if op.type == "softmax"))
    path.write_bytes(model.SerializeToString())
    with pytest.raises(errors.FormatError, match="'y' is defined twice"):
        from_mlpackage(package)


def test_a_protobuf_without_a_block_for_its_opset_is_refused(package):
    path, model = model_of(package)
    model.mlProgram.functions["main"].opset = "CoreML7"
    path.write_bytes(model.SerializeToString())
    with pytest.raises(errors.FormatError, match="no block for its opset 'CoreML7'"):
        from_mlpackage(package)
