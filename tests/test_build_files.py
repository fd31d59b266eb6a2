"""anex.from_mlpackage and anex.from_mil: programs from files, and what is said of bad ones."""

import random
import re
import shutil

import coremltools as ct
import numpy as np
import pytest
from coremltools.converters.mil.mil import Builder as mb  # noqa: N813
from mil_facts import CORPUS, assert_same, constants, inputs, main, names, ops, outputs, zero_weights

import anex
from anex import errors, store
from anex.load import from_mil, from_mlpackage
from anex.mil import blob, from_text

HEADER = 'program(1.3)\n[buildInfo = dict<string, string>({{"coremlc-version", "3505.4.1"}})]\n'
X = "tensor<fp16, [1, 4, 1, 8]>"


def text(body, takes=f"{X} x", gives="y", opset="ios18"):
    return f"{HEADER}{{\n func main<{opset}>({takes}) {{\n{body}\n }} -> ({gives});\n}}\n"


@pytest.fixture(scope="module")
def program():
    weights = np.arange(64).reshape(4, 4, 2, 2) / 64

    @anex.graph(x=(1, 4, 2, 8), ids=anex.spec((3,), "int32"))
    def program(x, ids):
        h = mb.conv(x=x, weight=weights, pad_type="same")
        rows = mb.gather(x=np.linspace(0, 1, 40).reshape(10, 4), indices=ids, axis=0, name="rows")
        small = mb.less(x=mb.reduce_sum(x=x, keep_dims=False), y=3.0)
        z = mb.cond(pred=small, _true_fn=lambda: mb.relu(x=h), _false_fn=lambda: mb.exp(x=h), name="z")
        return mb.softmax(x=mb.concat(values=[h, h], axis=1), axis=1, name="y"), rows, z

    return program


@pytest.fixture
def package(program, tmp_path):
    store.save(program, tmp_path / "m.mlpackage")
    return tmp_path / "m.mlpackage"


@pytest.fixture
def folder(program, tmp_path):
    store.save(program, tmp_path / "m.mlmodelc")
    return tmp_path / "m.mlmodelc"


# What is read ------------------------------------------------------------------------------------


def test_a_package_of_coremltools_own_is_read_with_its_names_dtypes_and_values(tmp_path):
    values = np.random.default_rng(1).normal(size=(4, 4, 1, 1)).astype(np.float16)

    @mb.program(input_specs=[mb.TensorSpec((1, 4, 1, 8), ct.converters.mil.mil.types.fp16)],
                opset_version=ct.target.iOS17)
    def original(b):
        return mb.conv(x=b, weight=values, name="out")

    model = ct.convert(original, minimum_deployment_target=ct.target.iOS17, skip_model_load=True)
    model.save(str(tmp_path / "m.mlpackage"))
    read = from_mlpackage(tmp_path / "m.mlpackage")
    assert inputs(read) == [("b", (1, 4, 1, 8), "fp16")]
    assert outputs(read) == [("out", (1, 4, 1, 8), "fp16")]
    assert main(read).opset_version == ct.target.iOS17
    assert constants(read)["out", "weight", 0] == ("float16", (4, 4, 1, 1), values.tobytes())


def test_every_pair_of_a_protobuf_and_its_compiled_text_is_the_same_program(tmp_path, program):
    """Needs ../shared for Apple's own pairs; a program of ours is tried in any case."""
    store.save(program, tmp_path / "a.mlpackage")
    store.save(program, tmp_path / "b")
    assert_same(from_mlpackage(tmp_path / "a.mlpackage"), from_mil(tmp_path / "b"))
    for model in sorted(CORPUS.glob("pairs/*.mlmodel")):
        weights = model.with_suffix(".weight.bin")
        if not weights.exists():
            with pytest.raises(errors.MissingFileError, match=r"weight\.bin"):
                from_mlpackage(model)
            continue
        copy = tmp_path / model.stem
        (copy / "weights").mkdir(parents=True)
        shutil.copy(model, copy)
        shutil.copy(weights, copy / "weights" / "weight.bin")
        from_protobuf = from_mlpackage(copy / model.name)
        assert_same(from_protobuf, from_mil(model.with_suffix(".mil"), weights=weights))
        assert len(ops(from_protobuf)) > 30


def test_every_text_of_the_corpus_is_read(tmp_path):
    """Needs ../shared, whose texts come without weights: zeros of the right sizes stand in."""
    for number, path in enumerate(sorted(CORPUS.glob("*.mil"))):
        wanted = blob.references(from_text(path.read_text()))
        if wanted:
            with pytest.raises(errors.MissingFileError):
                from_mil(path)
        folder = tmp_path / str(number)
        folder.mkdir()
        shutil.copy(path, folder / "model.mil")
        zero_weights(folder, wanted)
        read = from_mil(folder)
        declared = re.search(r"func \w+<ios\d+>\((.*?)\)[ \[{]", path.read_text())[1]
        assert list(main(read).inputs) == re.findall(r"> (\w+)", declared)
        returned = re.findall(r"-> \(([^)]*)\);", path.read_text())[-1]
        assert [name for name, *_ in outputs(read)] == re.findall(r"\w+", returned)


@pytest.mark.parametrize("source", ["folder", "file", "text", "string path"])
def test_mil_is_read_from_a_folder_a_file_or_the_text_itself(folder, program, source):
    given = {
        "folder": (folder, None),
        "file": (folder / "model.mil", None),
        "string path": (str(folder), None),
        "text": ((folder / "model.mil").read_text(), folder),
    }[source]
    assert_same(from_mil(*given), program)


@pytest.mark.parametrize("given", ["weights", "weights/weight.bin", "."])
def test_weights_may_be_the_file_its_folder_or_the_models(folder, program, given):
    assert_same(from_mil((folder / "model.mil").read_text(), weights=folder / given), program)


def test_files_of_equal_names_in_two_folders_are_two_files(tmp_path):
    for name, value in (("a", 1), ("b", 2)):
        (tmp_path / name).mkdir()
        writer = blob.Writer(tmp_path / name / "w.bin")
        assert writer.write(np.full(16, value, np.float16), "fp16") == 64
        del writer
    value = 'tensor<fp16, [16]>(BLOBFILE(path=string("@model_path/{}/w.bin"), offset=uint64(64)))'
    source = text(
        f"tensor<fp16, [16]> y = add(x = {value.format('a')}, y = {value.format('b')});", takes=f"{X} x"
    )
    read = from_mil(source, weights=tmp_path)
    assert {key[1]: np.frombuffer(data, dtype)[0] for key, (dtype, _, data) in constants(read).items()} == {
        "x": 1,
        "y": 2,
    }
    with pytest.raises(errors.FormatError, match="one weight file"):
        from_mil(source, weights=tmp_path / "a" / "w.bin")


def test_inline_arguments_missing_names_and_unsorted_arguments_are_read():
    read = from_mil(text(f"""
        tensor<fp16, [1,2,1,8]> h = slice_by_size(size=tensor<int32, [4]>([1,2,1,8]), x=x,
                                                  begin=tensor<int32,[4]>([0,1,0,0]));
        {X} y = concat(values=(h, h), axis=int32(1), interleave=bool(false));"""))
    assert ops(read) == [("slice_by_size", "h", ["h"]), ("concat", "y", ["y"])]
    assert constants(read)["h", "begin", 0] == ("int32", (4,), np.array([0, 1, 0, 0], np.int32).tobytes())


def test_both_dialects_and_every_opset_are_read():
    for opset in ("ios15", "ios16", "ios17", "ios18"):
        old = text(f'{X} y = relu(x = x)[name = tensor<string, []>("r")];', opset=opset)
        old = old.replace("1.3", "1.0").replace("dict<string, string>", "dict<tensor<string, []>, tensor<string, []>>")
        for source in (old, text(f'{X} y = relu(x = x)[name = string("r")];', opset=opset)):
            read = from_mil(source)
            assert ops(read) == [("relu", "r", ["y"])]
            assert main(read).opset_version.name.lower() == opset


def test_attributes_of_functions_ops_and_blocks_are_dropped():
    source = text(f'{X} y = relu(x = x)[name = string("r"), colour = string("red")];')
    source = source.replace(") {\n", ') [FlexibleShapeInformation = tuple<string>(("x"))] {\n')
    assert ops(from_mil(source)) == [("relu", "r", ["y"])]


def test_doc_strings_are_dropped(program, package):
    spec_file = package / "Data" / "com.apple.CoreML" / "model.mlmodel"
    spec = ct.utils.load_spec(str(package))
    spec.mlProgram.docString = "what it is for"
    for op in spec.mlProgram.functions["main"].block_specializations["CoreML8"].operations:
        for value in op.attributes.values():
            value.docString = "and so on"
    spec_file.write_bytes(spec.SerializeToString())
    assert_same(from_mlpackage(package), program)


def test_names_in_sibling_blocks_may_be_the_same():
    read = from_mil(text("""
        fp16 a = reduce_sum(x=x, axes=tensor<int32, [4]>([0,1,2,3]), keep_dims=bool(false));
        fp16 y = while_loop(loop_vars=(a))
            (fp16 i) { bool c = less(x=i, y=fp16(0x1.8p+1)); } -> (c)
            (fp16 i) { fp16 c = add(x=i, y=a); } -> (c);"""))
    loop = main(read).find_ops(op_type="while_loop")[0]
    assert [[op.op_type for op in block.operations if op.op_type != "const"] for block in loop.blocks] == [
        ["less"],
        ["add"],
    ]
    assert loop.blocks[1].inputs[0] is loop.blocks[1].operations[-1].x


def test_one_of_several_functions_is_chosen(tmp_path):
    source = HEADER + "{\n" + "".join(
        f'    func {name}<ios18>({X} x) {{ {X} y = {op}(x = x); }} -> (y);\n'
        for name, op in (("decode", "relu"), ("prefill", "exp"))
    ) + "}\n"
    assert ops(from_mil(source, function="prefill")) == [("exp", "y", ["y"])]
    with pytest.raises(errors.ArgumentError, match="decode, prefill"):
        from_mil(source)
    with pytest.raises(errors.ArgumentError, match="'main' is none of decode, prefill"):
        from_mil(source, function="main")
    assert ops(from_mil(source.replace("decode", "main"))) == [("relu", "y", ["y"])]


def test_the_default_function_of_a_package_is_taken(package, program):
    path = package / "Data" / "com.apple.CoreML" / "model.mlmodel"
    spec = ct.utils.load_spec(str(package))
    functions = spec.mlProgram.functions
    functions["other"].CopyFrom(functions["main"])
    functions["third"].CopyFrom(functions["main"])
    functions["other"].block_specializations["CoreML8"].operations[0].attributes["name"].CopyFrom(
        ct.converters.mil.backend.mil.helper.create_scalar_value("renamed")
    )
    spec.description.defaultFunctionName = "other"
    path.write_bytes(spec.SerializeToString())
    assert list(from_mlpackage(package).functions) == ["main"]
    assert "renamed" in str(names(from_mlpackage(package)))
    assert "renamed" not in str(names(from_mlpackage(package, function="third")))


def test_states_are_read():
    read = from_mil(text("""
        tensor<fp16, [3]> old = read_state(input = s);
        tensor<fp16, [3]> new = add(x = old, y = x);
        write_state(data = new, input = s);
        tensor<fp16, [3]> y = read_state(input = s);""", takes="state<tensor<fp16, [3]>> s, tensor<fp16, [3]> x"))
    assert [kind for kind, *_ in ops(read)] == ["read_state", "add", "coreml_update_state"]


# What is refused ---------------------------------------------------------------------------------


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
        ({"gives": "y, y"}, errors.FormatError, "y"),
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


@pytest.mark.parametrize("source", ["program(", "program(1.3)", "not MIL\nat all", HEADER, "/", "/nowhere/at.all", "\0"])
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
    with pytest.raises(errors.UnsupportedError, match="pipeline.*model0"):
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
        try:
            from_mil(folder)
        except errors.Error as error:
            assert str(error)
