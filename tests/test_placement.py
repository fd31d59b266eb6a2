"""``anex.explain`` and the command: where ops run, why, and what follows."""

import json
import subprocess
import sys
import time

import numpy as np
import pytest

import anex
from anex import mb
from anex.placement.presets import preset


def command(*arguments):
    return subprocess.run(
        [sys.executable, "-m", "anex", "explain", *map(str, arguments)], capture_output=True, text=True, timeout=300
    )


def three_ops():
    @anex.graph(x=(1, 8, 1, 32))
    def program(x):
        y = mb.relu(x=x, name="before")
        y = mb.scatter_nd(data=y, indices=np.zeros((1, 1), np.int32), updates=np.zeros((1, 8, 1, 32), np.float16),
                          name="middle")  # fmt: skip
        return mb.sigmoid(x=y, name="after")

    return program


def test_an_op_with_nothing_against_it_is_on_the_engine():
    @anex.graph(x=(1, 8, 1, 32))
    def program(x):
        return mb.relu(x=x, name="y")

    found = anex.explain(program, chip="M1")
    assert found.residency == found.residency_by_cost == 1
    assert found["y"].unit == "ane"
    assert found["y"].objections == []
    assert found["y"].likelihood == "sure"
    assert found.first_off is None
    assert "100 %" in found.advice[0]


def test_one_op_that_is_refused_splits_the_program_and_costs_two_transfers():
    found = anex.explain(three_ops())
    assert [op.unit for op in found.ops] == ["ane", "cpu", "ane"]
    assert found.first_off.name == "middle"
    assert [segment.unit for segment in found.segments] == ["ane", "cpu", "ane"]
    assert found.transfers.count == 2
    assert found.transfers.bytes == 2 * 8 * 32 * 2
    (reason,) = found["middle"].objections
    for part in ("unsupported-op", "SWP", "host"):
        assert part in reason


def test_the_gpu_takes_what_is_left_where_all_units_are_wanted():
    assert anex.explain(three_ops(), units="ALL")["middle"].unit == "gpu"
    assert anex.explain(three_ops(), units="CPU_AND_NE")["middle"].unit == "cpu"


def test_contested_rules_move_nothing_and_name_both_sources():
    @anex.graph(x=(1, 8, 1, 32))
    def program(x):
        return mb.concat(values=[x, x], axis=1, name="y")

    found = anex.explain(program)["y"]
    assert found.unit == "ane"
    assert found.likelihood == "contested"
    assert any("ORI" in note and "MDX" in note for note in found.notes)


def test_rules_of_medium_confidence_lower_the_likelihood_alone():
    @anex.graph(x=(1, 8, 1, 32))
    def program(x):
        return mb.cumsum(x=x, axis=1, name="y")

    on_its_own = anex.explain(program, path="e5rt")["y"]
    assert (on_its_own.unit, on_its_own.likelihood) == ("ane", "likely")
    rewritten = anex.explain(program)["y"]  # by a pass of anex
    assert rewritten.unit == "ane"


def test_fp32_leaves_the_engine_under_core_ml_and_is_rewritten_by_anex():
    @anex.graph(x=anex.spec((1, 8), "float32"))
    def program(x):
        return mb.relu(x=x, name="y")

    assert anex.explain(program, path="coreml")["y"].unit == "cpu"
    assert anex.explain(program)["y"].unit == "ane"


def test_dynamic_shapes_leave_the_engine():
    from coremltools.converters.mil.mil import get_new_symbol

    @mb.program(input_specs=[mb.TensorSpec(shape=(1, get_new_symbol()))])
    def program(x):
        return mb.relu(x=x, name="y")

    found = anex.explain(program)
    assert found.residency == 0
    assert "static-shape" in found["y"].objections[0]
    assert any("Dynamic shapes" in each for each in found.advice)
    assert "0 %" in str(found)


@pytest.mark.parametrize(("chip", "fits", "breaks"), [("M1", 16384, 32768), ("M5", 65536, 131072)])
def test_attention_leaves_the_engine_when_the_context_passes_the_extent_of_an_axis(chip, fits, breaks):
    inside, outside = (anex.explain(preset("llama", tokens), chip=chip, units="ALL") for tokens in (fits, breaks))
    assert inside.residency == 1
    assert outside.residency < 0.7
    assert outside.residency_by_cost < 0.3
    assert chip != "M1" or len(outside.segments) > 12  # in and out of every layer
    off = {op.op for op in outside.ops if op.unit != "ane"}
    assert {"softmax", "matmul"} <= off
    assert any("chunks" in each for each in outside.advice)
    assert anex.explain(preset("llama", 2048), chip=chip).residency == 1


@pytest.mark.parametrize("name", ["mobilenet", "vit", "gpt2"])
def test_presets_are_nearly_all_on_the_engine(name):
    found = anex.explain(preset(name), chip="M4")
    assert found.residency >= 0.95
    assert found.cost.prediction.low < found.cost.prediction.ms < found.cost.prediction.high


def test_gpt2_has_the_weights_and_products_of_gpt2():
    found = anex.explain(preset("gpt2", 64))
    weights = sum(op.weight_bytes for op in found.cost.ops if op.op == "linear")
    assert weights / 2 == pytest.approx(124e6, rel=0.02)  # parameters, of which the embedding is the head


def test_a_resident_program_that_does_little_is_told_slow():
    @anex.graph(x=(1, 8, 1, 32))
    def program(x):
        return mb.relu(x=x)

    assert any("Slow though resident" in each for each in anex.explain(program).advice)


def test_the_cpu_engine_can_be_asked_too():
    found = anex.explain(three_ops(), device="cpu")
    assert found.residency == 1
    assert "its own objections" in str(found)


def test_an_explanation_in_json_has_every_reason_with_rule_limit_source_and_fix():
    found = json.loads(anex.explain(three_ops()).to_json())
    assert found["simulated"] is True
    assert found["first_off"] == "middle"
    assert found["predicted"]["low_ms"] < found["predicted"]["ms"]
    (finding,) = [each for each in found["ops"][1]["findings"] if each["refuses"]]
    assert finding["rule"] == "unsupported-op"
    assert finding["sources"]
    assert finding["confidence"] == "high"
    assert finding["fix"]
    assert finding["chips"] == ["h13", "h14", "h15", "h16", "h17"]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"chip": "toaster"}, "no Apple chip"),
        ({"units": "GPU"}, "CPU_AND_NE"),
        ({"path": "gpu"}, "e5rt"),
        ({"device": "tpu"}, "'ane'"),
    ],
    ids=str,
)
def test_wrong_arguments_are_named(arguments, words):
    with pytest.raises(anex.ArgumentError, match=words):
        anex.explain(three_ops(), **arguments)


def test_what_is_no_program_is_refused():
    with pytest.raises(anex.ArgumentError, match="no MIL program"):
        anex.explain(42)


def test_two_thousand_ops_are_explained_in_seconds():
    weight = np.zeros((16, 16, 1, 1), np.float16)

    @anex.graph(x=(1, 16, 1, 32))
    def program(x):
        for _ in range(1000):
            x = mb.relu(x=mb.conv(x=x, weight=weight))
        return x

    begin = time.process_time()
    found = anex.explain(program)
    assert len(found.ops) == 2000
    assert time.process_time() - begin < 3


def test_the_command_reads_packages_and_text_and_exits_by_residency(tmp_path):
    program = anex.compile(three_ops(), device="cpu")
    package = tmp_path / "three.mlpackage"
    program.save(package)
    (tmp_path / "three.mil").write_text(program.mil)
    for file in (package, tmp_path / "three.mil"):
        done = command(file, "--chip", "M2 Max", "--units", "ALL")
        assert done.returncode == 0, done.stderr
        assert "simulated" in done.stdout
        assert "scatter_nd" in done.stdout
    assert command(package, "--min-residency", "0.5").returncode == 0
    failed = command(package, "--min-residency", "0.95")
    assert failed.returncode == 1
    assert "below 95%" in failed.stderr


def test_the_command_compares_contexts_and_tells_of_ops_by_name():
    done = command("--preset", "llama", "--chip", "M1", "--max-context", "2048", "--max-context", "32768")
    assert done.returncode == 0, done.stderr
    assert "100.0%" in done.stdout
    assert "16384" in done.stdout
    named = command("--op", "lstm", "--op", "relu", "--chip", "M4", "--json")
    assert [each["taken"] for each in json.loads(named.stdout)] == ["no", "yes"]


@pytest.mark.parametrize(
    "content", [b"", b"\x00" * 64, b"program(1.3) {", b"(" * 100_000], ids=["empty", "0", "cut", "deep"]
)
def test_a_broken_file_is_one_clear_line(tmp_path, content):
    file = tmp_path / "model.mil"
    file.write_bytes(content)
    done = command(file)
    assert done.returncode == 1
    assert done.stderr.startswith("Error: ")
    assert done.stderr.count("\n") == 1, done.stderr[:300]


def test_text_is_explained_without_its_weights_but_not_with_absurd_ones(tmp_path):
    text = """program(1.3) {{
        func main<ios18>(tensor<fp16, [1, 8, 1, 8]> x) {{
            tensor<fp16, [{n}, 8, 1, 1]> w = const()[name = string("w"), val = tensor<fp16, [{n}, 8, 1, 1]>(
                BLOBFILE(path = string("@model_path/weights/weight.bin"), offset = uint64(64)))];
            tensor<fp16, [1, {n}, 1, 8]> y = conv(x = x, weight = w)[name = string("y")];
        }} -> (y);
    }}"""
    (tmp_path / "model.mil").write_text(text.format(n=16))
    found = anex.explain(tmp_path / "model.mil")
    assert found["y"].flops == 2 * 16 * 8 * 8
    with pytest.raises(anex.MissingFileError, match=r"weight\.bin"):
        anex.from_mil(tmp_path / "model.mil")  # to run it, they are needed
    (tmp_path / "model.mil").write_text(text.format(n=10**12))
    with pytest.raises(anex.FormatError, match="4 GiB"):
        anex.explain(tmp_path / "model.mil")


def test_an_absurd_extent_is_refused_by_its_rule_in_no_time(tmp_path):
    shape = "[9000000000000000000, 9000000000000000000, 9000000000000000000, 9000000000000000000]"
    (tmp_path / "model.mil").write_text(
        f"program(1.3) {{ func main<ios18>(tensor<fp16, {shape}> x) {{ tensor<fp16, {shape}> y = relu(x = x)"
        '[name = string("y")]; } -> (y); }'
    )
    assert "axis-extent" in anex.explain(tmp_path / "model.mil")["y"].objections[0]
