"""The probes: what they answer on the engine and on the stand-in, that wrong numbers fail, and what is kept."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import numpy as np
import pytest
from click.testing import CliRunner
from needs_ane import needs_ane

from anex import answers as store
from anex.bench.timing import Effort
from anex.cli import main
from anex.errors import CompileError
from anex.probe import asking, immutability, runtime
from anex.probe.questions import backward, integers
from anex.probe.record import PROBES, Check
from anex.probe.session import Session

ONCE = Effort(0, 1, 0.0)
NAMED = """
basic api rmsnorm-bwd classifier weight-reload weight-patch perf-stats qos advanced causal-attn sdpa-mask conv-attn
dynamic-matmul fused-attn fused-bwd fused-qkv multi-input decode-attn ffn-seq1 lm-head chaining cliffs w8a8 quant rules
""".split()  # noqa: SIM905
FRAMEWORK = {name for name, probe in PROBES.items() if probe.device == "ane"}


@pytest.fixture(autouse=True)
def home(tmp_path, monkeypatch):
    monkeypatch.setenv("ANEX_HOME", str(tmp_path))
    return tmp_path


def test_every_published_probe_is_there():
    assert sorted(PROBES) == sorted(NAMED)


@pytest.mark.parametrize("name", [name for name in NAMED if name not in FRAMEWORK])
def test_the_engine_passes_each_probe_that_any_device_can_be_asked(name):
    answer = asking.answer(PROBES[name], "cpu", ONCE, small=True)
    assert answer["status"] == "PASS", answer["verdict"]
    assert answer["device"] == "cpu"
    assert answer["checks"]


@pytest.mark.parametrize("name", sorted(FRAMEWORK))
def test_questions_of_the_framework_are_skipped_elsewhere_with_the_reason(name):
    answer = asking.answer(PROBES[name], "cpu", ONCE)
    assert answer["status"] == "SKIP"
    assert "it is about device='ane'" in answer["verdict"]


@needs_ane
@pytest.mark.parametrize("name", NAMED)
def test_the_stand_in_answers_each_probe_and_is_named_as_what_it_is(name):
    answer = asking.answer(PROBES[name], "ane", ONCE, small=True)
    assert answer["status"] == ("FAIL (expected)" if name == "weight-reload" else "PASS"), answer["verdict"]
    assert answer["device"] == "double"


def test_wrong_numbers_fail(monkeypatch):
    right = backward.rmsnorm_backward_reference
    monkeypatch.setattr(backward, "rmsnorm_backward_reference", lambda x, dy, weight: right(x, dy, weight) + 0.02)
    answer = asking.answer(PROBES["rmsnorm-bwd"], "cpu", ONCE)
    assert answer["status"] == "FAIL"
    assert [check["passed"] for check in answer["checks"]] == [True, False]  # 0.02 is below one limit, above the other


def test_integers_that_are_rounded_half_up_would_be_noticed(monkeypatch):
    def half_up(x, weight):
        codes = np.clip(np.rint(x.astype(np.float64) / 2.0**-3), -128, 127).astype(np.int64)
        sums = np.einsum("oc,bchw->bohw", weight.astype(np.int64), codes)
        return np.clip(np.floor(sums / 4 + 0.5), -128, 127) * 2.0**-3

    monkeypatch.setattr(integers, "exactly", half_up)
    assert integers.w8a8(Session("cpu", ONCE)).key == "inexact"


def test_a_check_of_what_is_not_a_number_fails():
    assert not Check("x", float("nan"), 1.0).passed


def test_a_probe_that_raises_is_a_failure_with_the_reason_and_the_next_one_goes_on(monkeypatch):
    monkeypatch.setattr(backward, "errors", lambda *_: 1 / 0)
    answers = list(asking.ask(["rmsnorm-bwd", "cliffs"], "cpu", ONCE))
    assert [answer["status"] for answer in answers] == ["FAIL", "PASS"]
    assert answers[0]["verdict"] == "ZeroDivisionError: division by zero"


def test_the_command_tells_the_answers_writes_the_report_and_keeps_them(tmp_path):
    report = tmp_path / "report.json"
    options = ["--device", "cpu", "--quick", "--report", str(report)]
    done = CliRunner().invoke(main, ["probe", "w8a8", "cliffs", "api", *options])
    assert done.exit_code == 0, done.output
    assert "0 of 65536 values differ from exact integers" in done.output
    assert "2 passed, 0 failed, 1 skipped of 3" in done.output
    found = json.loads(report.read_text())
    assert [each["name"] for each in found["probes"]] == ["api", "cliffs", "w8a8"]
    assert {name: each["key"] for name, each in store.load("cpu").items()} == {"cliffs": "none", "w8a8": "exact"}


@needs_ane
def test_the_table_of_six_questions_tells_this_machine_beside_what_was_published():
    names = ("weight-reload", "advanced", "qos", "perf-stats", "chaining")
    answers = [asking.answer(PROBES[name], "ane", ONCE, small=True) for name in names]
    _, head, _, *rows = immutability.table(answers, "ane")
    assert len(rows) == 6
    assert "Result here (double)" in head
    assert "Published for M5 (seed 003)" in head
    for row, said in zip(rows, ("factor 2", "weights buffer is ignored", "Spread: ", "code 15", "Counters of the",
                                "evaluateRealTime: YES"), strict=True):  # fmt: skip
        assert said in row
    assert all("not asked" in row for row in immutability.table([], "ane")[3:])


@needs_ane
def test_the_way_in_real_time_is_timed_with_the_others_and_the_closed_one_tells_its_code():
    answer = asking.answer(PROBES["chaining"], "ane", ONCE)
    rows = answer["data"]
    assert list(rows) == ["sequential + copy", "shared surface", "fused MIL", "real-time evaluation",
                          "_ANEChainingRequest"]  # fmt: skip
    assert rows["_ANEChainingRequest"]["ms"] is None
    assert "code 15" in rows["_ANEChainingRequest"]["status"]
    assert rows["real-time evaluation"]["ms"] > 0
    assert [check["found"] for check in answer["checks"]] == [0] * 4  # all 6.0
    assert [line.split("  ")[0] for line in answer["lines"][1:]] == [
        "sequential + copy", "shared surface", "_ANEChainingRequest", "real-time evaluation", "fused MIL",
    ]  # fmt: skip


@needs_ane
def test_classes_of_the_framework_are_listed_with_methods_and_those_of_others_are_not():
    names = runtime.classes()
    assert {"_ANEClient", "_ANEInMemoryModel", "_ANEPerformanceStats"} <= {*names}
    assert all(name.startswith("_ANE") for name in names)
    methods = runtime.described("_ANEPerformanceStats")
    assert any(line.startswith("-[_ANEPerformanceStats hwExecutionTime] Q16@0:8") for line in methods)
    assert any(line.startswith("+[_ANEPerformanceStats statsWithHardwareExecutionNS:]") for line in methods)
    assert runtime.described("_ANENothing") == []


def test_a_head_that_does_not_compile_is_told_from_a_wrong_one(monkeypatch):
    def refuse(*_, **__):
        raise CompileError("too many channels")

    monkeypatch.setattr(Session, "run", refuse)
    assert asking.answer(PROBES["lm-head"], "cpu", ONCE, small=True)["key"] == "refused"
    found = asking.answer(PROBES["multi-input"], "cpu", ONCE)
    assert (found["key"], found["status"]) == ("refused", "FAIL")


def test_all_probes_can_be_named_so_and_a_report_without_a_file_is_the_table(monkeypatch):
    monkeypatch.setattr(asking, "chosen", lambda names: [PROBES["weight-reload"]])
    done = CliRunner().invoke(main, ["probe", "all", "--quick", "--device", "cpu", "--report"])
    assert done.exit_code == 0, done.output
    assert "Result here (cpu)" in done.output


def test_a_file_that_cannot_be_written_is_said_before_anything_is_asked(tmp_path, monkeypatch):
    monkeypatch.setattr(asking, "answer", lambda *_: pytest.fail("something was asked"))
    done = CliRunner().invoke(main, ["probe", "w8a8", "--device", "cpu", "--report", str(tmp_path / "no" / "r.json")])
    assert done.exit_code == 1
    assert "does not exist; name another file" in done.output


@needs_ane
def test_the_self_test_keeps_what_it_asked_for_the_rules(tmp_path):
    done = subprocess.run([sys.executable, "-m", "anex", "selftest", "--only", "reduce-sum"], capture_output=True,
                          text=True, env={**os.environ, "ANEX_HOME": str(tmp_path)}, timeout=120)  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert store.load("ane")["selftest/reduce-sum"]["key"] == "wide"


def test_answers_that_were_kept_stay_when_others_come_and_broken_files_are_as_none(tmp_path):
    store.save("cpu", {"a": {"key": "1"}})
    store.save("cpu", {"b": {"key": "2"}})
    assert set(store.load("cpu")) == {"a", "b"}
    for broken in ("{", "[]", '{"schema_version": 1}', '{"schema_version": 1, "answers": {"a": 3}}'):
        store.path("cpu").write_text(broken)
        assert store.load("cpu") == {}


@pytest.mark.parametrize(("arguments", "said"), [(["nothing"], "there is no probe nothing"), ([], "give NAMES"),
                                                 (["w8a8", "--all"], "give NAMES")])  # fmt: skip
def test_names_that_are_no_probes_end_with_one_clear_line(arguments, said):
    done = CliRunner().invoke(main, ["probe", *arguments])
    assert done.exit_code != 0
    assert said in done.output
