"""anex.store: programs to protobuf, text, files and bytes, and back."""

import copy
import os
import pickle
import random
import threading

import coremltools as ct
import numpy as np
import pytest
from coremltools.converters.mil.mil import Builder as mb
from coremltools.converters.mil.mil import types
from mil_facts import CORPUS, assert_same, inputs, main, names, ops, outputs

import anex
from anex import errors, store
from anex.load import from_mil, from_mlpackage
from anex.mil import blob, from_text

X = (1, 4, 2, 8)


def feed_forward():
    w = np.random.default_rng(0).normal(size=(16, 4, 1, 1))

    @anex.graph(x=X, ids=anex.spec((3,), "int32"))
    def program(x, ids):
        h = mb.gelu(x=mb.conv(x=x, weight=w), mode="TANH_APPROXIMATION")
        y = mb.add(x=x, y=mb.conv(x=h, weight=w.transpose(1, 0, 2, 3)), name="y")
        return y, mb.sigmoid(x=mb.mul(x=y, y=mb.sigmoid(x=y))), mb.add(x=ids, y=1, name="next")

    return program


def control_flow():
    @anex.graph("iOS17", x=X)
    def program(x):
        total = mb.reduce_sum(x=x, keep_dims=False)
        n = mb.while_loop(_cond=lambda i: mb.less(x=i, y=9.0), _body=lambda i: mb.add(x=i, y=1.0), loop_vars=(total,))
        return mb.cond(pred=mb.less(x=n, y=3.0), _true_fn=lambda: mb.relu(x=x), _false_fn=lambda: mb.exp(x=x), name="y")

    return program


def compressed():
    @anex.graph(x=X)
    def program(x):
        rng = np.random.default_rng(2)
        nibbles = types.np_int4_dtype
        data = rng.integers(-8, 8, (8, 4, 1, 1)).astype(nibbles)
        scale = rng.normal(size=(8, 1, 1, 1)).astype(np.float16)
        return mb.conv(x=x, weight=mb.constexpr_blockwise_shift_scale(data=data, scale=scale), name="y")

    return program


def old_opset():
    @anex.graph("iOS16", x=X)
    def program(x):
        data = np.arange(32, dtype=np.int8).reshape(8, 4, 1, 1)
        weight = mb.constexpr_affine_dequantize(
            quantized_data=data, zero_point=np.int8(3), scale=np.float16(0.5), axis=0
        )
        return mb.conv(x=x, weight=weight, name="y")

    return program


PROGRAMS = [feed_forward, control_flow, compressed, old_opset]


@pytest.fixture(params=PROGRAMS)
def program(request):
    return request.param()


# There and back ----------------------------------------------------------------------------------


def test_a_program_comes_back_from_a_package(program, tmp_path):
    store.save(program, tmp_path / "m.mlpackage")
    assert_same(from_mlpackage(tmp_path / "m.mlpackage"), program)


@pytest.mark.parametrize("name", ["m.mlmodelc", "folder"])
def test_a_program_comes_back_from_a_folder_of_text(program, tmp_path, name):
    store.save(program, str(tmp_path / name))
    assert_same(from_mil(tmp_path / name), program)
    assert {path.name for path in (tmp_path / name).iterdir()} == {"model.mil", "weights"}


def test_a_program_comes_back_from_its_text_and_weights(program, tmp_path):
    text, weights = store.to_text(program)
    (tmp_path / "w.bin").write_bytes(weights)
    assert_same(from_mil(text, weights=tmp_path / "w.bin"), program)
    assert store.text(program) == text


def test_a_program_comes_back_from_bytes(program):
    assert_same(store.loads(store.dumps(program)), program)
    assert main(store.loads(store.dumps(program))).opset_version == main(program).opset_version


def test_a_compiled_program_comes_back_from_a_pickle():
    with anex.compile(feed_forward()) as compiled, pickle.loads(pickle.dumps(compiled)) as again:
        x, ids = np.ones(X, np.float16), np.arange(3, dtype=np.int32)
        for a, b in zip(compiled(x, ids), again(x, ids), strict=True):
            np.testing.assert_array_equal(np.asarray(a), np.asarray(b))


def test_every_pair_of_the_corpus_comes_back(tmp_path):
    """Needs ../shared; the programs above are the small case beside it."""
    for number, path in enumerate(sorted(CORPUS.glob("pairs/*.mil"))):
        weights = path.with_suffix(".weight.bin")
        if weights.exists():
            program = from_mil(path, weights=weights)
            store.save(program, tmp_path / f"{number}.mlpackage")
            assert_same(from_mlpackage(tmp_path / f"{number}.mlpackage"), program)
            assert_same(store.loads(store.dumps(program)), program)


def test_what_coremltools_reads_of_a_package_is_what_was_saved(tmp_path):
    store.save(feed_forward(), tmp_path / "m.mlpackage")
    spec = ct.utils.load_spec(str(tmp_path / "m.mlpackage"))
    described = [(i.name, list(i.type.multiArrayType.shape)) for i in spec.description.input]
    assert described == [("x", list(X)), ("ids", [3])]
    half = ct.proto.FeatureTypes_pb2.ArrayFeatureType.FLOAT16
    assert [o.type.multiArrayType.dataType == half for o in spec.description.output] == [True, True, False]
    assert spec.specificationVersion == ct.target.iOS18
    ct.models.MLModel(str(tmp_path / "m.mlpackage"), skip_model_load=True)


def test_the_text_says_where_its_weights_are():
    text, weights = store.to_text(feed_forward())
    wanted = blob.references(from_text(text))
    assert list(wanted) == ["@model_path/weights/weight.bin"]
    assert len(wanted["@model_path/weights/weight.bin"]) == 2
    assert len(weights) > 2 * 64 * 2
    text, weights = store.to_text(anex.graph(x=X)(lambda x: mb.relu(x=x)))
    assert (blob.references(from_text(text)), weights) == ({}, b"")


def test_the_text_is_the_same_each_time():
    assert store.to_text(feed_forward()) == store.to_text(feed_forward())


# Other people's programs -------------------------------------------------------------------------


def untidy():
    """A program of coremltools' builder with names MIL text cannot hold, and two that are one."""

    @mb.program(input_specs=[mb.TensorSpec((2, 3)), mb.TensorSpec((3,))])
    def program(state, unused):
        a = mb.add(x=state, y=1.0, name="layer/1:0")
        b = mb.add(x=a, y=2.0, name="layer/1:0")
        return mb.greater(x=b, y=0.0, name="7 out")

    return program


def test_saving_changes_nothing_in_the_program(program, tmp_path):
    for made in (program, untidy()):
        before, described = names(made), str(made)
        store.to_text(made)
        store.dumps(made)
        store.save(made, tmp_path / "m.mlpackage")
        store.save(made, tmp_path / "m")
        assert names(made) == before
        assert str(made) == described
        made.validate()


def test_illegal_and_repeated_names_are_made_legal_in_what_is_written(tmp_path):
    store.save(untidy(), tmp_path / "m")
    read = from_mil(tmp_path / "m")
    assert [kind for kind, *_ in ops(read)] == ["add", "add", "greater"]
    assert len({op.name for op in main(read).operations}) == len(main(read).operations)
    assert [name for name, *_ in inputs(read)] == ["state_workaround", "unused"]
    assert [name for name, *_ in outputs(read)] == ["var_7_out"]
    assert main(read).opset_version == ct.target.iOS15  # the first that knows MIL


def test_the_edges_of_a_package_are_what_core_ml_takes(tmp_path):
    store.save(untidy(), tmp_path / "m.mlpackage")
    read = from_mlpackage(tmp_path / "m.mlpackage")
    assert sorted(kind for kind, *_ in ops(read)) == ["add", "add", "cast", "greater", "identity"]
    assert outputs(read) == [("var_7_out", (2, 3), "fp32")]
    half = anex.graph(x=X)(lambda x: mb.relu(x=x, name="y"))
    store.save(half, tmp_path / "half.mlpackage")
    assert outputs(from_mlpackage(tmp_path / "half.mlpackage")) == [("y", X, "fp16")]


def test_a_program_under_another_functions_name_is_saved(tmp_path):
    @mb.program(input_specs=[mb.TensorSpec((2, 3))], function_name="other")
    def program(x):
        return mb.relu(x=x, name="y")

    store.save(program, tmp_path / "m")
    assert ops(from_mil(tmp_path / "m")) == ops(store.loads(store.dumps(program))) == [("relu", "y", ["y"])]


def test_threads_may_save_one_program_at_once(tmp_path):
    made, failures = untidy(), []
    expected = store.to_text(made)

    def work():
        try:
            assert store.to_text(made) == expected
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failures


# Files that are there ----------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["m.mlpackage", "m.mlmodelc", "m"])
def test_an_older_model_is_replaced_and_nothing_is_left_behind(tmp_path, name):
    read = from_mlpackage if name.endswith("package") else from_mil
    for made in (feed_forward(), control_flow()):
        store.save(made, tmp_path / name)
        assert_same(read(tmp_path / name), made)
    assert [path.name for path in tmp_path.iterdir()] == [name]


def test_a_failure_leaves_the_older_model(tmp_path, monkeypatch):
    store.save(feed_forward(), tmp_path / "m")
    broken = untidy()
    main(broken).outputs[0].op.name = None
    with pytest.raises(errors.CompileError):
        store.save(broken, tmp_path / "m")
    assert_same(from_mil(tmp_path / "m"), feed_forward())
    assert [path.name for path in tmp_path.iterdir()] == ["m"]


@pytest.mark.parametrize("name", ["m.mlpackage", "m"])
def test_what_is_no_model_is_not_replaced(tmp_path, name):
    (tmp_path / name).mkdir()
    (tmp_path / name / "thesis.tex").write_text("years of work")
    with pytest.raises(errors.ArgumentError, match="not a saved model"):
        store.save(feed_forward(), tmp_path / name)
    assert (tmp_path / name / "thesis.tex").read_text() == "years of work"
    (tmp_path / "file").write_text("")
    with pytest.raises(errors.ArgumentError, match="not a saved model"):
        store.save(feed_forward(), tmp_path / "file")


def test_a_folder_that_does_not_exist_is_not_made(tmp_path):
    with pytest.raises(errors.MissingFileError, match="nowhere"):
        store.save(feed_forward(), tmp_path / "nowhere" / "m.mlpackage")
    assert not list(tmp_path.iterdir())


def test_a_folder_that_cannot_be_written_is_our_error(tmp_path):
    if os.geteuid() == 0:  # root may write anywhere but there
        target = "/proc/m.mlpackage"
    else:
        tmp_path.chmod(0o500)
        target = tmp_path / "m.mlpackage"
    with pytest.raises(errors.Error, match="cannot write"):
        store.save(feed_forward(), target)


def test_damaged_bytes_are_refused():
    whole = store.dumps(feed_forward())
    random_ = random.Random(4)
    for _ in range(100):
        data = bytearray(whole)
        data[random_.randrange(len(data))] ^= 1 << random_.randrange(8)
        for damaged in (bytes(data), whole[: random_.randrange(len(whole))]):
            try:
                read = store.loads(damaged)
            except errors.Error:
                continue
            assert_same(read, feed_forward())  # a bit that nobody reads, such as a date
    for nothing in (b"", b"PK", copy.copy(whole)[:-1]):
        with pytest.raises(errors.FormatError):
            store.loads(nothing)
