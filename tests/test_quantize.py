"""``anex.quantize``: weights against coremltools' own, W8A8 against integers, and what the report says."""

import json

import coremltools as ct
import coremltools.optimize.coreml as cto
import numpy as np
import pytest
import torch
from click.testing import CliRunner
from torch import nn

import anex
from anex import mb, store
from anex.cli import main
from anex.quantization import calibrating
from anex.quantization.schemes import SCHEMES

pytestmark = pytest.mark.cpu_engine


class Model(nn.Module):
    def __init__(self):
        super().__init__()
        self.a, self.b = nn.Conv2d(32, 96, 3, padding=1), nn.Conv2d(96, 32, 1)
        self.head = nn.Linear(32, 96)

    def forward(self, x):
        y = torch.relu(self.a(x))
        return self.head((x + self.b(y)).mean((2, 3)))


@pytest.fixture(scope="module")
def program():
    torch.manual_seed(4)
    return anex.from_torch(Model().eval(), x=(1, 32, 8, 8))


def weights(program):
    """Of each product, by name."""
    return {
        op.name: op.inputs["weight"].val
        for op in program.functions["main"].operations
        if op.op_type in ("conv", "linear")
    }


def decompressed(program):
    """By coremltools' public function, through a package."""
    import tempfile

    with tempfile.TemporaryDirectory() as folder:
        store.save(program, f"{folder}/m.mlpackage")
        plain = cto.decompress_weights(ct.models.MLModel(f"{folder}/m.mlpackage", skip_model_load=True))
        plain.save(f"{folder}/plain.mlpackage")
        return weights(anex.from_mlpackage(f"{folder}/plain.mlpackage"))


def linear(**given):
    return cto.OpLinearQuantizerConfig(weight_threshold=2048, **given)


THEIRS = {
    "int8": linear(mode="linear_symmetric", dtype="int8", granularity="per_channel"),
    "int8-affine": linear(mode="linear", dtype="int8", granularity="per_channel"),
    "int8-tensor": linear(mode="linear_symmetric", dtype="int8", granularity="per_tensor"),
    "int8-tensor-affine": linear(mode="linear", dtype="int8", granularity="per_tensor"),
    "int4": linear(mode="linear_symmetric", dtype="int4", granularity="per_block", block_size=32),
    "int4-channel": linear(mode="linear_symmetric", dtype="int4", granularity="per_channel"),
}


@pytest.mark.parametrize("scheme", THEIRS)
def test_weights_are_those_of_coremltools_public_functions(program, scheme, tmp_path):
    found = anex.quantize(program, scheme, errors=False, chips=())
    store.save(program, tmp_path / "m.mlpackage")
    model = ct.models.MLModel(str(tmp_path / "m.mlpackage"), skip_model_load=True)
    model = cto.linear_quantize_weights(model, cto.OptimizationConfig(THEIRS[scheme]))
    model.save(str(tmp_path / "theirs.mlpackage"))
    theirs, ours = decompressed(anex.from_mlpackage(tmp_path / "theirs.mlpackage")), decompressed(found.program)
    assert theirs.keys() == ours.keys() == weights(program).keys()
    for name in ours:
        np.testing.assert_array_equal(ours[name], theirs[name])
        assert (ours[name] != weights(program)[name]).any()


@pytest.mark.parametrize("scheme", [name for name in SCHEMES if name != "w8a8"])
def test_every_scheme_runs_and_computes_with_the_weights_it_reports(program, scheme, rng):
    found = anex.quantize(program, scheme, chips=())
    plain, original = decompressed(found.program), weights(program)
    assert [layer.name for layer in found.layers] == list(original)
    for layer in found.layers:
        w, q = original[layer.name].astype(float), plain[layer.name].astype(float)
        assert layer.weight.relative == pytest.approx(np.linalg.norm(q - w) / np.linalg.norm(w), rel=1e-6)
        assert layer.weight.max_abs == np.abs(q - w).max()
        assert layer.bytes_before == original[layer.name].nbytes
        assert layer.bytes_after < 0.7 * layer.bytes_before
        assert layer.result.own.relative > layer.weight.relative / 10
    assert found.bytes_after < 0.7 * found.bytes_before
    x = rng.normal(size=(1, 32, 8, 8)).astype(np.float16)
    got, module = np.asarray(anex.compile(found.program)(x)), Model().eval()
    torch.manual_seed(4)
    module = Model().eval()
    with torch.no_grad():
        for part, q in zip((module.a, module.b, module.head), plain.values(), strict=True):
            part.weight.copy_(torch.tensor(q.astype(np.float32)))
    expected = module(torch.tensor(x.astype(np.float32))).detach().numpy()
    np.testing.assert_allclose(got, expected, atol=4e-3 * np.abs(expected).max())


@pytest.mark.parametrize(("scheme", "entries"), [("palette4", 16), ("palette6", 64), ("palette4-int8", 16)])
def test_palettes_have_as_many_values_as_their_bits_say_and_are_the_best(program, scheme, entries):
    found = decompressed(anex.quantize(program, scheme, errors=False, chips=()).program)
    for name, w in weights(program).items():
        got, w = found[name].astype(float).ravel(), w.astype(float).ravel()
        q = np.unique(got)
        assert len(q) <= entries
        shift = 1 / 127 if scheme.endswith("int8") else 1e-3  # of a palette that is rounded after the choice
        nearest = np.abs(w[:, None] - q).min(1)
        np.testing.assert_allclose(np.abs(got - w), nearest, atol=shift * np.abs(w).max())
        even = np.linspace(w.min(), w.max(), entries)  # what a palette without clusters would be
        assert np.square(got - w).sum() < np.square(np.abs(w[:, None] - even).min(1)).sum()


def test_half_of_a_large_float16_tensor_is_pruned(rng):
    w = rng.normal(size=(300, 300, 1, 1)).astype(np.float16)  # 90000 elements, more than float16's largest number

    @anex.graph(x=(1, 300, 1, 4))
    def program(x):
        return mb.conv(x=x, weight=w, name="y")

    for sparsity in (0.5, 0.75):
        q = decompressed(anex.quantize(program, "sparse", sparsity=sparsity, errors=False, chips=()).program)["y"]
        assert np.mean(q == 0) == pytest.approx(sparsity, abs=1e-3)
        assert np.abs(w[q == 0]).max() <= np.abs(w[q != 0]).min()
        np.testing.assert_array_equal(q[q != 0], w[q != 0])
    joint = decompressed(anex.quantize(program, "sparse-int8", errors=False, chips=()).program)["y"]
    half = np.abs(w) > np.percentile(np.abs(w.astype(float)), 50)
    assert not joint[~half].any()
    step = np.abs(w.astype(float)).max((1, 2, 3), keepdims=True) / 127
    assert (np.abs(joint.astype(float) - w)[half] <= (0.51 * step + 1e-3 * np.abs(w))[half]).all()


# ---- activations -------------------------------------------------------------------------------------------------


def test_w8a8_is_the_integer_arithmetic_that_its_scales_say(rng):
    w = rng.normal(size=(96, 64)).astype(np.float16)

    @anex.graph(x=(5, 64))
    def program(x):
        return mb.linear(x=x, weight=w, name="y")

    data = {"x": rng.normal(size=(7, 5, 64)).astype(np.float16)}
    found = anex.quantize(program, "w8a8", calibrate=data, chips=())
    assert found.calibration == "calibrated on 7 sample(s), given"
    ops = {op.op_type: op for op in found.program.functions["main"].operations}
    scale = np.float64(quantized(found)[0].inputs["scale"].val)
    assert scale == pytest.approx(np.abs(data["x"]).max() / 127, rel=1e-3)  # of every sample
    x = data["x"][3]
    codes = np.clip(np.rint(x.astype(float) / scale), -128, 127).astype(np.int64)
    stored = ops["linear"].inputs["weight"].op.inputs
    data_name = "data" if "data" in stored else "quantized_data"
    rows = np.asarray(stored["scale"].val, float).reshape(-1)
    exact = (codes @ np.asarray(stored[data_name].val, np.int64).T) * scale * rows
    last = quantized(found)[-1]
    if last.outputs[0] is not ops["linear"].inputs["x"].op.inputs["input"]:  # the result is quantised too
        step = float(last.inputs["scale"].val)
        assert np.abs(exact - np.rint(exact / step) * step).max() <= step / 2
    else:
        step = 0.0
    got = np.asarray(anex.compile(found.program)(x), float)
    assert np.abs(got - exact).max() <= step / 2 + 2e-3 * np.abs(exact).max()
    assert np.abs(rows - np.abs(w.astype(float)).max(1) / 127).max() < 1e-3 * rows.max()


def quantized(found):
    return [op for op in found.program.functions["main"].operations if op.op_type == "quantize"]


def test_ranges_are_those_of_every_sample_as_torch_computes_them(program):
    torch.manual_seed(4)
    module = Model().eval()
    data = [{"x": np.random.default_rng(i).normal(size=(1, 32, 8, 8)).astype(np.float16) * (9 if i == 0 else 1)}
            for i in range(3)]  # fmt: skip
    stats = calibrating.ranges(program, data)
    hidden = torch.cat([torch.relu(module.a(torch.tensor(one["x"].astype(np.float32)))) for one in data])
    relu = next(op for op in program.functions["main"].operations if op.op_type == "relu")
    assert stats[relu.outputs[0].name]["rmax"] == pytest.approx(float(hidden.max()), rel=2e-3)
    assert stats["x"]["rmin"] == min(one["x"].min() for one in data) == data[0]["x"].min()


def test_w8a8_of_a_net_has_int8_products_and_small_errors(program):
    found = anex.quantize(program, "w8a8", chips=())
    assert "random" in found.calibration
    assert found.quantized_activations == len(quantized(found)) >= 3
    with anex.compile(found.program) as compiled:
        nodes = [op for op, _, _ in compiled._executable.nodes()]
    assert nodes.count("anex_conv_int8") == 2
    assert found.outputs["output"].relative < 0.1
    assert all(layer.result.own.relative < 0.05 for layer in found.layers)


def test_ops_that_cannot_be_int8_are_left_alone(rng):
    table = rng.normal(size=(90, 64)).astype(np.float16)

    @anex.graph(ids=anex.spec((4,), "int32"), x=(4, 64))
    def program(ids, x):
        moved = mb.add(x=ids, y=ids, name="integers")
        rows = mb.gather(x=table, indices=moved, axis=0)
        return mb.add(x=x, y=rows, name="y")

    given = {"ids": np.arange(4), "x": np.ones((4, 64))}
    found = anex.quantize(program, "w8a8", chips=(), inputs=given, calibrate=given)
    assert found.outputs["y"].relative < 0.1
    assert found.quantized_activations >= 2


def test_activations_of_programs_with_control_flow_are_refused_with_the_way_out(rng):
    @anex.graph(x=(64, 64))
    def program(x):
        more = mb.greater(x=mb.reduce_sum(x=x, axes=[0, 1]), y=np.float16(0))
        y = mb.cond(pred=more, _true_fn=lambda: mb.mul(x=x, y=x), _false_fn=lambda: mb.identity(x=x))
        return mb.linear(x=y, weight=rng.normal(size=(64, 64)).astype(np.float16), name="y")

    with pytest.raises(anex.UnsupportedError, match=r"control flow.*'int8'"):
        anex.quantize(program, "w8a8")
    assert anex.quantize(program, "int8", chips=()).layers


# ---- the report --------------------------------------------------------------------------------------------------


def test_what_is_small_integer_infinite_or_skipped_stays(rng):
    w = rng.normal(size=(64, 64)).astype(np.float16)
    mask = np.triu(np.full((64, 64), -np.inf, np.float16), 1)

    @anex.graph(x=(64, 64))
    def program(x):
        y = mb.linear(x=x, weight=w, name="first")
        y = mb.linear(x=y, weight=(w * 2).astype(np.float16), name="second")
        rows = mb.gather(x=np.arange(4096, dtype=np.int32).reshape(64, 64), indices=[0], axis=0)
        y = mb.add(x=mb.add(x=y, y=mask), y=mb.cast(x=rows, dtype="fp16"))
        return mb.linear(x=y, weight=w[:4], name="y")

    before = str(program)
    found = anex.quantize(program, "int8", skip=["second"], errors=False, chips=())
    assert str(program) == before
    assert [layer.name for layer in found.layers] == ["first"]
    assert sorted(why for why in found.left.values())[-1].startswith("skipped with second")
    assert "it has infinite values" in found.left.values()
    again = anex.quantize(program, "int8", threshold=100, errors=False, chips=())
    assert [layer.name for layer in again.layers] == ["first", "second", "y"]


def test_blocks_that_do_not_divide_are_told_of(rng):
    @anex.graph(x=(2, 40))
    def program(x):
        return mb.linear(x=x, weight=rng.normal(size=(100, 40)).astype(np.float16), name="y")

    found = anex.quantize(program, "int4", errors=False, chips=())
    assert not found.layers
    assert "does not divide" in next(iter(found.left.values()))
    assert anex.quantize(program, "int4", block_size=8, errors=False, chips=()).layers


@pytest.mark.parametrize("opset", ["iOS15", "iOS16", "iOS17", "iOS18"])
@pytest.mark.parametrize("scheme", ["int8", "int4", "w8a8"])
def test_programs_of_older_opsets_are_raised_as_far_as_the_scheme_needs(opset, scheme, rng):
    w = rng.normal(size=(64, 64, 1, 1)).astype(np.float16)

    @anex.graph(ct.target[opset], x=(1, 64, 1, 8))
    def program(x):
        return mb.relu(x=mb.conv(x=x, weight=w, name="c"), name="y")

    found = anex.quantize(program, scheme, chips=())
    least = ct.target[SCHEMES[scheme].target]
    assert found.program.functions["main"].opset_version == max(least, ct.target[opset])
    assert found.layers
    assert found.outputs["y"].relative < 0.2


def test_weights_alone_bring_memory_and_activations_bring_compute_from_m4_on():
    def chain(channels, positions, layers):
        w = np.random.default_rng(0).normal(size=(channels, channels, 1, 1)).astype(np.float16)

        @anex.graph(x=(1, channels, positions, positions))
        def program(x):
            for i in range(layers):
                x = mb.conv(x=x, weight=w + np.float16(i), name=f"c{i}")
            return x

        return program

    chips = ("M1", "M3", "M4", "M5")
    compute = chain(512, 64, 6)
    alone, both = (
        {each.chip: each for each in anex.quantize(compute, scheme, errors=False, chips=chips, calibrate=data).speeds}
        for scheme, data in (("int8", None), ("w8a8", {"x": np.ones((1, 512, 64, 64))}))
    )
    assert all(0.9 < each.speedup < 1.15 for each in alone.values())
    assert both["M4"].speedup > max(1.15, alone["M4"].speedup)
    assert both["M5"].speedup > max(1.15, alone["M5"].speedup)
    assert both["M1"].speedup < 1.1
    memory = {each.chip: each for each in anex.quantize(chain(1024, 1, 6), "int8", errors=False, chips=chips).speeds}
    assert memory["M4"].speedup > 1.1


def test_the_report_is_plain_json_and_text(program):
    found = anex.quantize(program, "int8", chips=("M4",))

    def refuse(constant):
        raise AssertionError(constant)

    told = json.loads(found.to_json(), parse_constant=refuse)
    assert told["bytes_after"] == found.bytes_after
    assert told["speeds"][0]["predicted"] is True
    assert [layer["name"] for layer in told["layers"]] == list(weights(program))
    assert "predicted" in str(found)
    assert "smaller" in str(found)


def test_wrong_arguments_are_refused_in_one_sentence(program):
    for given, text in [
        ({"scheme": "int3"}, "none of int8"),
        ({"sparsity": 2}, "between 0 and 1"),
        ({"block_size": 0}, "block_size=0"),
        ({"bits": 3}, "settings are"),
        ({"skip": ["nobody"]}, "no op is called nobody"),
        ({"calibrate": {"x": 1}}, "'w8a8' takes it"),
        ({"function": "other"}, "none of main"),
        ({"scheme": "w8a8", "calibrate": []}, "no sample"),
        ({"scheme": "w8a8", "calibrate": {"z": np.ones(3)}}, "x missing"),
    ]:
        with pytest.raises(anex.ArgumentError, match=text):
            anex.quantize(program, **given)
    with pytest.raises(anex.ArgumentError, match="from_torch"):
        anex.quantize(nn.Linear(2, 2))


# ---- the command -------------------------------------------------------------------------------------------------


def test_the_command_writes_a_package_that_loads(program, tmp_path):
    source, out, data = tmp_path / "m.mlpackage", tmp_path / "q.mlpackage", tmp_path / "data.npz"
    store.save(program, source)
    np.savez(data, x=np.random.default_rng(1).normal(size=(3, 1, 32, 8, 8)))
    run = CliRunner().invoke
    done = run(
        main, ["quantize", str(source), "--scheme", "w8a8", "--out", str(out), "--calibrate", str(data), "--json"]
    )
    assert done.exit_code == 0, done.output
    told = json.loads(done.output)
    assert told["calibration"] == "calibrated on 3 sample(s), given"
    assert len(quantized_ops(anex.from_mlpackage(out))) == told["quantized_activations"]
    assert "palette4-grouped" in run(main, ["quantize", "--list"]).output
    for wrong in ([str(source), "--scheme", "int3"], [str(tmp_path / "none")], [str(source), "--skip", "nobody"],
                  [str(source), "--out", "/no/such/folder/m.mlpackage"], []):  # fmt: skip
        done = run(main, ["quantize", *wrong])
        assert done.exit_code in (1, 2)
        assert "Error: " in done.output
        assert "Traceback" not in done.output


def quantized_ops(program):
    return [op for op in program.functions["main"].operations if op.op_type == "quantize"]
