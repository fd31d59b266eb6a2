"""``anex.explain`` and the command: where ops run, why, and what follows."""

import json

import numpy as np
import pytest
from click.testing import CliRunner

import anex
from anex import mb
from anex.cli import main
from anex.placement.presets import preset


def command(*arguments):
    return CliRunner().invoke(main, ["explain", *map(str, arguments)])


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


def test_residency_falls_with_the_context_when_the_rules_hold_that_sources_disagree_on():
    left = [anex.explain(preset("llama", tokens), path="coreml") for tokens in (2048, 8192, 16384)]
    share = [each.residency_if_contested for each in left]
    assert share[0] > share[1] > share[2]
    assert [each.residency for each in left] == [left[0].residency] * 3  # what is well-founded on M4 says otherwise
    decided = anex.explain(preset("llama", 16384), path="coreml", units="ALL", contested=True)
    assert decided.residency == pytest.approx(share[2])
    off = {op.op: op.unit for op in decided.ops if op.unit != "ane"}
    assert off["softmax"] == off["matmul"] == "gpu"
    assert any("S04" in reason for op in decided.ops for reason in op.reasons)
    assert "contested ones too" in str(decided)


def test_one_exotic_op_drops_the_residency():
    assert anex.explain(three_ops()).residency == pytest.approx(2 / 3)


def test_torch_modules_compiled_programs_and_text_are_explained_alike(tmp_path):
    import torch

    module = torch.nn.Sequential(torch.nn.Conv2d(4, 8, 1), torch.nn.ReLU())
    inputs = {"x": (1, 4, 8, 8)}
    program = anex.from_torch(module, **inputs)
    compiled = anex.compile(program, device="cpu")
    wanted = [(op.op, op.unit, op.shape) for op in anex.explain(program).ops]
    assert [op for op, *_ in wanted] == ["conv", "relu"]
    (tmp_path / "m.mlmodelc").mkdir()
    text, weights = anex.store.to_text(program)
    (tmp_path / "m.mlmodelc/model.mil").write_text(text)
    (tmp_path / "m.mlmodelc/weights").mkdir()
    (tmp_path / "m.mlmodelc/weights/weight.bin").write_bytes(weights)
    compiled.save(tmp_path / "m.mlpackage")
    for found in (
        anex.explain(module, inputs=inputs), anex.explain(compiled), anex.explain(tmp_path / "m.mlmodelc"),
        anex.explain(str(tmp_path / "m.mlpackage")),
    ):  # fmt: skip
        kept = [(op.op, op.unit, op.shape) for op in found.ops if op.op != "cast"]
        assert kept == wanted
    with pytest.raises(anex.ArgumentError, match="inputs="):
        anex.explain(module)
    relu = "tensor<fp16, [1, 4, 1, 8]> y = relu(x = x);"
    assert anex.explain(
        f"program(1.3) {{ func main<ios18>(tensor<fp16, [1, 4, 1, 8]> x) {{ {relu} }} -> (y); }}"
    ).residency == 1  # fmt: skip


NAMED = ["R-BAKED", "R-SDPA-MASK", "R-COMPILE-119", "R-MIN-SURFACE-49152", "R-STRIDE-32", "R-CHAINING", "R-DIM-16K",
         "R-FP16", "R-STATIC", "R-QUANT-TENSOR", "R-ATTN-CHUNK", "R-GATHER"]  # fmt: skip


@pytest.mark.parametrize("name", NAMED)
def test_every_published_constraint_is_found_by_name_with_source_confidence_and_provenance(name):
    done = CliRunner().invoke(main, ["explain", "--rule", name, "--json"])
    (found,) = json.loads(done.output)
    assert found["name"] == name
    assert "seed" in found["provenance"]
    for rule in found["rules"]:
        assert rule["confidence"] in ("high", "medium", "low")
        assert rule["sources"]
        assert rule["fix"]
    assert name in CliRunner().invoke(main, ["explain", "--rule", name.lower()]).output
    from anex.selftest.probes import PROBES

    assert found["probe"] == "" or found["probe"] in PROBES


def test_a_rule_nobody_knows_is_refused_with_the_names_there_are():
    done = CliRunner().invoke(main, ["explain", "--rule", "R-NOTHING"])
    assert done.exit_code == 1
    assert "R-SDPA-MASK" in done.output


def test_findings_carry_the_names_and_programs_their_own_notes():
    @anex.graph(q=(1, 2, 8, 32), k=(1, 2, 8, 32), m=(8, 8))
    def program(q, k, m):
        w = mb.constexpr_affine_dequantize(
            quantized_data=np.ones((32, 32), np.int8), zero_point=np.zeros(32, np.int8),
            scale=np.ones(32, np.float16), axis=0,
        )  # fmt: skip
        y = mb.scaled_dot_product_attention(query=q, key=k, value=k, attn_mask=m, name="y")
        return mb.linear(x=y, weight=w)

    found = json.loads(anex.explain(program).to_json())
    told = {name for op in found["ops"] for finding in op["findings"] for name in finding["names"]}
    assert "R-SDPA-MASK" in told
    notes = {name for finding in found["notes"] for name in finding["names"]}
    assert {"R-BAKED", "R-MIN-SURFACE-49152", "R-STRIDE-32", "R-QUANT-TENSOR"} <= notes
    assert "(R-BAKED)" in str(anex.explain(program))
    by_core_ml = {f["rule"] for f in json.loads(anex.explain(program, path="coreml").to_json())["notes"]}
    assert by_core_ml == {"quantised-per-tensor"}


def test_advice_sends_tiny_work_to_the_cpu_streams_of_weights_to_the_gpu_and_the_rest_to_the_engine():
    from anex.placement import advise

    assert advise(three_ops()).unit == "cpu"  # next to nothing to do

    @anex.graph(x=(1, 8192))
    def one_token(x):
        return mb.linear(x=x, weight=np.zeros((8192, 8192), np.float16))

    assert advise(one_token).unit == "gpu"
    assert advise(preset("mobilenet")).unit == "ane"
    assert advise(preset("llama", 32768), chip="M1").unit == "gpu"
    done = CliRunner().invoke(main, ["advise", "--chip", "M4", "--json"])
    table = {row["workload"].split(" ")[0]: row for row in json.loads(done.output)}
    assert table["image"]["target"] == "ane"
    assert table["chat"]["target"] == table["chat"]["guide"] == "gpu"
    assert all(row["low_ms"] <= row["ms"] < row["high_ms"] for row in table.values())
    assert "guide" in CliRunner().invoke(main, ["advise"]).output


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


def test_the_command_reads_packages_and_text_and_exits_by_residency(tmp_path):
    program = anex.compile(three_ops(), device="cpu")
    package = tmp_path / "three.mlpackage"
    program.save(package)
    (tmp_path / "three.mil").write_text(program.mil)
    for file in (package, tmp_path / "three.mil"):
        done = command(file, "--chip", "M2 Max", "--units", "ALL")
        assert done.exit_code == 0, done.stderr
        assert "simulated" in done.stdout
        assert "scatter_nd" in done.stdout
    assert command(package, "--min-residency", "0.5").exit_code == 0
    failed = command(package, "--min-residency", "0.95")
    assert failed.exit_code == 1
    assert "below 95%" in failed.stderr


def test_the_command_compares_contexts_and_tells_of_ops_by_name():
    done = command("--preset", "llama", "--chip", "M1", "--max-context", "2048", "--max-context", "32768")
    assert done.exit_code == 0, done.stderr
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
    done = CliRunner().invoke(main, ["explain", str(file)])
    assert done.exit_code == 1
    assert done.output.startswith("Error: ")
    assert done.output.count("\n") == 1, done.output[:300]


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


def test_ops_about_lists_are_refused_one_by_one():
    @anex.graph(x=(1, 4, 1, 8))
    def program(x):
        kept = mb.make_list(init_length=2, elem_shape=(1, 4, 1, 8), dtype="fp16", name="kept")
        kept = mb.list_write(ls=kept, index=0, value=x, name="written")
        return mb.relu(x=mb.list_read(ls=kept, index=0, name="read"), name="y")

    for path in ("private", "coreml"):
        found = anex.explain(program, units="ALL", path=path)
        assert {op.name: op.unit for op in found.ops} == {"kept": "cpu", "written": "cpu", "read": "cpu", "y": "ane"}
        assert all(op.reasons for op in found.ops[:3])
        assert found["kept"].dtype == "list"
    assert {op.unit for op in anex.explain(program, device="cpu").ops[:3]} == {"none"}
    assert "make_list" in str(found)
