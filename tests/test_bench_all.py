"""``anex bench all`` and ``merge``: a whole report whatever fails or interrupts it; the gate; merging; pictures."""

from __future__ import annotations

import builtins
import copy
import json
import os
import subprocess
import sys
import xml.etree.ElementTree as ET
from functools import partial
from pathlib import Path

import pytest
from click.testing import CliRunner
from needs_ane import needs_ane

from anex import AneWarning, answers
from anex.bench import packages
from anex.bench import progress as bars
from anex.bench.columns import MS, TFLOPS, conv_facts
from anex.bench.programs import conv_chain
from anex.bench.record import Benchmark, Column, Config
from anex.bench.report import SCHEMA
from anex.bench.running import run
from anex.bench.tables import BENCHMARKS, benchmark
from anex.bench.timing import Effort
from anex.cli import main
from anex.errors import ArgumentError, FormatError
from anex.suite import community, gallery, gate, reports, training
from anex.suite.outcome import SECTIONS
from anex.suite.training import Training

ROOT = Path(__file__).parent.parent
ONCE = Effort(0, 1, 0.0)
SMALL = {depth: partial(conv_chain, depth, 16, 1, 32) for depth in (1, 2, 4)}
COLUMNS = (Column("config", "Config", "{}", lambda row: row.config.label), MS, TFLOPS)


@pytest.fixture(autouse=True)
def home(tmp_path, monkeypatch):
    monkeypatch.setenv("ANEX_HOME", str(tmp_path / "home"))


def raising(error):
    raise error


def configs(programs):
    for depth, make in programs.items():
        yield Config(f"{depth}", conv_facts(depth, 16, 1, 32), {"eval": make})


def table(monkeypatch, name, programs):
    """A benchmark that is there for one test."""
    made = Benchmark(name, f"The benchmark {name}", "nowhere", ("none", "none"), COLUMNS, lambda: configs(programs))
    monkeypatch.setitem(BENCHMARKS, name, made)


def invoke(tmp_path, *arguments):
    return CliRunner().invoke(
        main, ["bench", "all", "--device", "cpu", "--quick", "--out", str(tmp_path), *map(str, arguments)]
    )


def written(tmp_path):
    (text,), (data,) = tmp_path.glob("benchmark_results_*.txt"), tmp_path.glob("benchmark_results_*.json")
    assert text.stem == data.stem
    assert not list(tmp_path.glob(".*"))  # no draft is left
    return text.read_text(), json.loads(data.read_text())


def report_of(monkeypatch, tmp_path, name="small"):
    table(monkeypatch, name, SMALL)
    assert invoke(tmp_path, "--name", name).exit_code == 0
    return written(tmp_path)[1]


def test_the_report_has_the_published_sections_a_reason_for_each_skip_and_the_totals(tmp_path, monkeypatch):
    table(monkeypatch, "small", SMALL)
    absent = Training("train-absent", "no_such_example.py")
    monkeypatch.setattr("anex.suite.playing.TRAININGS", (*training.TRAININGS, absent))
    names = ["train-mlp", "train-absent", "cliffs", "api", "small"]
    done = invoke(tmp_path, "--steps", "3", *(each for name in names for each in ("--name", name)))
    assert done.exit_code == 0, done.output
    text, data = written(tmp_path)
    for line in ("Date: ", "Machine: ", "macOS: ", "Chip: ", "Steps: 3", "=== TRAINING ===", "=== PROBE ===",
                 "=== ROOT-LEVEL ===", "Total: 5", "Passed: 3", "Failed: 0", "Skipped: 2",
                 "SKIP: the example is not installed: there is no examples/no_such_example.py",
                 "SKIP: Not asked: it is about device='ane', and this run is on 'cpu'."):  # fmt: skip
        assert line in text
    assert text.index("TRAINING") < text.index("PROBE") < text.index("ROOT-LEVEL") < text.index("Total:")
    assert data["schema_version"] == 1
    assert data["system"]["device"] == "cpu"
    assert data["summary"] == {"total": 5, "passed": 3, "failed": 0, "skipped": 2}
    assert data["finished"]
    assert [len(data[section]) for section in ("training", "probes", "benchmarks")] == [2, 2, 1]
    assert len(data["training"][0]["losses"]) == 3
    assert [row["status"] for row in data["benchmarks"][0]["rows"]] == ["PASS"] * 3
    assert answers.load("cpu") == {}  # those of a quick run are of smaller questions


@pytest.mark.parametrize(("option", "section"), [("--training-only", "training"), ("--probes-only", "probes"),
                                                 ("--benchmarks-only", "benchmarks")])  # fmt: skip
def test_one_section_alone_can_be_asked_for(tmp_path, monkeypatch, option, section):
    table(monkeypatch, "small", SMALL)
    names = ("--name", "train-large", "--name", "api", "--name", "small")
    assert invoke(tmp_path, option, *names).exit_code == 0
    text, data = written(tmp_path)
    assert [name for name in ("training", "probes", "benchmarks") if data[name]] == [section]
    titles = [line.strip("= ") for line in text.splitlines() if line.startswith("=== ") and "benchmark" not in line]
    assert titles == ["PREREQUISITES", SECTIONS[section]]


def test_a_row_that_fails_says_why_and_the_others_go_on(tmp_path, monkeypatch):
    table(monkeypatch, "broken", {**SMALL, 2: lambda: raising(OSError("the disk is full"))})
    table(monkeypatch, "after", SMALL)
    done = invoke(tmp_path, "--name", "broken", "--name", "after")
    assert done.exit_code == 1
    text, data = written(tmp_path)
    assert "FAIL: 2: build: OSError: the disk is full" in done.output
    assert "FAIL(build: OSError: the disk is full)" in text
    assert [row["status"] for row in data["benchmarks"][0]["rows"]] == ["PASS", "FAIL", "PASS"]
    assert [each["result"] for each in data["benchmarks"]] == ["FAIL", "PASS"]
    assert data["summary"]["failed"] == 1


def test_a_benchmark_that_cannot_even_begin_is_a_failure_with_its_reason(tmp_path, monkeypatch):
    monkeypatch.setitem(
        BENCHMARKS, "broken",
        Benchmark("broken", "t", "s", ("n", "n"), COLUMNS, lambda: raising(ValueError("no configurations"))),
    )  # fmt: skip
    table(monkeypatch, "after", SMALL)
    done = invoke(tmp_path, "--name", "broken", "--name", "after")
    assert done.exit_code == 1
    assert "FAIL: ValueError: no configurations" in done.output
    assert [each["result"] for each in written(tmp_path)[1]["benchmarks"]] == ["FAIL", "PASS"]


@pytest.mark.parametrize("kept", [0, 2])
def test_ctrl_c_leaves_a_report_of_what_is_done(tmp_path, monkeypatch, kept):
    table(monkeypatch, "first", SMALL)
    programs = [make if i < kept else lambda: raising(KeyboardInterrupt()) for i, make in enumerate(SMALL.values())]
    table(monkeypatch, "second", dict(zip(SMALL, programs, strict=True)))
    table(monkeypatch, "third", SMALL)
    done = invoke(tmp_path, "--name", "first", "--name", "second", "--name", "third")
    assert done.exit_code == 1
    text, data = written(tmp_path)
    assert data["interrupted"]
    assert not data["finished"]
    assert [(each["name"], len(each["rows"])) for each in data["benchmarks"]] == [("first", 3), ("second", kept)]
    assert text.rstrip().endswith("Interrupted: what is above is whole, and more was to come")


def test_the_report_is_whole_after_each_part(tmp_path, monkeypatch):
    """Seen from inside the second of two."""
    table(monkeypatch, "first", SMALL)
    seen = []
    table(monkeypatch, "second", {1: lambda: seen.append(written(tmp_path)) or SMALL[1]()})
    assert invoke(tmp_path, "--name", "first", "--name", "second").exit_code == 0
    ((text, data),) = seen
    assert [each["name"] for each in data["benchmarks"]] == ["first"]
    assert not data["finished"]
    assert "Still running, or ended by force" in text


INTERRUPTED = """
import os, sys, signal, threading, time
from anex.cli import main
from anex.bench import running
from anex.selftest import runner
where, kind = sys.argv[1:]
def interrupt():
    os.kill(os.getpid(), signal.SIGINT)
def soon(call):
    def wrapped(*args, **kwargs):
        threading.Timer(0.05, interrupt).start()
        return call(*args, **kwargs)
    return wrapped
names = ["causal-attn", "rules" if kind == "child" else "dispatch", "depth"]
if kind == "call":  # while a native call runs: the exception comes when it ends
    running.measure = soon(running.measure)
elif kind == "child":  # while a worker process answers
    runner.Worker.ask = soon(runner.Worker.ask)
else:  # where somebody's code takes every exception
    real = running.values
    def values(*args):
        try:
            interrupt()
            time.sleep(5)
        except BaseException:
            pass
        return real(*args)
    running.values = values
device = "ane" if kind == "child" else "cpu"
main(["bench", "all", "--quick", "--device", device, "--out", where, *sum((["--name", n] for n in names), [])])
"""


@pytest.mark.parametrize("kind", ["call", "swallowed", pytest.param("child", marks=needs_ane)])
def test_ctrl_c_in_a_native_call_in_a_child_process_or_swallowed_leaves_a_whole_report(tmp_path, kind):
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(map(str, (ROOT, ROOT / "tests")))}
    done = subprocess.run([sys.executable, "-c", INTERRUPTED, str(tmp_path), kind], env=environment,
                          capture_output=True, text=True, timeout=120)  # fmt: skip
    assert done.returncode == 1, done.stderr
    assert "Traceback" not in done.stderr
    text, data = written(tmp_path)
    assert data["interrupted"]
    assert reports.defect_of(data) == ""
    assert "depth" not in [each["name"] for each in data["benchmarks"]]
    assert [each["name"] for each in data["probes"]] == ["causal-attn"]
    assert text.rstrip().endswith("Interrupted: what is above is whole, and more was to come")


@needs_ane
def test_what_the_rules_warn_of_stands_in_the_report_and_not_between_its_lines(tmp_path, recwarn):
    done = CliRunner().invoke(main, ["bench", "all", "--device", "ane", "--quick", "--out", str(tmp_path), "--steps",
                                     "2", "--name", "train-mlp", "--name", "matmul"])  # fmt: skip
    assert done.exit_code == 0, done.output
    assert not [each for each in recwarn if issubclass(each.category, AneWarning)]
    text, data = written(tmp_path)
    found = {warned["rule"] for each in data["training"] + data["benchmarks"] for warned in each["warnings"]}
    assert all(f"[{rule}]" in text for rule in found)
    assert "[matmul-k32]" in text  # the stand-in is an M1 unless told otherwise, and the MLP's products are of 2


def test_the_report_begins_with_what_the_run_needs_and_what_is_missing(tmp_path, monkeypatch):
    report = report_of(monkeypatch, tmp_path)
    found = {each["name"]: each for each in report["prerequisites"]}
    assert not found["Core ML"]["is_there"]
    assert "Core ML is part of macOS" in found["Core ML"]["found"]
    assert found["coremltools"]["is_there"]
    assert found["packages"]["found"].startswith("0 of 13 in ")
    text, _ = written(tmp_path)
    assert text.index("=== PREREQUISITES ===") < text.index("=== ROOT-LEVEL ===")
    assert "without it: the columns of Core ML's own path" in text


def test_the_tools_of_one_convolution_read_the_generated_packages(tmp_path):
    done = CliRunner().invoke(main, ["bench", "gen-sram", "--out", str(tmp_path), "--largest", "512"])
    assert done.exit_code == 0, done.output
    names = [f"ane_sram_{channels}ch_64sp.mlpackage" for channels in (256, 512)]
    assert sorted(path.name for path in tmp_path.iterdir()) == names
    config = next(iter(benchmark("inmem").configs(packages=tmp_path)))
    weights = next((tmp_path / names[0]).rglob("weight.bin"))
    before = weights.stat().st_mtime_ns
    (conv,) = config.programs["eval"]().find_ops(op_type="conv")
    assert conv.weight.shape == (256, 256, 1, 1)
    assert weights.stat().st_mtime_ns == before  # read, not written anew
    assert [size for size in packages.SIZES if size[1] == 32] == [(8192, 32)]
    assert len(packages.SIZES) == 13


@pytest.mark.parametrize(("body", "reason"), [
    ("    yield float('nan')", "FAIL: FloatingPointError: the loss of step 1 is nan"),
    ("    yield 1.0", "FAIL: ValueError: example.py made 1 steps of 2"),
    ("    yield from (2.0, 2.0)", "FAIL: ValueError: the loss does not fall: 2.000000 at first, 2.000000 at the least"),
    ("    yield from (2.0, 1.0)\ndef expected(): return 2.001",
     "FAIL: ValueError: the first loss is 2.000000, and 2.001000 where it is computed otherwise"),
    ("    import nothing_of_that_name\n    yield 1.0", "FAIL: ModuleNotFoundError"),
])  # fmt: skip
def test_a_training_without_numbers_or_of_too_few_steps_fails(tmp_path, monkeypatch, body, reason):
    (tmp_path / "example.py").write_text(f"def training(steps, device):\n{body}\n")
    monkeypatch.setattr(training, "EXAMPLES", tmp_path)
    monkeypatch.setattr("anex.suite.playing.TRAININGS", (Training("mine", "example.py"),))
    done = invoke(tmp_path / "out", "--name", "mine", "--steps", "2")
    assert done.exit_code == 1
    assert reason in done.output


@pytest.mark.parametrize(("arguments", "said"), [
    (["--name", "nothing"], "nothing is called nothing"),
    (["--fail-above", "fast"], "'fast' is no percentage"),
    (["--compare", "no-such-file.json"], "no-such-file.json cannot be read"),
    (["--probes-only", "--name", "peak"], "no --name is in the section probes"),
])  # fmt: skip
def test_what_cannot_be_run_is_said_before_anything_runs(tmp_path, arguments, said):
    done = invoke(tmp_path, *arguments)
    assert done.exit_code not in (0, None)
    assert said in done.output
    assert not list(tmp_path.iterdir())


# ---- the gate -------------------------------------------------------------------------------------------------------


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


# ---- pictures and progress ------------------------------------------------------------------------------------------


def test_the_gallery_shows_what_was_run_and_says_what_was_not(tmp_path):
    runs = [
        run(BENCHMARKS["depth"], "cpu", {"depths": [1, 2], "channels": 16, "size": 4}, ONCE),
        run(BENCHMARKS["matmul"], "cpu", {"sizes": [16, 32]}, ONCE),
        run(BENCHMARKS["dispatch"], "cpu", {}, ONCE),
    ]
    drawn = gallery.draw(runs, tmp_path, "cpu")
    assert [path.name for path in drawn] == [
        "depth.svg", "size.svg", "working-set.svg", "dispatch.svg", "roofline.svg", "index.html",
    ]  # fmt: skip
    for path in drawn[:-1]:
        assert ET.parse(path).getroot().tag.endswith("svg")
    page = drawn[-1].read_text()
    assert all(f'src="{path.name}"' in page for path in drawn[:-1])
    assert "no Neural Engine was run" in page
    only = gallery.draw(runs[2:], tmp_path / "few", "cpu")
    assert [path.name for path in only] == ["dispatch.svg", "roofline.svg", "index.html"]
    assert only[-1].read_text().count("No row of this run shows it.") == 3


@pytest.mark.parametrize("arguments", [["all", "--gallery", "g"], ["dispatch", "--plot", "x.png"]])
def test_without_matplotlib_a_clear_line_says_so_before_anything_runs(tmp_path, monkeypatch, arguments):
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    monkeypatch.chdir(tmp_path)
    done = CliRunner().invoke(main, ["bench", *arguments])
    assert done.exit_code == 1
    assert done.output.strip().endswith("Error: drawing needs matplotlib, which is not installed: pip install "
                                        "'anex[plot]'")  # fmt: skip
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("rich", [True, False])
def test_somebody_who_watches_sees_how_far_it_is(monkeypatch, capsys, rich):
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    if not rich:
        load = builtins.__import__
        monkeypatch.setattr(
            builtins, "__import__",
            lambda name, *more: raising(ImportError()) if name.startswith("rich") else load(name, *more),
        )  # fmt: skip
    with bars.progress() as of:
        of("depth")("32", 1, 3)
    assert ("depth 1/3 32" in capsys.readouterr().err) == (not rich)


def test_nobody_who_does_not_watch_is_told(capsys):
    with bars.progress() as of:
        of("depth")("32", 1, 3)
    assert capsys.readouterr() == ("", "")
