"""The probes: what they answer on the engine and on the stand-in, that wrong numbers fail, and what is kept."""

from __future__ import annotations

import json

import numpy as np
import pytest
from click.testing import CliRunner
from needs_ane import needs_ane

from anex import answers as store
from anex.bench.timing import Effort
from anex.cli import main
from anex.probe import asking
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


def test_answers_that_were_kept_stay_when_others_come_and_broken_files_are_as_none(tmp_path):
    store.save("cpu", {"a": {"key": "1"}})
    store.save("cpu", {"b": {"key": "2"}})
    assert set(store.load("cpu")) == {"a", "b"}
    store.path("cpu").write_text("{")
    assert store.load("cpu") == {}


@pytest.mark.parametrize(("arguments", "said"), [(["nothing"], "there is no probe nothing"), ([], "give NAMES"),
                                                 (["w8a8", "--all"], "give NAMES")])  # fmt: skip
def test_names_that_are_no_probes_end_with_one_clear_line(arguments, said):
    done = CliRunner().invoke(main, ["probe", *arguments])
    assert done.exit_code != 0
    assert said in done.output
