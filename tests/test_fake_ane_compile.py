"""The stand-in for the framework, asked directly: descriptors, compiling, the cache."""

import os
import shutil
import sys
from pathlib import Path

import numpy as np
import pytest

if not shutil.which("clang-19") or sys.platform != "linux":
    pytest.skip("the stand-in is built with clang-19 and GNUstep on Linux", allow_module_level=True)

import fake_ane
from fake_client import (
    RUNTIME,
    SUBTRACTION,
    WEIGHT,
    Answer,
    Model,
    Surface,
    blob,
    child,
    descriptor,
    main,
    request,
    text,
    with_weight,
)
from fake_client import fresh as fresh  # a fixture of every test here

ONES = np.ones((4, 8), np.float16)
COMPILER = "com.apple.appleneuralengine.compiler"


# ---- descriptors, compiling, the cache


def test_descriptors_refuse_what_the_framework_refuses():
    make = "modelWithMILText:weights:optionsPlist:"
    source, empty = RUNTIME.data(SUBTRACTION), RUNTIME.dictionary()
    no_pair = RUNTIME.dictionary({WEIGHT: RUNTIME.dictionary()})
    for words, weights in ((source, None), (RUNTIME.text("a string"), empty), (None, empty), (source, no_pair)):
        assert RUNTIME.send("_ANEInMemoryModelDescriptor", make, words, weights, None) is None
    assert RUNTIME.send("_ANEInMemoryModel", "inMemoryModelWithDescriptor:", None) is None


def test_the_identifier_follows_from_what_the_program_holds():
    def identifier(*arguments):
        return RUNTIME.string(RUNTIME.send(descriptor(*arguments), "hexStringIdentifier"))

    weight = with_weight()
    name = identifier(weight, {WEIGHT: blob(ONES)})
    assert [len(part) for part in name.split("_")] == [64, 64, 64]
    assert identifier(weight, {WEIGHT: blob(ONES)}) == name
    assert identifier(weight, {WEIGHT: blob(2 * ONES)}) != name
    with fake_ane.switched(hash_case="upper"):
        assert identifier(weight, {WEIGHT: blob(ONES)}) == name.upper()


@pytest.mark.parametrize(
    ("source", "value", "why"),
    [
        (with_weight(), blob(ONES, magic=1), "0xDEADBEEF"),
        (with_weight(), blob(ONES, start=4096), "outside the file"),
        (with_weight(), blob(ONES)[:100], "past the end"),
        (with_weight(96), blob(ONES), "aligned"),
        (with_weight(1 << 20), blob(ONES), "past the end"),
        (text(main("garbage")), None, "garbage"),
    ],
)
def test_wrong_programs_and_weights_do_not_compile(source, value, why):
    model = Model(source, {WEIGHT: value} if value else None).write_files()
    answer = model.compile()
    assert (answer.ok, answer.domain) == (False, COMPILER)
    assert "_ANECompiler : ANECCompile() FAILED" in answer.text
    assert "InvalidMILProgram" in answer.text
    assert why in fake_ane.reason()
    assert not model.has()
    model.remove_files()


def test_the_directory_must_hold_what_the_descriptor_was_given():
    model = Model(with_weight(), {WEIGHT: blob(ONES)})
    assert not model.compile().ok
    model.write_files()
    (model.path / "model.mil").write_bytes(model.source + b"\n")
    assert not model.compile().ok
    model.write_files()
    (model.path / "weights/weight.bin").unlink()
    assert not model.compile().ok
    assert model.write_files().compile().ok
    assert (model.path / "net.plist").read_bytes() == model.source
    assert (model.path / "data").read_bytes() == blob(ONES)
    model.remove_files()


def test_a_directory_that_cannot_be_written_is_refused_without_an_error():
    model = Model()
    model.path.write_text("in the way")
    assert model.compile() == Answer(False)
    assert "cannot be written" in fake_ane.reason()
    model.path.unlink()


def test_ops_can_be_rejected():
    with fake_ane.switched(reject="softmax,sub"):
        model = Model().write_files()
        assert "InvalidMILProgram" in model.compile().text
    assert model.compile().ok
    model.remove_files()


def test_axes_that_are_too_long_for_the_chip():
    kind = "tensor<fp16, [1, 1, 1, 20000]>"
    model = Model(text(main(f'{kind} y = abs(x = x)[name = string("y")];', parameters=f"{kind} x"))).write_files()
    for arch, is_limited, compiles in (("h13g", True, False), ("h16g", True, True), ("h13g", False, True)):
        with fake_ane.switched(arch=arch, chip_limits=is_limited):
            assert model.compile().ok == compiles
    model.remove_files()


def test_one_compilation_too_many_is_refused_without_an_error():
    model = Model().write_files()
    with fake_ane.switched(compile_limit=3):
        assert [model.compile().ok for _ in range(4)] == [True, True, True, False]
        assert model.compile() == Answer(False)
    with fake_ane.switched(compile_limit=False):
        assert model.compile().ok
    model.remove_files()


def test_a_compiled_program_loads_without_its_files_in_another_process(tmp_path):
    with fake_ane.switched(cache_dir=tmp_path / "cache"):
        Model().ready().unload()
    code = "with RUNTIME.pool():\n    m = Model()\n    print(m.has(), m.load().ok, m.path.exists())"
    assert child(code, cache_dir=tmp_path / "cache") == ["True", "True", "False"]
    assert child(code) == ["False", "False", "True"]
    Model().remove_files()
    with fake_ane.switched(cache_dir=tmp_path / "cache"):
        model = Model()
        RUNTIME.send(model.id, "purgeCompiledModel", result=None)
        assert not model.has()
        assert model.load().code == 17
        model.remove_files()
    assert child(code, cache_dir=tmp_path / "cache")[0] == "False"
    Model().remove_files()


def test_the_cache_of_a_killed_process_is_swept_by_the_next():
    code = "import os\nwith RUNTIME.pool():\n    m = Model().write_files()\n    assert m.compile().ok"
    code += "\n    m.remove_files()"
    (gone,) = child(f"{code}\nprint(os.getpid(), flush=True)\nos._exit(0)")
    assert list(Path(os.environ["TEMP"]).glob(f"fake_ane_cache_{gone}_*"))
    child(code)
    assert not list(Path(os.environ["TEMP"]).glob(f"fake_ane_cache_{gone}_*"))


def test_a_loaded_program_keeps_the_weights_it_was_compiled_with():
    model = Model(with_weight(), {WEIGHT: blob(ONES)}).ready()
    (model.path / "weights/weight.bin").write_bytes(blob(5 * ONES))
    model.unload()
    assert not model.path.exists()
    assert model.load().ok
    x, y = Surface().write(ONES), Surface()
    assert model.evaluate(request([(x, 0)], [(y, 0)])).ok
    assert (y.rows(4, 8) == 2).all()
    model.unload()
