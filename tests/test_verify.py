"""``anex.verify`` and its command: which op errs, which limit it passed, what CI is told."""

import json
import warnings

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from models.vision import ResNet18
from needs_ane import needs_ane
from torch import nn

import anex
from anex import mb, store
from anex.cli import main
from anex.comparison import coreml
from anex.verification.report import Verification


@pytest.fixture(scope="module")
def package(tmp_path_factory):
    torch.manual_seed(0)
    path = tmp_path_factory.mktemp("verify") / "m.mlpackage"
    store.save(anex.from_torch(ResNet18(8, 10).eval(), x=(1, 3, 32, 32)), path)
    return path


def command(*arguments):
    done = CliRunner().invoke(main, [*map(str, arguments)])
    assert done.exception is None or isinstance(done.exception, SystemExit), done.exception
    return done.exit_code, done.output


def ids(found, minor=False):
    return [cliff.id for cliff in found.cliffs if minor or not cliff.minor]


# ---- which op ----------------------------------------------------------------------------------------------------


def test_an_overflow_is_the_first_op_that_diverges_and_what_follows_inherits_it():
    @anex.graph(x=(1, 4, 1, 8))
    def program(x):
        y = mb.add(x=x, y=1.0, name="fine")
        y = mb.mul(x=y, y=30000.0, name="large")
        y = mb.mul(x=y, y=0.001, name="small")
        return mb.add(x=y, y=1.0, name="y")

    found = anex.verify(program, device="cpu-strict", inputs={"x": np.full((1, 4, 1, 8), 3.0)})
    assert (found.first.name, found.first.makes, found.culprit.name) == ("large", True, "large")
    assert [(op.name, op.makes) for op in found.diverging] == [("large", True), ("small", False), ("y", False)]
    overflow = next(cliff for cliff in found.cliffs if cliff.id == "fp16-overflow")
    assert (overflow.name, overflow.count, overflow.elements) == ("large", 32, 32)
    assert "scale" in overflow.fix
    assert found.exit_code == 1
    right = anex.verify(program, device="cpu-strict", inputs={"x": np.full((1, 4, 1, 8), 0.5)})
    assert (right.first, right.exit_code) == (None, 0)


def test_an_error_that_many_ops_add_up_to_is_no_single_op_s():
    @anex.graph(x=(64,))
    def program(x):
        for i in range(60):
            x = mb.mul(x=x, y=1.0107421875, name=f"up{i}")
        return x

    found = anex.verify(program, device="cpu-strict", max_error=6e-4)
    assert found.first is not None
    assert not found.first.makes
    assert found.first.own.relative < 3e-4
    assert "inherits" in str(found)


def test_a_difference_of_large_numbers_inherits_what_it_magnifies():
    @anex.graph(x=(256,))
    def program(x):
        third = mb.mul(x=x, y=1 / 3, name="third")
        return mb.sub(x=mb.mul(x=third, y=3.0, name="thrice"), y=x, name="y")

    op = {op.name: op for op in anex.verify(program, device="cpu-strict").ops}["y"]
    assert op.total.relative > 0.5
    assert op.own.relative == 0


# ---- limits ------------------------------------------------------------------------------------------------------


def limit_case(kind):
    """A program, its inputs, the chip, the op that crosses, and the limit's id."""
    ones = np.ones((1, 4096), np.float16)
    if kind == "product":

        @anex.graph(x=(4, 4))
        def program(x):
            return mb.matmul(x=x, y=x, name="y")

        return program, {"x": np.full((4, 4), 95.0)}, "M4", "matmul-range"
    if kind == "sum":

        @anex.graph(x=ones.shape)
        def program(x):
            return mb.reduce_sum(x=x, axes=[1], keep_dims=True, name="y")

        return program, {"x": ones}, "M5", "sum-range"
    if kind == "slice":

        @anex.graph(x=(1, 4, 1, 8))
        def program(x):
            return mb.slice_by_index(x=x, begin=[0, 0, 0, 3], end=[1, 4, 1, 8], name="y")

        return program, {"x": np.full((1, 4, 1, 8), 5000.0)}, "M1", "slice-range"
    if kind == "subnormal":

        @anex.graph(x=(2, 8))
        def program(x):
            return mb.mul(x=x, y=0.0005, name="y")

        return program, {"x": np.full((2, 8), 0.01)}, "M4", "subnormal"
    if kind == "saturation":

        @anex.graph(x=(2, 8))
        def program(x):
            q = mb.quantize(input=x, scale=np.float16(0.01), output_dtype="int8", name="y")
            return mb.dequantize(input=q, scale=np.float16(0.01))

        return program, {"x": np.full((2, 8), 2.0)}, "M4", "saturation"
    if kind == "epsilon":

        @anex.graph(x=(2, 8))
        def program(x):
            return mb.layer_norm(x=x, axes=[1], epsilon=np.float16(1e-5), name="y")

        return program, None, "M4", "subnormal-constant"
    if kind == "infinite":

        @anex.graph(x=(2, 2))
        def program(x):
            return mb.softmax(x=mb.add(x=x, y=np.array([[0, -np.inf], [0, 0]], np.float16), name="y"), axis=1)

        return program, None, "M4", "infinite-constant"

    @anex.graph(x=(1, 1, 4, 16), mask=(1, 1, 4, 4))
    def program(x, mask):
        return mb.scaled_dot_product_attention(query=x, key=x, value=x, attn_mask=mask, name="y")

    return program, None, "M4", "sdpa-mask"


KINDS = ["product", "sum", "slice", "subnormal", "saturation", "epsilon", "infinite"]


@pytest.mark.parametrize("kind", KINDS)
def test_each_documented_limit_names_the_op_and_a_way_out(kind):
    program, given, chip, wanted = limit_case(kind)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found = anex.verify(program, device="cpu-ane", chip=chip, inputs=given)
    cliff = next(each for each in found.cliffs if each.id == wanted)
    assert cliff.name == "y"
    assert cliff.fix
    assert cliff.source
    assert not cliff.minor
    assert f"[{wanted}]" in str(found)
    assert wanted in [each["id"] for each in json.loads(found.to_json())["cliffs"]]


def test_limits_of_one_chip_are_not_told_of_another():
    program, given, _, wanted = limit_case("slice")
    assert wanted not in ids(anex.verify(program, device="cpu-ane", chip="M5", inputs=given), minor=True)


def test_ordinary_numbers_pass_no_limit(package):
    found = anex.verify(package, device="cpu-ane")
    assert not ids(found)
    assert (found.exit_code, found.residency) == (0, 1.0)
    assert 0 < found.error < 2e-3


# ---- references --------------------------------------------------------------------------------------------------


def test_against_torch_outputs_and_submodules_are_compared():
    class Model(nn.Module):
        def __init__(self):
            super().__init__()
            self.body = nn.Sequential(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.ReLU())
            self.head = nn.Linear(8, 5)

        def forward(self, x):
            return {"logits": self.head(self.body(x).mean((2, 3)))}

    torch.manual_seed(2)
    module = Model().eval()
    x = torch.randn(2, 3, 9, 9)
    found = anex.verify(module, against="torch", device="cpu-strict", x=x)
    assert {"body", "body.1", "body.2", "head"} <= set(found.modules)
    assert all(each.relative < 1e-3 for each in found.modules.values())
    program = anex.compile(anex.from_torch(module, x=x))
    expected = module(torch.tensor(x.numpy().astype(np.float16).astype(np.float32)))["logits"].detach().numpy()
    off = np.abs(np.asarray(program(x.numpy().astype(np.float16)), np.float64) - expected).max()
    assert found.outputs["logits"].max_abs == pytest.approx(off, rel=0.5)
    assert "submodule" in str(found)
    with torch.no_grad():  # a module that computes what float16 cannot
        module.head.weight *= 1e6
    wrong = anex.verify(module, against="torch", device="cpu-strict", x=x)
    assert wrong.differs
    assert wrong.modules["body"].relative < 1e-3 < wrong.modules["head"].relative


def test_against_the_strict_engine_the_strict_engine_is_exact(package):
    found = anex.verify(package, against="cpu-strict", device="cpu-strict")
    assert all(op.total.exact and op.own.exact for op in found.ops)
    assert all(each.exact for each in found.outputs.values())


def test_a_float32_program_is_checked_as_the_engine_would_run_it():
    module = nn.Sequential(nn.Linear(8, 16), nn.Tanh()).eval()
    program = anex.from_torch(module, precision="float32", x=(2, 8))
    exact = anex.verify(program, device="cpu-strict")
    assert exact.error < 1e-6
    half = anex.verify(program, device="cpu-ane")
    assert 1e-5 < half.error < 2e-3
    assert {op.dtype for op in half.ops} == {"fp16"}


@needs_ane
def test_the_neural_engine_is_verified_too():
    torch.manual_seed(1)
    program = anex.from_torch(nn.Sequential(nn.Conv2d(4, 8, 1), nn.ReLU(), nn.Conv2d(8, 4, 1)).eval(), x=(1, 4, 8, 8))
    found = anex.verify(program, device="ane")
    assert [op.op for op in found.ops] == ["conv", "relu", "conv"]
    assert all(op.total.relative < 2e-3 for op in found.ops)
    assert anex.verify(program).device == "double"

    @anex.graph(x=anex.spec((1, 4, 1, 8), "int32"))
    def refused(x):
        return mb.cast(x=mb.add(x=x, y=x, name="sum"), dtype="fp16", name="y")

    found = anex.verify(refused, device="ane", min_residency=0.95)
    assert found.exit_code == 3
    assert "sum" in found.not_run


def test_core_ml_is_refused_where_there_is_none():
    @anex.graph(x=(2, 2))
    def program(x):
        return mb.relu(x=x)

    for where in ({"against": "coreml"}, {"device": "coreml"}):
        with pytest.raises(anex.UnsupportedError, match="needs macOS"):
            anex.verify(program, **where)


def test_core_ml_runs_packages_with_the_intermediates_as_outputs(monkeypatch):
    """Core ML's place is taken by the CPU engine, which reads the package that it would be given."""
    import coremltools

    asked = []

    class Model:
        def __init__(self, path, compute_units):
            self.program = anex.compile(anex.from_mlpackage(path))
            asked.append((compute_units.name, [*self.program.outputs]))

        def predict(self, given):
            found = self.program(**given)
            several = found if isinstance(found, tuple) else (found,)
            return {name: np.asarray(y) for name, y in zip(self.program.outputs, several, strict=True)}

    monkeypatch.setattr(coremltools.models, "MLModel", Model)
    monkeypatch.setattr(coreml, "require", lambda: None)

    @anex.graph(x=(2, 3))
    def program(x):
        return mb.exp(x=mb.relu(x=x, name="r"), name="y")

    found = anex.verify(program, against="coreml", device="cpu-strict")
    assert [op.name for op in found.ops] == ["r", "y"]
    assert all(op.total.relative < 1e-3 for op in found.ops)
    assert ("CPU_AND_NE", ["r", "y"]) in asked
    assert ("CPU_AND_NE", ["y"]) in asked


# ---- the command -------------------------------------------------------------------------------------------------


def test_exit_codes_tell_apart_what_is_wrong(package, tmp_path):
    @anex.graph(x=anex.spec((1, 4, 1, 8), "int32"))
    def foreign(x):
        return mb.cast(x=mb.add(x=x, y=x), dtype="fp16", name="y")

    store.save(foreign, tmp_path / "foreign.mlpackage")
    (tmp_path / "broken.mlpackage").mkdir()
    (tmp_path / "text.mil").write_text("program(1.0) {")
    assert command("verify", package, "--device", "cpu-ane")[0] == 0
    code, told = command("verify", package, "--device", "cpu-ane", "--max-error", "1e-9")
    assert code == 1
    assert "DIFFERS" in told
    code, told = command("verify", tmp_path / "foreign.mlpackage", "--device", "cpu")
    assert code == 3
    assert "NOT RESIDENT ENOUGH" in told
    assert command("verify", tmp_path / "foreign.mlpackage", "--device", "cpu", "--min-residency", "0.2")[0] == 0
    for name in ("none.mlpackage", "broken.mlpackage", "text.mil"):
        code, told = command("verify", tmp_path / name)
        assert code == 4
        assert told.startswith("Error: ")
        assert told.count("\n") == 1
    for wrong in (["--against", "torch"], ["--chip", "M99x"], ["--quantize", "int3"], ["--out", "x.mlpackage"],
                  ["--inputs", tmp_path / "text.mil"]):  # fmt: skip
        assert command("verify", package, *wrong)[0] == 2, wrong


def test_one_command_converts_checks_and_writes(package, tmp_path):
    out = tmp_path / "small.mlpackage"
    code, told = command("verify", package, "--device", "cpu-ane", "--quantize", "int8", "--out", out, "--json")
    found = json.loads(told)
    assert code == found["exit_code"] == 0
    assert found["residency"] == 1
    assert found["quantized"]["bytes_after"] < 0.65 * found["quantized"]["bytes_before"]
    assert all(layer["result"]["own"]["relative"] < 0.02 for layer in found["quantized"]["layers"])
    x = np.random.default_rng(0).normal(size=(1, 3, 32, 32)).astype(np.float16)
    small, whole = (np.asarray(anex.compile(anex.from_mlpackage(p))(x), float) for p in (out, package))
    assert 0 < np.linalg.norm(small - whole) / np.linalg.norm(whole) < 0.1
    assert 0 < found["error"] < 0.1


def test_json_is_plain_and_complete(package, tmp_path):
    x = np.random.default_rng(0).normal(size=(1, 3, 32, 32))
    x[0, 0, 0, 0] = np.inf
    np.savez(tmp_path / "x.npz", x=x)
    code, told = command("verify", package, "--device", "cpu-strict", "--inputs", tmp_path / "x.npz", "--json")

    def refuse(constant):
        raise AssertionError(constant)

    found = json.loads(told, parse_constant=refuse)
    assert found["format"] == "anex.verification"
    assert found["seed"] is None
    assert {"device", "against", "outputs", "ops", "cliffs", "residency", "first_diverging"} <= set(found)
    assert code == found["exit_code"]


def test_the_text_lists_every_op_when_asked(package):
    _, short = command("verify", package, "--device", "cpu-strict")
    _, long = command("verify", package, "--device", "cpu-strict", "--every-op")
    assert "... and" in short
    assert len(long.splitlines()) > len(short.splitlines())


def test_what_verify_does_not_take_is_refused_in_one_sentence():
    @anex.graph(x=(2, 2))
    def program(x):
        return mb.relu(x=x)

    for given, text in [
        ({"against": "tensorflow"}, "none of"),
        ({"device": "gpu"}, "none of"),
        ({"chip": "Z80"}, "no Apple chip"),
        ({"against": "torch"}, "pass the module"),
        ({"function": "other"}, "none of main"),
        ({"x": (2, 2)}, "examples are for torch"),
        ({"inputs": {}}, "x missing"),
    ]:
        with pytest.raises(anex.ArgumentError, match=text):
            anex.verify(program, **given)
    with pytest.raises(anex.ArgumentError):
        anex.verify(3)
    assert isinstance(anex.verify(program, device="cpu"), Verification)


# ---- a module from a file --------------------------------------------------------------------------------------------


def test_the_command_compares_an_exported_module_with_what_torch_computes(tmp_path):
    torch.manual_seed(0)
    net = nn.Sequential(nn.Conv2d(3, 8, 3, padding=1), nn.ReLU(), nn.Conv2d(8, 4, 1)).eval()
    file = tmp_path / "net.pt2"
    torch.export.save(torch.export.export(net, (torch.randn(1, 3, 16, 16),)), file)
    code, output = command("verify", file, "--against", "torch", "--device", "cpu", "--json")
    found = json.loads(output)
    assert code == 0, output
    assert found["against"] == "torch"
    (end,) = found["outputs"].values()
    assert 0 < end["max_relative"] < 0.01  # fp16 beside float32


def test_files_that_are_no_exported_module_are_one_clear_line(tmp_path):
    broken = tmp_path / "broken.pt2"
    broken.write_bytes(b"PK\x03\x04 no archive")
    for file, said in ((broken, "no module that torch.export.save wrote"), (tmp_path / "no.pt2", "does not exist")):
        code, output = command("verify", file, "--against", "torch")
        assert code == 4
        assert said in output
        assert len(output.strip().splitlines()) == 1
