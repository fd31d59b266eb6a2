"""Reports of ``anex bench``: the gate between two of them, their schema, and merging those of several machines."""

from __future__ import annotations

import copy
import json

import pytest
from click.testing import CliRunner
from suite_case import invoke, report_of

from anex.bench.report import SCHEMA
from anex.cli import main
from anex.errors import ArgumentError, FormatError
from anex.suite import community, gate, reports


@pytest.fixture(autouse=True)
def home(tmp_path, monkeypatch):
    monkeypatch.setenv("ANEX_HOME", str(tmp_path / "home"))


def slower(report, factor):
    """The same with all times so much longer."""
    changed = copy.deepcopy(report)
    for row in changed["benchmarks"][0]["rows"]:
        row["values"]["ms"] *= factor
        row["values"]["tflops"] /= factor
    return changed


@pytest.mark.parametrize(("factor", "limit", "regressions"), [(1.2, 0.15, 6), (1.1, 0.15, 0), (0.5, 0.15, 0),
                                                              (1.0, 0.0, 0), (1.1, 0.05, 6)])  # fmt: skip
def test_longer_times_and_lower_rates_above_the_limit_fail(tmp_path, monkeypatch, factor, limit, regressions):
    base = report_of(monkeypatch, tmp_path)
    found = gate.compare(base, slower(base, factor), limit)
    assert len(found.changes) == 6  # ms and TFLOPS of three rows
    assert len(found.regressions) == regressions
    assert found.failed == bool(regressions)
    for change in found.regressions:
        assert change.worse == pytest.approx(factor - 1)


def test_rows_are_matched_by_their_sizes_and_not_their_labels_alone(tmp_path, monkeypatch):
    base = report_of(monkeypatch, tmp_path)
    for row in base["benchmarks"][0]["rows"]:
        row["config"] = "the same"
    now = copy.deepcopy(base)
    now["benchmarks"][0]["rows"].reverse()
    assert {change.worse for change in gate.compare(base, now, 0.0).changes} == {0.0}


def test_what_passed_before_and_fails_now_is_a_regression(tmp_path, monkeypatch):
    base = report_of(monkeypatch, tmp_path)
    now = copy.deepcopy(base)
    row = now["benchmarks"][0]["rows"][1]
    row.update(status="FAIL", failed={"eval": "compile: no"}, values=dict.fromkeys(row["values"]))
    found = gate.compare(base, now, 0.15)
    assert found.failed
    assert found.broken == ["small 2 passed before: compile: no"]


def test_what_is_skipped_that_passed_before_fails_and_what_only_one_report_has_is_named(tmp_path, monkeypatch):
    base = report_of(monkeypatch, tmp_path)
    now = copy.deepcopy(base)
    first, second, third = now["benchmarks"][0]["rows"]
    first.update(status="SKIP", skipped="no such device", values=dict.fromkeys(first["values"]))
    second["config"] = "new"
    found = gate.compare(base, now, 0.15)
    assert found.failed
    assert found.broken == ["small 1 passed before and is skipped: no such device"]
    assert found.missing == {"in the base": ["small 2"], "in this run": ["small new"]}
    assert {"Only in the base: small 2", "Only in this run: small new"} <= {*found.lines()}
    assert {change.config for change in found.changes} == {third["config"]}


def test_trainings_are_compared_by_their_steps(tmp_path, monkeypatch):
    base = report_of(monkeypatch, tmp_path)
    ran = {"name": "mine", "status": "PASS", "ms_per_step": 2.0, "result": "PASS", "reasons": []}
    failed = {"name": "other", "status": "FAIL", "result": "FAIL", "reasons": ["the loss of step 1 is nan"]}
    before = {**base, "training": [ran, {**failed, "status": "PASS"}]}
    found = gate.compare(before, {**base, "training": [{**ran, "ms_per_step": 3.0}, failed]}, 0.15)
    assert [change.line for change in found.regressions] == ["training mine: ms/step 2 to 3 ms, 50% worse"]
    assert found.broken == ["training other passed before: the loss of step 1 is nan"]


def test_a_change_smaller_than_the_spread_of_the_calls_is_said_to_be_noise(tmp_path, monkeypatch):
    base = report_of(monkeypatch, tmp_path)
    for row in base["benchmarks"][0]["rows"]:
        row["timings"]["eval"].update(median_ms=1.0, p10_ms=0.8, p90_ms=1.3)
    lines = "\n".join(gate.compare(base, slower(base, 1.2), 0.15).lines())
    assert "within the noise: p10 to p90 is 50% of the median" in lines


def test_other_devices_merged_files_and_reports_without_a_common_row_are_refused(tmp_path, monkeypatch):
    base = report_of(monkeypatch, tmp_path)
    with pytest.raises(ArgumentError, match="of device 'ane' and this run of 'cpu'"):
        gate.compare({**base, "system": {**base["system"], "device": "ane"}}, base, 0.1)
    with pytest.raises(ArgumentError, match="of chip 'Apple M4' and this run of"):
        gate.compare({**base, "system": {**base["system"], "chip": "Apple M4"}}, base, 0.1)
    with pytest.raises(ArgumentError, match="no configuration in common"):
        gate.compare({**base, "benchmarks": []}, base, 0.1)
    with pytest.raises(ArgumentError, match="merged from several machines"):
        gate.compare(community.merged([base]), base, 0.1)


def test_the_command_fails_for_a_regression_and_not_without_one(tmp_path, monkeypatch):
    base = report_of(monkeypatch, tmp_path / "base")
    fast, slow = tmp_path / "fast.json", tmp_path / "slow.json"
    fast.write_text(json.dumps(slower(base, 1e-3)))
    slow.write_text(json.dumps(slower(base, 1e3)))
    for file, code, said in ((fast, 1, "FAIL: small"), (slow, 0, "0 more than 15% worse, 6 as much better")):
        done = invoke(tmp_path / file.stem, "--name", "small", "--compare", file, "--fail-above", "15%")
        assert done.exit_code == code, done.output
        assert said in done.output


@pytest.mark.parametrize(("text", "why"), [
    ("{", "is no JSON"), ("[]", "is no report"), ('{"a": 1}', "is no report"),
    ('{"benchmarks": [], "schema_version": 99}', "has the schema 99"),
])  # fmt: skip
def test_files_that_are_no_reports_are_refused(tmp_path, text, why):
    file = tmp_path / "file.json"
    file.write_text(text)
    with pytest.raises(FormatError, match=why):
        reports.load(file)


@pytest.mark.parametrize(("spoil", "why"), [
    (lambda row: row.pop("values"), "values"), (lambda row: row.update(values=[]), "values"),
    (lambda row: row.update(values={"ms": {}}), "values"), (lambda row: row.update(status="fine"), "status"),
    (lambda row: row.update(config=3), "config"), (lambda row: row.update(facts={"n": "many"}), "facts"),
    (lambda row: row["timings"]["eval"].pop("p90_ms"), "p90_ms"), (lambda row: row.update(timings=3), "timings"),
])  # fmt: skip
def test_a_base_with_a_defect_is_refused_with_its_place(tmp_path, monkeypatch, spoil, why):
    report = report_of(monkeypatch, tmp_path)
    spoil(report["benchmarks"][0]["rows"][1])
    file = tmp_path / "base.json"
    for broken in (report, {"schema_version": 1, "kind": "community", "reports": [report]}):
        file.write_text(json.dumps(broken))
        with pytest.raises(FormatError, match=rf"rows\[1\].*{why}"):
            reports.load(file)
    done = invoke(tmp_path / "out", "--name", "small", "--compare", file)
    assert done.exit_code == 1
    assert done.output.startswith(f"Error: {file} is no whole report")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("missing", ["date", "system", "benchmarks", "schema_version"])
def test_a_report_that_lacks_a_field_is_refused(tmp_path, monkeypatch, missing):
    report = report_of(monkeypatch, tmp_path)
    del report[missing]
    (tmp_path / "base.json").write_text(json.dumps(report))
    with pytest.raises(FormatError):
        reports.load(tmp_path / "base.json")


def test_what_is_written_is_as_the_schema_describes_it_and_every_field_is_described(tmp_path, monkeypatch):
    report = report_of(monkeypatch, tmp_path)
    one = CliRunner().invoke(main, ["bench", "matmul", "--sizes", "4", "--quick", "--device", "cpu", "--json"])
    for each in (report, json.loads(one.output), community.merged([report])):
        assert reports.defect_of(each) == ""
    described = json.loads(reports.FILE.read_text())
    assert described["properties"]["schema_version"]["const"] == SCHEMA
    assert {*report} <= {*described["definitions"]["machine"]["properties"], "schema_version"}
    assert {*report["benchmarks"][0]["rows"][0]} <= {*described["definitions"]["row"]["properties"]}


# ---- merging --------------------------------------------------------------------------------------------------------


def test_merging_is_a_union_whatever_the_order_and_however_often(tmp_path, monkeypatch):
    one = report_of(monkeypatch, tmp_path)
    two = {**slower(one, 2), "system": {**one["system"], "chip": "Apple M4", "device": "ane"}}
    both = community.merged([one, two])
    assert len(both["reports"]) == 2
    assert community.merged([two, one]) == both == community.merged([both, one, both])
    assert community.merged([community.merged([one]), community.merged([two])]) == both


def test_two_machines_reports_become_one_file_and_one_table(tmp_path, monkeypatch):
    one = report_of(monkeypatch, tmp_path)
    two = {**slower(one, 2), "system": {**one["system"], "chip": "Apple M4", "device": "ane"}}
    files = []
    for name, report in (("a", one), ("b", two)):
        files.append(str(tmp_path / f"{name}.json"))
        (tmp_path / f"{name}.json").write_text(json.dumps(report))
    merged, page = tmp_path / "all.json", tmp_path / "all.md"
    for arguments in ([*files, "--out", str(merged)], [str(merged), files[0], "--out", str(page)]):
        done = CliRunner().invoke(main, ["bench", "merge", *arguments])
        assert done.exit_code == 0, done.output
    assert len(reports.load(merged)["reports"]) == 2
    lines = page.read_text().splitlines()
    assert sum("Apple M4 (ane)" in line for line in lines) == 1
    row = next(line for line in lines if line.startswith("| 4 |"))
    here, there = (float(cell.split(" ms")[0]) for cell in row.strip("| ").split(" | ")[1:])
    ms = one["benchmarks"][0]["rows"][2]["values"]["ms"]
    assert sorted([here, there]) == pytest.approx([ms, 2 * ms], 1e-3)


def test_a_name_that_is_neither_json_nor_a_table_is_refused(tmp_path):
    done = CliRunner().invoke(main, ["bench", "merge", "x.json", "--out", str(tmp_path / "x.txt")])
    assert done.exit_code == 2
    assert "ends in .json or .md" in done.output
