"""``anex selftest`` against the stand-in: it is complete, and it notices what is wrong."""

import json
import subprocess
import sys
from pathlib import Path

import fake_ane
import lean
import numpy as np
import pytest

from anex.ops import OPS
from anex.selftest import report, runner
from anex.selftest.cases import CASES, every
from anex.selftest.compare import compare
from anex.selftest.probe import GROUPS
from anex.selftest.probes import PROBES
from anex.selftest.suite import STATUSES

# No machine takes the one, and the other has a result whose shape the text could not say.
WITHOUT_A_CASE = {"conv_quantized", "non_zero"}


def selftest(path, *arguments, **switches):
    """(what the command printed, its report, its exit code) with the stand-in switched so."""
    done = subprocess.run(
        [sys.executable, "-m", "anex", "selftest", "--output", str(path), *arguments],
        env=fake_ane.environment(**switches),
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert not done.stderr, done.stderr
    return done.stdout, json.loads(path.read_text()), done.returncode


@pytest.fixture
def ask(tmp_path):
    """``ask("probe", switch=value)``: the probe's record; several probes give several."""

    def ask(*probes, **switches):
        only = [word for probe in probes for word in ("--only", probe)]
        _, found, _ = selftest(tmp_path / "report.json", *only, **switches)
        records = {each["id"]: each for each in found["probes"]}
        return records[probes[0]] if len(probes) == 1 and probes[0] in records else records

    return ask


@pytest.fixture(scope="module")
def complete(tmp_path_factory):
    return selftest(tmp_path_factory.mktemp("selftest") / "report.json", "--quick")


# ---- the table -----------------------------------------------------------------------------------------------------


def test_every_op_has_a_case_and_every_case_an_op():
    assert set(CASES) == set(OPS) - WITHOUT_A_CASE


def test_every_case_is_a_use_of_its_op():
    for case in every():
        assert case.op in {op.op_type for op in case.build().functions["main"].operations}, case.id


def test_a_case_has_the_same_inputs_in_every_process():
    program = (
        "from anex.selftest.cases import find; print({n: v.tobytes().hex() for n, v in find('add-1').values().items()})"
    )
    runs = [subprocess.run([sys.executable, "-c", program], capture_output=True, text=True).stdout for _ in range(2)]
    assert runs[0] == runs[1] != ""


# ---- a whole run ---------------------------------------------------------------------------------------------------


def test_every_op_appears_with_a_status_and_refused_ones_with_the_reason(complete):
    _, found, _ = complete
    assert {each["op"] for each in found["ops"]} == set(OPS) - WITHOUT_A_CASE
    for each in found["ops"]:
        assert each["status"] in STATUSES, each
        if each["status"] == "refused":
            assert each["reason"], each
    assert set(found["summary"]["refused_ops"]) == {each["op"] for each in found["ops"] if each["status"] == "refused"}


def test_no_op_is_wrong_on_a_stand_in_without_quirks(complete):
    _, found, _ = complete
    bad = {each["op"]: each["status"] for each in found["ops"] if each["status"] not in ("ok", "refused", "folded")}
    # the stand-in's compiler takes no control flow, and where the rules do not say so first, it does
    assert bad.items() <= {("cond", "compile error"), ("while_loop", "compile error")}, bad


def test_every_probe_answers_in_a_sentence_beside_what_sources_claim(complete):
    page, found, _ = complete
    assert [each["id"] for each in found["probes"]] == list(PROBES)
    for each in found["probes"]:
        assert each["status"] == "answered", each
        assert each["verdict"].endswith(".")
        assert each["group"] in GROUPS
        assert each["claims"]
        assert each["verdict"] in page


def test_the_report_names_machine_version_and_where_results_come_from(complete):
    page, found, code = complete
    assert found["schema"] == report.SCHEMA
    assert found["device"] == "double"
    assert "on a stand-in, no hardware" in page
    assert found["machine"]["versions"]["anex"]
    assert found["machine"]["ane"]["selectors"]
    assert found["summary"]["misfit_selectors"] == []
    assert code == (0 if found["summary"]["passed"] else 1)


def test_the_published_open_questions_are_all_asked():
    """The ranked contradictions of the facts file, 1 to 9."""
    asked = {
        1: ("symbol-order", "unequal-sizes"), 2: ("weight-reload", "load-without-compile"),
        3: ("compile-limit", "load-limit"),
        4: ("concat-compiles", "gelu-compiles", "conv-bias", "multi-input"), 5: ("surface-floor",),
        6: ("chip-family",), 7: ("int8-speed",), 8: ("nil-weights",), 9: ("dispatch-ways", "qos-latency"),
    }  # fmt: skip
    for probes in asked.values():
        for probe in probes:
            assert PROBES[probe].group == "question"


# ---- it can fail ---------------------------------------------------------------------------------------------------


FAULTS = """
import json, fake_ane
from anex.selftest import report, suite, worker
from anex.selftest.cases import find

def run(id, force=False, **switches):
    with fake_ane.switched(**switches):
        return suite.run(find(id), force=force)

print(json.dumps(worker.plain({
    "zeros": run("exp-0", empty_evaluate="yes"),
    "rejected": run("relu-0", reject="relu"),
    "other op": run("exp-1", reject="relu"),
    "thrown": run("relu-1", evaluate="throw"),
    "narrow": run("reduce_sum-0", numerics="ane"),
    "forced": run("mul-0", force=True),
    "refused": run("read_state-0", force=True),
})))
"""


@pytest.fixture(scope="module")
def faults():
    """Cases run while the stand-in is faulty, by fault."""
    environment = fake_ane.environment()
    environment["PYTHONPATH"] = lean.path(Path(__file__).parent)
    done = subprocess.run([sys.executable, "-c", FAULTS], env=environment, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def test_wrong_results_are_reported_with_their_error(faults):
    assert faults["zeros"]["status"] == "wrong"
    assert faults["zeros"]["ulp"] > 1000
    assert "is tolerated" in faults["zeros"]["reason"]


def test_a_refusal_of_the_compiler_is_a_compile_error_of_that_op_alone(faults):
    assert faults["rejected"]["status"] == "compile error"
    assert faults["other op"]["status"] == "ok"


def test_an_exception_of_the_framework_is_an_eval_error(faults):
    assert faults["thrown"]["status"] == "eval error"
    assert "NSInternalInconsistencyException" in faults["thrown"]["reason"]


def test_rounding_that_sources_report_is_tolerated_and_measured(faults):
    assert faults["narrow"]["status"] == "ok"
    assert 0 < faults["narrow"]["relative"] < 1e-2


def test_force_hands_the_program_over_as_it_is(faults):
    assert faults["forced"]["forced"]["status"] == "ok"
    assert faults["refused"]["status"] == "refused"
    assert faults["refused"]["forced"]["status"] == "not tried"


def test_what_failed_is_in_the_summary_and_in_the_exit_code(tmp_path):
    page, found, code = selftest(tmp_path / "r.json", "--quick", "--only", "abs", evaluate="no")
    assert found["summary"]["failed_cases"] == ["abs-0"]
    assert "abs-0 (x=[1,64,1,64]): eval error" in page
    assert code == 1


def test_a_required_method_of_other_types_fails_the_test(tmp_path):
    page, found, code = selftest(tmp_path / "r.json", "--only", "chip-family", wrong_types="loadWithQoS:options:error:")
    assert found["summary"]["misfit_selectors"]
    assert "found v16@0:8, expected B36@0:8I16@20^@28 (required)" in page
    assert code == 1


def test_without_the_device_the_report_gives_the_reason(tmp_path):
    page, found, code = selftest(tmp_path / "r.json", has_ane="no")
    assert found["ops"] == found["probes"] == []
    assert "device='ane' is not available" in page
    assert code == 1


def test_a_case_that_kills_its_process_costs_one_answer():
    jobs = [{"kind": "case", "id": "nothing-0"}, {"kind": "probe", "id": "chip-family"}]
    answers = [answer for _, answer in runner.perform(jobs)]
    assert answers[0]["status"] == "crash"
    assert "KeyError" in answers[0]["reason"]
    assert answers[1]["status"] in ("answered", "failed")


def test_a_case_that_hangs_is_given_up(monkeypatch):
    for name, value in fake_ane.environment(evaluate="slow:20000").items():
        monkeypatch.setenv(name, value)
    ((_, answer),) = runner.perform([{"kind": "probe", "id": "weights-buffer"}], seconds=3)
    assert answer["status"] == "timeout"


def test_unknown_names_are_refused_with_those_that_exist():
    done = subprocess.run(
        [sys.executable, "-m", "anex", "selftest", "--only", "sofmax"],
        env=fake_ane.environment(), capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 1
    assert "--only sofmax: neither an op nor a probe" in done.stderr


def test_a_report_for_a_folder_that_is_not_there_is_refused_before_anything_runs(tmp_path):
    done = subprocess.run(
        [sys.executable, "-m", "anex", "selftest", "--output", str(tmp_path / "no" / "r.json")],
        env=fake_ane.environment(), capture_output=True, text=True, timeout=20,
    )  # fmt: skip
    assert done.returncode == 1
    assert "does not exist" in done.stderr


# ---- answers follow the framework ----------------------------------------------------------------------------------


@pytest.mark.parametrize("limit", [0, 40])
def test_the_compile_limit_is_found(ask, limit):
    assert ask("compile-limit", compile_limit=limit)["key"] == (str(limit) if limit else "none")


def test_the_load_limit_is_found_and_that_unloading_makes_room(ask):
    found = ask("load-limit", load_limit=40)
    assert found["key"] == "40"
    assert found["data"]["freed"]
    assert ask("load-limit", load_limit=0)["key"] == "none"


def test_numerics_of_the_chip_are_told_from_plain_ones(ask):
    plain, chip = ask("numerics", numerics="plain"), ask("numerics", numerics="ane", arch="h13g")
    key = {id: (plain[id]["key"], chip[id]["key"]) for id in plain}
    assert key["accumulation"] == ("wide", "wide")
    assert key["reduce-sum"] == ("wide", "narrow")
    assert key["matmul-cliff"] == ("none", "32768")
    assert key["slice-cliff"] == ("none", "4096")
    assert key["subnormals"] == ("kept", "flushed")
    assert key["rounding"] == ("to even", "to even")


def test_later_chips_slice_what_the_first_could_not(ask):
    assert ask("slice-cliff", numerics="ane", arch="h17s")["key"] == "none"


@pytest.mark.parametrize(("switch", "key"), [("yes", "ignored"), ("no", "heeded")])
def test_a_mask_that_is_ignored_is_noticed(ask, switch, key):
    assert ask("sdpa-mask", sdpa_ignores_mask=switch)["key"] == key


def test_a_way_that_is_refused_is_left_out(ask):
    assert ask("dispatch-ways")["key"] == "evaluate+direct+real_time"
    assert ask("dispatch-ways", real_time="no")["key"] == "evaluate+direct"


def test_ops_that_the_compiler_rejects_are_so_reported(ask):
    assert ask("concat-compiles", reject="concat")["key"] == "refused at compile"
    assert ask("concat-compiles")["key"] == "right"


def test_newer_systems_name_a_surface_that_is_too_small(ask):
    assert ask("small-surface", macos=26)["key"] == "code 8"
    assert ask("small-surface", macos=27)["key"] == "code 42"


def test_what_an_unloaded_program_says_is_told(ask):
    assert ask("after-unload", after_unload="no")["key"] == "code 23"
    assert ask("after-unload", after_unload="silent")["key"] == "silent"


def test_weights_are_found_to_be_baked_and_the_cache_to_be_shared(ask):
    found = ask("weight-reload", "compiled-cache", "nil-weights")
    assert {id: each["key"] for id, each in found.items()} == {
        "weight-reload": "baked", "compiled-cache": "shared", "nil-weights": "nil",
    }  # fmt: skip


def test_chaining_that_succeeds_is_reported(ask):
    assert ask("chaining")["key"] == "code 15"
    assert ask("chaining", chaining="ok")["key"] == "yes"


def test_a_probe_without_an_answer_says_where_the_framework_refused(ask):
    found = ask("weights-buffer", load="no")
    assert (found["status"], found["key"]) == ("failed", "refused")
    assert "refused at load" in found["verdict"]


# ---- arithmetic ----------------------------------------------------------------------------------------------------


def test_errors_are_measured_in_units_of_the_last_place():
    x = np.array([1.0, -1.0, 0.0], "float16")
    assert compare(np.nextafter(x, np.float16(10)), x)["ulp"] == 1
    assert compare(-x, x)["ulp"] == 2 * 0x3C00
    assert compare(np.array([-0.0], "float16"), np.array([0.0], "float16"))["ulp"] == 0


def test_what_is_no_number_counts_as_infinitely_wrong_unless_it_is_expected():
    bad, good = np.array([1, np.nan, np.inf], "float16"), np.array([1, 2, np.inf], "float16")
    assert compare(bad, bad)["relative"] == 0
    assert compare(bad, good)["relative"] == np.inf
    assert compare(bad, good)["nonfinite"] == 1
