"""``anex doctor``: on plain Linux, on the stand-in, and on a stand-in that is not what anex expects."""

import json
import os
import subprocess
import sys

import fake_ane
import pytest

from anex import cache, doctor
from anex.requirements import requirements


def anex(*arguments, **environment):
    """The command, in a process with this environment; without switches of the stand-in, the plain one."""
    done = subprocess.run(
        [sys.executable, "-m", "anex", *arguments],
        env=environment or plain(),
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert not done.stderr, done.stderr
    return done


def plain():
    return {name: value for name, value in os.environ.items() if name not in ("ANEX_ANE_FRAMEWORK", "FAKE_ANE")}


def facts(**switches):
    return json.loads(anex("doctor", "--json", **fake_ane.environment(**switches)).stdout)


def test_doctor_works_where_there_is_no_neural_engine():
    done = anex("doctor")
    assert done.returncode == 0
    assert "device='ane' is not available: this is Linux" in done.stdout
    assert "device='cpu' runs the same programs here" in done.stdout
    found = json.loads(anex("doctor", "--json").stdout)
    assert not found["ane"]["available"]
    assert found["cpu"]["instruction_sets"]
    assert found["verdicts"]


def test_doctor_tells_chip_versions_methods_qos_and_budget():
    found = facts(arch="h16g")
    ane = found["ane"]
    assert ane["available"]
    assert (ane["architecture"], ane["chip"], ane["family"]) == ("h16g", "M4", "H16")
    assert ane["qos"]["found"] == ane["qos"]["expected"]
    assert len(ane["selectors"]) > 100
    assert all(each["fits"] for each in ane["selectors"] if each["is_required"])
    assert found["budget"]["compiles"] == 0
    assert set(found["versions"]) >= {"anex", "python", "numpy", "coremltools"}
    assert any(verdict.startswith("device='ane' is available: M4 (h16g)") for verdict in found["verdicts"])


def test_doctor_reports_each_requirement_of_the_published_tools_and_what_it_is_needed_for():
    found = {each["name"]: each for each in facts()["requirements"]}
    assert [name.split()[0] for name in found] == ["macOS", "Apple", "Xcode", "Python", "coremltools"]
    assert [each["is_met"] for each in found.values()][3:] == [True, True]
    text = anex("doctor").stdout
    assert ("no   macOS 15 or later: none (Linux); needed for the Neural Engine" in text) == (sys.platform == "linux")
    assert "ok   coremltools 9 or later: " in text


@pytest.mark.parametrize(("release", "is_met"), [("15.6", True), ("26.2", True), ("14.7.1", False), ("", False)])
def test_a_system_is_new_enough_by_its_first_number(monkeypatch, release, is_met):
    monkeypatch.setattr("platform.mac_ver", lambda: (release, ("", "", ""), "arm64"))
    known = {"machine": {"chip": "Apple M4"}, "versions": {"python": "3.12.1", "coremltools": "9.0"}}
    assert requirements(known)[0].is_met == is_met


def test_doctor_says_that_a_stand_in_is_no_hardware():
    assert any("nothing here tells of hardware" in verdict for verdict in facts()["verdicts"])


def test_a_method_of_other_types_is_named_with_what_was_found():
    found = facts(wrong_types="loadWithQoS:options:error:,numANEs")
    other = {each["name"]: each for each in found["ane"]["selectors"] if each["found"] and not each["fits"]}
    assert set(other) == {"loadWithQoS:options:error:", "numANEs"}
    assert other["numANEs"]["found"] == "v16@0:8"
    assert any("2 of 116 private methods have other types, 1 of them required" in each for each in found["verdicts"])
    text = anex("doctor", **fake_ane.environment(wrong_types="loadWithQoS:options:error:")).stdout
    assert "BAD -[_ANEInMemoryModel loadWithQoS:options:error:] B36@0:8I16@20^@28 found v16@0:8" in text


def test_a_missing_method_that_programs_need_makes_the_device_unavailable():
    found = facts(missing_selector="evaluateWithQoS:options:request:error:")
    assert not found["ane"]["available"]
    assert "evaluateWithQoS:options:request:error:" in found["ane"]["reason"]
    missing = [each["name"] for each in found["ane"]["selectors"] if each["is_required"] and not each["found"]]
    assert missing == ["evaluateWithQoS:options:request:error:"]


def test_a_missing_class_is_told_apart_from_missing_methods():
    found = facts(missing_class="_ANEChainingRequest")
    (chaining,) = [each for each in found["ane"]["selectors"] if each["class"] == "_ANEChainingRequest"]
    assert not chaining["has_class"]
    assert found["ane"]["available"]


@pytest.mark.parametrize(
    ("switch", "reason"), [("has_ane", "no Neural Engine"), ("virtual_machine", "virtual machine")]
)
def test_doctor_gives_the_reason_of_a_machine_without_hardware(switch, reason):
    switches = {"has_ane": "no"} | ({"virtual_machine": "yes"} if switch == "virtual_machine" else {})
    found = facts(**switches)
    assert not found["ane"]["available"]
    assert reason in found["ane"]["reason"]


def test_doctor_does_not_wait_for_coremltools():
    program = "import sys; from anex import doctor; doctor.examine(); print('coremltools' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", program], env=fake_ane.environment(), capture_output=True, text=True)
    assert done.stdout.strip() == "False", done.stdout + done.stderr


def test_the_page_and_the_facts_agree(monkeypatch, tmp_path):
    monkeypatch.setenv("ANEX_CACHE_DIR", str(tmp_path))
    found = doctor.examine()
    page = doctor.text(found)
    for verdict in found["verdicts"]:
        assert verdict in page
    assert str(cache.folder()) in page
