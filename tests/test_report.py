"""``anex.profile`` and the command: the published profiler's report, its counts and figures."""

import json
import subprocess
import sys
from html.parser import HTMLParser
from types import SimpleNamespace

import numpy as np
import pytest
from click.testing import CliRunner
from needs_ane import needs_ane

import anex
from anex import mb, store
from anex.cli import main
from anex.load import read_source
from anex.report.report import rates
from anex.report.sequential import estimates


def fp16(layers, channels=512, side=64):
    """As gen_int8_bench.py makes it: a chain of 1x1 convolutions; here of zeros."""

    @anex.graph(x=(1, channels, side, side))
    def program(x):
        for _ in range(layers):
            x = mb.conv(x=x, weight=np.zeros((channels, channels, 1, 1), np.float16))
        return x

    return program


def w8a8(layers, channels=512, side=64):
    """The same with int8 weights, and int8 between layers."""

    @anex.graph(x=(1, channels, side, side))
    def program(x):
        for i in range(layers):
            weight = mb.constexpr_affine_dequantize(
                quantized_data=np.zeros((channels, channels, 1, 1), np.int8),
                zero_point=np.int8(0), scale=np.float16(0.01), axis=0,
            )  # fmt: skip
            x = mb.conv(x=x, weight=weight)
            if i < layers - 1:
                q = mb.quantize(input=x, scale=np.float16(0.125), output_dtype="int8")
                x = mb.dequantize(input=q, scale=np.float16(0.125))
        return x

    return program


@pytest.fixture(scope="module")
def published():
    """Reports of the two models of the published study, on its chip."""
    return {make.__name__: anex.profile(make(128), chip="M5", run=False) for make in (fp16, w8a8)}


def small():
    @anex.graph(x=(1, 16, 8, 8))
    def program(x):
        y = mb.relu(x=mb.conv(x=x, weight=np.ones((24, 16, 1, 1), np.float16), name="c"), name="r")
        y = mb.scatter_nd(data=y, indices=np.zeros((1, 1), np.int32), updates=np.zeros((1, 24, 8, 8), np.float16),
                          name="s")  # fmt: skip
        return mb.sigmoid(x=y, name="y")

    return program


def command(*arguments):
    return subprocess.run(
        [sys.executable, "-m", "anex", "profile", *map(str, arguments)], capture_output=True, text=True, timeout=600
    )


def row(text, name):
    """The first line of that name, with single spaces."""
    return next(" ".join(line.split()) for line in text.splitlines() if line.split()[:1] == [name])


# ---- published figures ----------------------------------------------------------------------------------------


def test_the_published_counts_of_ops_come_back(published):
    found = {name: (report.counts.total, dict(report.counts.by_unit)) for name, report in published.items()}
    assert found == {"fp16": (896, {"ane": 128}), "w8a8": (1531, {"ane": 382})}
    assert [published["w8a8"].counts.const, published["fp16"].counts.const] == [1149, 768]
    assert published["w8a8"].weight_mib == pytest.approx(32, rel=1e-3)
    assert published["fp16"].weight_mib == 64


def test_the_published_rows_come_back_digit_by_digit(published):
    texts = {name: str(report) for name, report in published.items()}
    assert row(texts["fp16"], "conv") == "conv 128 1.800458 230.459 274.8160 4.72 100.0% Comp"
    assert row(texts["w8a8"], "conv") == "conv 128 1.800458 230.459 274.8160 4.72 89.2% Comp"
    for name in ("quantize", "dequantize"):
        assert row(texts["w8a8"], name) == f"{name} 127 0.103401 13.132 0.5326 58.03 5.1% Mem"
    assert "ios18.conv (128), ios18.quantize (127), ios18.dequantize (127)" in texts["w8a8"]
    assert "ANE ops:      382 (100.0% of cost)" in texts["w8a8"]


@pytest.mark.parametrize(
    ("name", "ms", "per_s", "gflops", "tops", "speedup"),
    [("fp16", 15.2752, "65.5", 17990.99, "17.9910", "15.1"), ("w8a8", 8.1511, "122.7", 33862.37, "33.8624", "31.7")],
)
def test_the_published_rates_follow_from_the_published_times(published, name, ms, per_s, gflops, tops, speedup):
    """Times to the digits that their GFLOP/s, which are printed with more, leave open."""
    report = published[name]
    found = rates(ms, report.sequential.gflop, report.weight_mib, report.sequential.ms)
    assert f"{found.iterations_per_s:.1f}" == per_s
    assert found.gflops == pytest.approx(gflops, rel=1e-5)
    assert float(f"{found.tops:.4f}") == pytest.approx(float(tops), rel=1e-5)
    assert f"{found.speedup:.1f}" == speedup
    if name == "fp16":
        assert f"{found.utilisation:.0%}" == "94%"


def test_the_log_rounds_gflop_that_the_registry_has_exactly(published):
    report = published["fp16"]
    assert f"{report.sequential.gflop:.3f}" == "274.816"
    assert f"{report.predicted.gflop:.2f}" == "274.88"


def test_predictions_of_the_bench_models_have_the_published_times_in_their_interval(published):
    for name, ms in (("fp16", 15.275), ("w8a8", 8.151)):
        prediction = published[name].costs[0].prediction
        assert prediction.low < ms < prediction.high
        assert published[name].predicted_rates.ms == prediction.ms


# ---- what is counted ------------------------------------------------------------------------------------------


def test_ops_are_counted_as_the_file_has_them(tmp_path):
    for make in (fp16, w8a8, lambda n, c, s: small()):
        program = make(3, 16, 4)
        store.save(program, tmp_path / "model.mlpackage")
        proto = read_source(tmp_path / "model.mlpackage").program.functions["main"]
        ops = proto.block_specializations[proto.opset].operations
        assert anex.profile(program, run=False).counts.total == len(ops)
        report = anex.profile(tmp_path / "model.mlpackage", run=False)
        assert report.counts.total == len(ops)
        assert report.size_bytes == sum(f.stat().st_size for f in tmp_path.rglob("*") if f.is_file())


def test_output_channels_that_16_cores_cannot_share_evenly_lower_the_efficiency():
    @anex.graph(x=(1, 8, 4, 4))
    def program(x):
        return [mb.conv(x=x, weight=np.ones((n, 8, 1, 1), np.float16)) for n in (16, 24, 17)]

    convs = estimates(program.functions["main"].find_ops(op_type="conv"))
    assert [each.efficiency for each in convs] == [1, 0.75, 17 / 32]
    assert [(each.into, each.out) for each in convs] == [(8, 16), (8, 24), (8, 17)]


def test_ops_that_leave_the_engine_are_listed_with_their_unit_and_why():
    report = anex.profile(small(), run=False, units="ALL")
    assert dict(report.counts.by_unit) == {"ane": 3, "gpu": 1}
    assert "All (CPU+GPU+ANE)" in str(report)
    lines = str(report).split("CPU/GPU Fallback Ops (1 ops not on ANE)")[1]
    assert row(lines, "s").startswith("s scatter_nd GPU ")
    assert "SWP" in row(lines, "s")


# ---- measured, predicted, Core ML's ---------------------------------------------------------------------------


def test_what_is_measured_says_on_which_device_and_stands_in_tables_of_its_own():
    report = anex.profile(small(), device="cpu")
    assert report.measured.measured
    assert report.measured.device == report.profile.device == "cpu"
    assert report.profile.repeat == 10  # of a call below 0.1 s
    assert not report.predicted.measured
    assert not report.sequential.measured
    assert report.measured.ms == pytest.approx(sum(each.seconds for each in report.profile.rows) * 1e3)
    text = str(report)
    assert "10 runs; device cpu)" in text
    assert "of its lower bound" in text
    found = json.loads(report.to_json())
    assert found["measured"]["device"] == "cpu"
    assert found["predicted"]["costs"][0]["measured"] is False


@needs_ane
def test_what_the_stand_in_took_is_never_called_the_neural_engines():
    @anex.graph(x=(1, 16, 8, 32))
    def program(x):
        return mb.relu(x=mb.conv(x=x, weight=np.ones((16, 16, 1, 1), np.float16)), name="y")

    report = anex.profile(program, device="ane")
    assert report.measured.device == report.profile.device == report.profile.limits.device == "double"
    assert "device double (the stand-in: no hardware was run)" in str(report)
    assert "device double)" in str(report)
    assert "device double" in report.to_html()
    assert json.loads(report.to_json())["measured"]["device"] == "double"


def test_what_cannot_be_measured_is_said_and_the_rest_is_there():
    @anex.graph(x=(2, 3))
    def with_a_list(x):
        kept = mb.make_list(init_length=1, elem_shape=(2, 3), dtype="fp16")
        return mb.list_read(ls=mb.list_write(ls=kept, index=0, value=x), index=0, name="y")

    report = anex.profile(with_a_list, device="cpu")
    assert report.profile is None
    assert "make_list" in report.not_measured
    assert "Not measured: device='cpu'" in str(report)
    assert json.loads(report.to_json())["measured"] is None


def test_several_chips_are_predicted_side_by_side():
    report = anex.profile(small(), chip=["M1", "M5"], run=False)
    assert [cost.chip for cost in report.costs] == ["M1", "M5"]
    assert report.chip == "M1"


def test_core_mls_own_plan_needs_macos():
    assert "needs macOS" in anex.profile(small(), run=False).no_core_ml


class MLCPUComputeDevice:
    pass


class MLNeuralEngineComputeDevice:
    pass


def test_core_mls_own_plan_stands_beside_ours():
    """A plan as coremltools' classes shape it, whose Core ML sends the relu to the CPU."""
    engine, cpu = MLNeuralEngineComputeDevice(), MLCPUComputeDevice()
    weights = {"c": 0.6, "r": 0.3, "s": 0.09, "y": 0.01}

    def op(name, kind):
        return SimpleNamespace(operator_name=f"ios18.{kind}", outputs=[SimpleNamespace(name=name)], blocks=[])

    ops = [op("k", "const"), op("c", "conv"), op("r", "relu"), op("s", "scatter_nd"), op("y", "sigmoid")]

    def usage(of):
        name = of.outputs[0].name
        return SimpleNamespace(
            preferred_compute_device=cpu if name in "rs" else engine, supported_compute_devices=[cpu, engine]
        )

    def cost(of):
        weight = weights.get(of.outputs[0].name)
        return None if weight is None else SimpleNamespace(weight=weight)

    function = SimpleNamespace(block=SimpleNamespace(operations=ops))
    plan = SimpleNamespace(
        model_structure=SimpleNamespace(program=SimpleNamespace(functions={"main": function})),
        get_compute_device_usage_for_mlprogram_operation=usage,
        get_estimated_cost_for_mlprogram_operation=cost,
    )
    asked = []

    def load(path, units):
        asked.append((path.suffix, path.exists(), units.name))
        return plan

    report = anex.profile(small(), run=False, load_plan=load)
    assert asked == [(".mlpackage", True, "CPU_AND_NE")]
    assert [(each.name, each.unit, each.weight) for each in report.core_ml] == [
        ("k", "", None), ("c", "ane", 0.6), ("r", "cpu", 0.3), ("s", "cpu", 0.09), ("y", "ane", 0.01)
    ]  # fmt: skip
    text = str(report)
    assert "agree on 3 of the 4 ops" in text
    planned = next(line.split() for line in text.splitlines() if "ios18.relu" in line and "CPU,ANE" in line)
    assert planned[-3:] == ["CPU", "ANE", "CPU,ANE"]
    assert "ios18.relu" in report.to_html()


# ---- page and command -----------------------------------------------------------------------------------------


class Page(HTMLParser):
    def __init__(self, text):
        super().__init__()
        self.open, self.tags = [], []
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        self.tags.append((tag, dict(attributes)))
        if tag != "meta":
            self.open.append(tag)

    def handle_startendtag(self, tag, attributes):
        self.tags.append((tag, dict(attributes)))

    def handle_endtag(self, tag):
        assert self.open.pop() == tag


def test_the_page_has_its_pictures_inside_and_nothing_from_elsewhere():
    text = anex.profile(small(), device="cpu").to_html()
    page = Page(text)
    assert page.open == []
    labels = [attributes.get("aria-label") for tag, attributes in page.tags if tag == "svg"]
    assert labels == ["timeline", "roofline", "timeline", "roofline"]  # predicted, and measured
    assert not any(tag in ("script", "link", "img", "iframe") for tag, _ in page.tags)
    assert not any(key in ("src", "href") for _, attributes in page.tags for key in attributes)
    assert "http" not in text


def test_the_command_reads_every_kind_of_model_and_writes_text_json_and_a_page(tmp_path):
    store.save(small(), tmp_path / "m.mlpackage")
    store.save(small(), tmp_path / "m.mlmodelc")
    text = command(tmp_path / "m.mlpackage", "-a", "-v", "--chip", "M5", "--chip", "M1", "--device", "cpu",
                   "--html", tmp_path / "m.html")  # fmt: skip
    assert text.returncode == 0, text.stderr
    assert text.stderr == ""
    for words in ("ANE CostModel Report: m.mlpackage", "Op Type  ", "Weight BW", "Speedup", "WU%", "device cpu"):
        assert words in text.stdout
    assert (tmp_path / "m.html").read_text().startswith("<!doctype html>")
    found = json.loads(command(tmp_path / "m.mlmodelc", "--no-run", "--json").stdout)
    assert found["counts"]["total"] == anex.profile(small(), run=False).counts.total
    assert found["measured"] is None


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("model.mil", b"program(1.3) {"),
        ("model.mlpackage", b""),
        ("model.mlmodel", b"\x08\x09"),
        ("m.onnx", b"\x08\x07"),
    ],
)
def test_a_broken_or_foreign_file_is_one_clear_line(tmp_path, name, content):
    (tmp_path / name).write_bytes(content)
    done = CliRunner().invoke(main, ["profile", str(tmp_path / name)])
    assert done.exit_code == 1
    assert done.output.startswith("Error: ")
    assert done.output.count("\n") == 1, done.output[:300]


def test_what_is_no_file_or_too_large_for_one_is_refused_unread(tmp_path):
    with pytest.raises(anex.MissingFileError, match="no regular file"):
        anex.profile("/dev/zero")
    with open(tmp_path / "large.mil", "wb") as file:
        file.truncate(1 << 40)
    with pytest.raises(anex.FormatError, match="more than the 256 MiB"):
        anex.profile(tmp_path / "large.mil")


@pytest.mark.parametrize("look", [anex.explain, lambda program: str(anex.profile(program, run=False))])
def test_four_times_the_ops_are_four_times_the_work(look):
    """Counted in Python's calls, which no other process changes."""

    def calls(layers):
        weight = np.zeros((16, 16, 1, 1), np.float16)

        @anex.graph(x=(1, 16, 1, 32))
        def program(x):
            for _ in range(layers):
                x = mb.relu(x=mb.conv(x=x, weight=weight))
            return x

        look(program)  # fills the caches
        made = 0

        def count(frame, event, argument):
            nonlocal made
            made += event == "call"

        sys.setprofile(count)
        try:
            look(program)
        finally:
            sys.setprofile(None)
        return made

    assert calls(200) < 4.2 * calls(50)


def test_wrong_arguments_are_named():
    for arguments, words in (
        ({"chip": "toaster"}, "no Apple chip"),
        ({"chip": []}, "name one"),
        ({"device": "tpu"}, "tpu"),
    ):
        with pytest.raises(anex.ArgumentError, match=words):
            anex.profile(small(), **arguments)
    with pytest.raises(anex.ArgumentError, match="no MIL program"):
        anex.profile(42)
