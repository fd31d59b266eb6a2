"""``anex bench all``: a whole report whatever fails or interrupts it; pictures and progress."""

from __future__ import annotations

import builtins
import os
import subprocess
import sys
import xml.etree.ElementTree as ET
from pathlib import Path

import lean
import pytest
from click.testing import CliRunner
from needs_ane import needs_ane
from suite_case import COLUMNS, SMALL, invoke, raising, report_of, table, written

from anex import AneWarning, answers
from anex.bench import packages
from anex.bench import progress as bars
from anex.bench.record import Benchmark
from anex.bench.running import run
from anex.bench.tables import BENCHMARKS, benchmark
from anex.bench.timing import Effort
from anex.cli import main
from anex.suite import gallery, reports, training
from anex.suite.outcome import SECTIONS
from anex.suite.training import Training

ROOT = Path(__file__).parent.parent
ONCE = Effort(0, 1, 0.0)


@pytest.fixture(autouse=True)
def home(tmp_path, monkeypatch):
    monkeypatch.setenv("ANEX_HOME", str(tmp_path / "home"))


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
from anex.suite import worker
where, kind = sys.argv[1:]
def interrupt():
    os.kill(os.getpid(), signal.SIGINT)
def soon(call):
    def wrapped(*args, **kwargs):
        threading.Timer(0.05, interrupt).start()
        return call(*args, **kwargs)
    return wrapped
names = ["causal-attn", "rules" if kind == "child" else "depth", "matmul"]  # one call of depth takes long enough
if kind == "call":  # while a native call runs: the exception comes when it ends
    running.measure = soon(running.measure)
elif kind == "child":  # while a process of its own is at it, which hears of it through us
    perform = worker.Worker.perform
    def performed(self, section, name, plan, listener):
        if name == "rules":
            threading.Timer(0.5, interrupt).start()
        return perform(self, section, name, plan, listener)
    worker.Worker.perform = performed
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
    environment = {**os.environ, "PYTHONPATH": lean.path(ROOT, ROOT / "tests")}
    done = subprocess.run([sys.executable, "-c", INTERRUPTED, str(tmp_path), kind], env=environment,
                          capture_output=True, text=True, timeout=120)  # fmt: skip
    assert done.returncode == 1, done.stderr
    assert "Traceback" not in done.stderr
    text, data = written(tmp_path)
    assert data["interrupted"]
    assert reports.defect_of(data) == ""
    assert "matmul" not in [each["name"] for each in data["benchmarks"]]
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
