"""anex.from_mlpackage and anex.from_mil: programs from files and text."""

import re
import shutil

import coremltools as ct
import numpy as np
import pytest
from coremltools.converters.mil.mil import Builder as mb
from mil_facts import (
    CORPUS,
    HEADER,
    X,
    assert_same,
    constants,
    inputs,
    main,
    names,
    ops,
    outputs,
    text,
    zero_weights,
)

from anex import errors, store
from anex.load import from_mil, from_mlpackage
from anex.mil import blob, from_text

# What is read ------------------------------------------------------------------------------------


def test_a_package_of_coremltools_own_is_read_with_its_names_dtypes_and_values(tmp_path):
    values = np.random.default_rng(1).normal(size=(4, 4, 1, 1)).astype(np.float16)

    @mb.program(
        input_specs=[mb.TensorSpec((1, 4, 1, 8), ct.converters.mil.mil.types.fp16)], opset_version=ct.target.iOS17
    )
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
    source = text(f"tensor<fp16, [16]> y = add(x = {value.format('a')}, y = {value.format('b')});", takes=f"{X} x")
    read = from_mil(source, weights=tmp_path)
    assert {key[1]: np.frombuffer(data, dtype)[0] for key, (dtype, _, data) in constants(read).items()} == {
        "x": 1,
        "y": 2,
    }
    with pytest.raises(errors.FormatError, match="one weight file"):
        from_mil(source, weights=tmp_path / "a" / "w.bin")


def test_inline_arguments_missing_names_and_unsorted_arguments_are_read():
    read = from_mil(
        text(f"""
        tensor<fp16, [1,2,1,8]> h = slice_by_size(size=tensor<int32, [4]>([1,2,1,8]), x=x,
                                                  begin=tensor<int32,[4]>([0,1,0,0]));
        {X} y = concat(values=(h, h), axis=int32(1), interleave=bool(false));""")
    )
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


def test_an_output_that_stands_twice_is_one():
    program = from_mil(text(f"{X} y = relu(x = x);", gives="y, y"))
    assert [output.name for output in program.functions["main"].outputs] == ["y"]


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
    read = from_mil(
        text("""
        fp16 a = reduce_sum(x=x, axes=tensor<int32, [4]>([0,1,2,3]), keep_dims=bool(false));
        fp16 y = while_loop(loop_vars=(a))
            (fp16 i) { bool c = less(x=i, y=fp16(0x1.8p+1)); } -> (c)
            (fp16 i) { fp16 c = add(x=i, y=a); } -> (c);""")
    )
    loop = main(read).find_ops(op_type="while_loop")[0]
    assert [[op.op_type for op in block.operations if op.op_type != "const"] for block in loop.blocks] == [
        ["less"],
        ["add"],
    ]
    assert loop.blocks[1].inputs[0] is loop.blocks[1].operations[-1].x


def test_one_of_several_functions_is_chosen(tmp_path):
    source = (
        HEADER
        + "{\n"
        + "".join(
            f"    func {name}<ios18>({X} x) {{ {X} y = {op}(x = x); }} -> (y);\n"
            for name, op in (("decode", "relu"), ("prefill", "exp"))
        )
        + "}\n"
    )
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
    read = from_mil(
        text(
            """
        tensor<fp16, [3]> old = read_state(input = s);
        tensor<fp16, [3]> new = add(x = old, y = x);
        write_state(data = new, input = s);
        tensor<fp16, [3]> y = read_state(input = s);""",
            takes="state<tensor<fp16, [3]>> s, tensor<fp16, [3]> x",
        )
    )
    assert [kind for kind, *_ in ops(read)] == ["read_state", "add", "coreml_update_state"]


@pytest.mark.parametrize("op", ["reduce_prod", "reduce_sum", "reduce_max", "reduce_min", "reduce_mean"])
def test_what_folds_while_it_is_read_folds_under_numpy_2_too(op):
    read = from_mil(
        text(
            f"""
        tensor<fp32, [2]> s = const()[val = tensor<fp32, [2]>([0x1p+0, 0x1p+1])];
        tensor<bool, []> keep = const()[val = tensor<bool, []>(true)];
        tensor<fp32, [1]> n = {op}(keep_dims = keep, x = s);
        tensor<fp16, [1]> m = cast(dtype = string("fp16"), x = n);
        tensor<fp16, [3]> y = add(x = x, y = m);""",
            takes="tensor<fp16, [3]> x",
        )
    )
    wanted = getattr(np, op.removeprefix("reduce_"))([1, 2])
    (found,) = [op.outputs[0].val for op in main(read).operations if op.outputs[0].name == "n"]
    assert found.tolist() == [wanted]


def test_a_file_gives_the_same_program_each_time(folder):
    assert str(names(from_mil(folder))) == str(names(from_mil(folder)))
