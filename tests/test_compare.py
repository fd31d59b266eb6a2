"""Two programs op by op: measures, the float32 twin against torch, intermediates, and who made an error."""

import json

import coremltools as ct
import numpy as np
import pytest
import torch
from coremltools.converters.mil.mil import types
from models.sequence import Bert
from models.vision import ResNet18
from torch import nn

import anex
from anex import mb
from anex.comparison import inputs
from anex.comparison.compare import Side, compare, outputs, sides
from anex.comparison.metrics import difference, plain
from anex.comparison.runs import copied, isolated, operands, parts
from anex.comparison.shapes import fixed
from anex.comparison.widen import widen
from anex.load import default_shapes, from_file

pytestmark = pytest.mark.cpu_engine


# ---- measures ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", ["float16", "float32"])
@pytest.mark.parametrize("steps", [1, 2, 7])
def test_an_error_of_n_representable_numbers_is_n_ulp(rng, dtype, steps):
    x = (1 + np.abs(rng.normal(size=50)) % 0.9).astype(dtype)  # no power of two between the two
    found = x.copy()
    for _ in range(steps):
        found = np.nextafter(found, np.array(np.inf, dtype))
    assert difference(x.astype(np.float64), found).max_ulp == steps


def test_a_rounded_value_is_half_an_ulp_off_at_most(rng):
    exact = rng.normal(size=5000) * np.exp2(rng.integers(-20, 15, 5000))
    found = difference(exact, exact.astype(np.float16))
    assert 0.4 < found.max_ulp <= 0.5
    assert found.nonfinite == 0


def test_measures_are_those_of_numpy(rng):
    reference, found = rng.normal(size=(3, 40)), rng.normal(size=(3, 40)).astype(np.float32)
    d, off = difference(reference, found), np.abs(reference - found)
    assert d.max_abs == off.max()
    assert d.mean_abs == pytest.approx(off.mean())
    assert d.relative == pytest.approx(np.linalg.norm(off) / np.linalg.norm(reference))
    assert d.max_relative == pytest.approx(off.max() / np.abs(reference).max())
    cosine = torch.cosine_similarity(torch.tensor(reference.ravel()), torch.tensor(found.ravel().astype(float)), 0)
    assert d.cosine == pytest.approx(float(cosine))


def test_what_is_infinite_in_one_alone_is_counted_and_in_both_is_not():
    reference = np.array([np.inf, -np.inf, np.nan, 1.0, 70000.0])
    d = difference(reference, np.array([np.inf, np.inf, np.nan, 1.0, np.inf], np.float16))
    assert (d.nonfinite, d.relative, d.max_abs) == (2, np.inf, 0)
    assert plain({"a": [d.relative, float("nan"), 1.5]}) == {"a": [None, None, 1.5]}
    json.dumps(plain(vars(d)), allow_nan=False)


def test_of_integers_the_share_that_differs_is_measured():
    assert difference(np.array([1, 2, 3, 4]), np.array([1, 2, 3, 9])).relative == 0.25


# ---- the float32 twin --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("case", ["vision", "sequence"])
def test_the_float32_twin_computes_what_torch_does_with_the_same_rounded_weights(case, rng):
    torch.manual_seed(3)
    if case == "vision":
        module, x = ResNet18(8, 10).eval(), rng.normal(size=(1, 3, 32, 32)).astype(np.float16)
        for each in module.modules():  # so that folding them into weights, which are then rounded, changes nothing
            if isinstance(each, nn.BatchNorm2d):
                nn.init.ones_(each.running_var).mul_(1 - each.eps)
    else:
        module = nn.Sequential(nn.Linear(32, 64), nn.GELU(), nn.LayerNorm(64), nn.Linear(64, 8), nn.Softmax(-1)).eval()
        x = rng.normal(size=(2, 5, 32)).astype(np.float16)
    module.half().float()
    program = anex.from_torch(module, x=x.shape)
    (found,) = (
        Side(widen(program)).results({next(iter(program.functions["main"].inputs)): x.astype(np.float32)}).values()
    )
    expected = module(torch.tensor(x.astype(np.float32))).detach().numpy()
    np.testing.assert_allclose(found, expected, atol=2e-5 * np.abs(expected).max())


def test_the_twin_has_every_op_by_its_name_in_float32_and_leaves_the_program_alone():
    @anex.graph(x=(2, 3))
    def program(x):
        def body(i, z):
            return mb.add(x=i, y=1), mb.cast(x=mb.mul(x=z, y=2.0, name="doubled"), dtype="fp16", name="fp16")

        y = mb.while_loop(_cond=lambda i, z: mb.less(x=i, y=3), _body=body, loop_vars=(0, x))[1]
        return mb.linear(x=y, weight=np.ones((500, 3), np.float16), name="y")

    before = str(program)
    twin = widen(program)
    assert str(program) == before
    assert "fp16" not in {str(types.builtin_to_string(v.dtype)) for v in values(twin)}
    assert [op.name for op in twin.functions["main"].operations if op.blocks] == [
        op.name for op in program.functions["main"].operations if op.blocks
    ]
    x = np.array([[1, 2, 3], [4, 5, 60000]], np.float32)
    expected = np.repeat(x.sum(1, keepdims=True) * 8, 500, 1)  # 480088 is no float16
    np.testing.assert_array_equal(Side(twin).results({"x": x})["y"], expected)


def values(program):
    def walk(block):
        for op in block.operations:
            yield from (var for var in op.outputs if hasattr(var, "dtype"))
            for inner in op.blocks:
                yield from walk(inner)

    return walk(program.functions["main"])


@pytest.mark.parametrize("kind", ["affine", "blocks", "palette", "sparse"])
def test_compressed_weights_keep_their_values_in_the_twin(kind, rng):
    w = rng.normal(size=(8, 64)).astype(np.float16)
    program = linear_of(kind, w)
    x = rng.normal(size=(2, 64)).astype(np.float16)
    here, there = Side(copied(program)), Side(widen(program))
    half, wide = here.results({"x": x})["y"], there.results({"x": x.astype(np.float32)})["y"]
    np.testing.assert_allclose(half, wide, atol=0.02)


def linear_of(kind, w):
    @anex.graph(x=(2, 64))
    def program(x):
        if kind == "affine":
            weight = mb.constexpr_affine_dequantize(
                quantized_data=(w * 20).astype(np.int8), zero_point=np.int8(2), scale=np.float16(0.05), axis=0
            )
        elif kind == "blocks":
            weight = mb.constexpr_blockwise_shift_scale(
                data=(w * 20).astype(np.int8), scale=np.full((8, 2), 0.05, np.float16)
            )
        elif kind == "palette":
            table = np.linspace(-2, 2, 16).astype(np.float16).reshape(1, 1, 16, 1)
            indices = types.nptype_from_builtin(types.uint4)
            weight = mb.constexpr_lut_to_dense(indices=(np.abs(w) * 3).astype(np.uint8).astype(indices), lut=table)
        else:
            mask = (np.abs(w) > 1).astype(types.nptype_from_builtin(types.uint1))
            weight = mb.constexpr_sparse_to_dense(nonzero_data=w[np.abs(w) > 1], mask=mask)
        return mb.linear(x=x, weight=weight, name="y")

    return program


# ---- intermediates -----------------------------------------------------------------------------------------------


def test_intermediates_are_those_of_programs_cut_off_there_whatever_the_budget(rng):
    program = anex.from_torch(ResNet18(4, 10).eval(), x=(1, 3, 16, 16))
    tested, reference = sides(program, options={"strict": True})
    x = {"x": rng.normal(size=(1, 3, 16, 16)).astype(np.float16)}
    whole = compare(tested, reference, x)
    assert len(whole) == len(tested.ops)
    assert compare(tested, reference, x, budget=1) == compare(tested, reference, x, budget=10_000) == whole
    assert tested.function.outputs == tested.outputs
    assert len(list(parts(tested.ops, 1))) == len(tested.ops)
    some = whole[len(whole) // 2]
    cut = copied(program)
    main = cut.functions["main"]
    main.set_outputs([var for op in main.operations for var in op.outputs if var.name == some.output])
    expected = np.asarray(anex.compile(cut, strict=True)(x["x"]))
    np.testing.assert_array_equal(
        tested.values([v for op in tested.ops for v in op.outputs if v.name == some.output], x)[some.output], expected
    )


def test_an_op_alone_gives_what_it_would_for_the_values_it_is_given(rng):
    @anex.graph(x=(4, 6))
    def program(x):
        y = mb.softmax(x=mb.mul(x=x, y=3.0, name="three"), axis=-1, name="soft")
        return mb.matmul(x=y, y=mb.transpose(x=y, perm=[1, 0], name="turned"), name="y")

    ops = Side(copied(program)).ops
    given = {var.name: rng.normal(size=tuple(var.shape)).astype(np.float16) for op in ops for var in operands(op)}
    found = isolated(ops, given)
    np.testing.assert_allclose(found["three"], given["x"] * np.float16(3))
    np.testing.assert_array_equal(found["turned"], given["soft"].T)
    np.testing.assert_allclose(
        found["y"], given["soft"].astype(np.float32) @ given["turned"].astype(np.float32), rtol=2e-3, atol=2e-3
    )


@pytest.mark.parametrize("broken", range(3))
def test_the_op_that_was_broken_makes_the_error_and_those_behind_it_inherit(rng, broken):
    weights = [rng.normal(size=(16, 16, 1, 1)).astype(np.float16) / 4 for _ in range(3)]

    def build(weights):
        @anex.graph(x=(1, 16, 1, 8))
        def program(x):
            for i, w in enumerate(weights):
                x = mb.relu(x=mb.conv(x=x, weight=w, name=f"conv{i}"), name=f"relu{i}")
            return x

        return program

    wrong = [w.copy() for w in weights]
    wrong[broken][3] *= -1
    tested, reference = sides(build(wrong), build(weights))
    found = compare(tested, reference, inputs.drawn(tested.function))
    off = [op for op in found if op.total.relative > 0.01]
    assert off[0].name == f"conv{broken}"
    assert off[0].makes
    assert not any(op.makes for op in off[1:])
    assert all(op.own.relative < 1e-3 for op in off[1:])
    assert [op.name for op in off] == [op.name for op in found[2 * broken :]]
    assert outputs(tested, reference, inputs.drawn(tested.function))["relu2"].relative > 0.01


def test_ops_with_blocks_and_states_and_shapes_that_data_decide_are_compared_too(rng):
    @anex.graph(x=(2, 3))
    def control(x):
        y = mb.cond(
            pred=is_positive(x), _true_fn=lambda: mb.mul(x=x, y=x), _false_fn=lambda: mb.add(x=x, y=x), name="c"
        )
        return mb.exp(x=y, name="y")

    @anex.graph(x=(2, 3))
    def dynamic(x):
        rows = mb.non_zero(x=mb.cast(x=mb.greater(x=x, y=np.float16(0)), dtype="fp16"))
        return mb.cast(x=mb.mul(x=rows, y=2), dtype="fp16", name="y")

    for program in (control, dynamic):
        tested, reference = sides(program)
        found = compare(tested, reference, {"x": rng.normal(size=(2, 3)).astype(np.float16)})
        assert found[-1].name == "y"
        assert all(op.total.relative < 1e-3 for op in found)


def is_positive(x):
    return mb.greater(x=mb.reduce_sum(x=mb.mul(x=x, y=x), axes=[0, 1]), y=np.float16(-1))


def test_states_are_zero_at_first_and_compared():
    @mb.program(
        input_specs=[mb.TensorSpec((2, 3), types.fp16), mb.StateTensorSpec((2, 3), types.fp16)],
        opset_version=ct.target.iOS18,
    )
    def program(x, state):
        kept = mb.add(x=mb.read_state(input=state), y=x, name="kept")
        mb.coreml_update_state(state=state, value=kept)
        return mb.mul(x=kept, y=kept, name="y")

    tested, reference = sides(program)
    x = np.array([[1, 2, 3], [4, 5, 6]], np.float16)
    found = {op.name: op for op in compare(tested, reference, {"x": x})}
    assert found["y"].total.exact
    assert tested.results({"x": x})["y"].tolist() == (x * x).tolist()


# ---- inputs ------------------------------------------------------------------------------------------------------


def test_tokens_are_drawn_from_the_rows_that_a_table_has():
    class Model(nn.Module):
        def __init__(self):
            super().__init__()
            self.words, self.places = nn.Embedding(11, 4), nn.Embedding(300, 4)

        def forward(self, tokens, places, mask):
            return (self.words(tokens) + self.places(places + 7)) * mask.unsqueeze(-1).float()

    shape = anex.spec((2, 500), "int32")
    program = anex.from_torch(Model(), tokens=shape, places=shape, mask=shape)
    found = inputs.drawn(program.functions["main"], 5)
    assert (found["tokens"].min(), found["tokens"].max()) == (0, 10)
    assert found["places"].min() == 0
    assert 250 < found["places"].max() < 293
    assert set(found["mask"].ravel()) == {0, 1}
    again = inputs.drawn(program.functions["main"], 5)
    assert all((found[name] == again[name]).all() for name in found)
    assert (inputs.drawn(program.functions["main"], 6)["tokens"] != found["tokens"]).any()
    assert np.isfinite(np.asarray(anex.compile(program)(**found), np.float64)).all()


def test_floats_are_standard_normal_and_integers_that_index_fit():
    @anex.graph(x=(100, 100), i=anex.spec((50,), "int32"), b=anex.spec((1,), "int32"), f=anex.spec((9,), "bool"))
    def program(x, i, b, f):
        hot = mb.one_hot(indices=i, one_hot_vector_size=5)
        cut = mb.slice_by_size(x=x, begin=mb.concat(values=[b, b], axis=0), size=[90, 80])
        return (
            mb.cast(x=hot, dtype="fp16", name="h"),
            mb.identity(x=cut, name="c"),
            mb.cast(x=f, dtype="fp16", name="g"),
        )

    drawn = inputs.drawn(program.functions["main"])
    assert abs(drawn["x"].astype(float).mean()) < 0.05
    assert abs(drawn["x"].astype(float).std() - 1) < 0.05
    assert drawn["i"].max() == 4
    assert 0 <= drawn["b"][0] <= 10
    assert drawn["f"].dtype == bool


def test_given_inputs_that_do_not_fit_are_refused_in_one_sentence(tmp_path):
    @anex.graph(x=(2, 3), i=anex.spec((1,), "int8"))
    def program(x, i):
        return mb.mul(x=x, y=mb.cast(x=i, dtype="fp16"))

    main = program.functions["main"]
    x, i = np.ones((2, 3)), np.array([4])
    assert inputs.checked({"x": x, "i": i}, main)["x"].dtype == np.float16
    for given, kind, text in [
        ({"x": x}, anex.ArgumentError, "i missing"),
        ({"x": x, "i": i, "z": i}, anex.ArgumentError, "z unknown"),
        ({"x": x.T, "i": i}, anex.ShapeError, "'x' has the shape"),
        ({"x": x, "i": np.array([300])}, anex.DTypeError, "does not hold"),
        ({"x": x, "i": np.array([1.5])}, anex.DTypeError, "float64"),
    ]:
        with pytest.raises(kind, match=text):
            inputs.checked(given, main)
    np.save(tmp_path / "one.npy", x)
    (tmp_path / "text.npz").write_text("nothing")
    for name, kind in (
        ("one.npy", anex.ArgumentError),
        ("text.npz", anex.ArgumentError),
        ("no", anex.MissingFileError),
    ):
        with pytest.raises(kind):
            inputs.read(tmp_path / name)
    np.savez(tmp_path / "two.npz", x=x, i=i)
    assert set(inputs.read(tmp_path / "two.npz")) == {"x", "i"}


# ---- shapes ------------------------------------------------------------------------------------------------------


def test_a_flexible_shape_is_the_default_of_the_file_or_that_of_what_is_given(tmp_path):
    class Model(nn.Module):
        def forward(self, x):
            return torch.softmax(x @ x.transpose(1, 2), -1).reshape(x.shape[0], -1)

    traced = torch.jit.trace(Model(), torch.randn(1, 5, 8))
    length = ct.RangeDim(1, 20, default=7)
    model = ct.convert(
        traced, inputs=[ct.TensorType("x", shape=(1, length, 8))], minimum_deployment_target=ct.target.iOS17,
        skip_model_load=True,
    )  # fmt: skip
    model.save(str(tmp_path / "m.mlpackage"))
    (tmp_path / "m.mil").write_text(anex.mil.to_text(model.get_spec()))
    for name in ("m.mlpackage", "m.mil"):
        assert default_shapes(tmp_path / name) == {"x": (1, 7, 8)}
    program = from_file(tmp_path / "m.mlpackage")
    for n in (7, 3):
        at = fixed(program, {"x": (1, n, 8)})
        x = np.ones((1, n, 8), at.functions["main"].inputs["x"].dtype.__name__.replace("fp", "float"))
        np.testing.assert_allclose(np.asarray(anex.compile(at)(x)), np.full((1, n * n), 1 / n), rtol=1e-3)
    with pytest.raises(anex.ShapeError, match="no fixed shape"):
        fixed(program, {})
    with pytest.raises(anex.ShapeError, match="does not fit"):
        fixed(program, {"x": (1, 7, 9)})


def test_every_op_of_an_encoder_is_compared_and_right():
    torch.manual_seed(1)
    spec = anex.spec((2, 16), "int32")
    program = anex.from_torch(Bert(depth=2).eval(), ids=spec, types=spec, mask=spec)
    tested, reference = sides(program)
    given = inputs.drawn(tested.function)
    assert given["ids"].max() > 200
    assert set(given["types"].ravel()) == {0, 1}
    found = compare(tested, reference, given)
    assert len(found) == len(tested.ops)
    assert all(op.own is not None and op.total.relative < 5e-3 for op in found)
    assert all(each.relative < 2e-3 for each in outputs(tested, reference, given).values())
