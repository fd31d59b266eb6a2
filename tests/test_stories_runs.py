"""Runs of examples/stories110m/train.py: killed, resumed, what they print, and mistakes."""

import contextlib
import io
import json
import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import lean
import numpy as np
import pytest
import stories_case
from needs_ane import needs_ane
from stories_case import ROOT, train
from stories_checkpoint import Checkpoint
from stories_config import TINY, Config, random_weights
from stories_data import Tokens
from stories_llama2c import save
from stories_report import Flops, Report, Sums

pytestmark = pytest.mark.filterwarnings("ignore::anex.AneWarning")


@pytest.fixture(scope="module")
def learned(tmp_path_factory):
    """(folder with d.bin and tokenizer.bin, its tokens)"""
    folder = tmp_path_factory.mktemp("stories")
    return folder, stories_case.make_data(folder)


def command(folder, *arguments):
    """The options of a tiny run; on data that is given, or made in the folder."""
    return ["--tiny", "--data", str(folder / "d.bin"), *arguments]


def run(*arguments):
    """(stdout, records) of train.py in this process."""
    out, records = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(records):
        train.run(train.parser().parse_args(list(arguments)))
    return out.getvalue(), [json.loads(line) for line in records.getvalue().splitlines()]


def same(one: Path, other: Path) -> None:
    one, other = Checkpoint.load(one), Checkpoint.load(other)
    assert (one.run["step"], one.run["loss"], one.run["updates"]) == (
        other.run["step"], other.run["loss"], other.run["updates"],
    )  # fmt: skip
    assert one.state.keys() == other.state.keys()
    for a, b in ((one.weights, other.weights), (one.state, other.state)):
        for name in a:
            assert np.array_equal(a[name].view(np.uint32), b[name].view(np.uint32)), name


def test_a_run_that_was_killed_goes_on_with_the_same_bits(learned, tmp_path):
    folder, _ = learned
    path = tmp_path / "killed.safetensors"
    options = ("--accum", "2", "--weight-decay", "0.1", "--save-every", "2")
    line = [sys.executable, "-m", "anex", "train", "stories110m", "--steps", "1000000"]
    line += command(folder, *options, "--ckpt", str(path))
    process = subprocess.Popen(line, cwd=ROOT, env={**os.environ, "PYTHONPATH": lean.path(ROOT)},
                               stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)  # fmt: skip
    seen = {}
    for record in map(json.loads, process.stderr):
        if record["type"] == "step":
            seen[record["step"]] = record["loss"]
            if record["step"] >= 33:
                break
    process.send_signal(signal.SIGKILL)
    process.wait()
    process.stderr.close()
    kept = Checkpoint.load(path).run["step"]
    assert kept >= 32  # the last checkpoint before step 33, or a later one
    assert kept % 4 == 0
    steps = str(kept + 10)
    _, resumed = run(*command(folder, "--resume", "--ckpt", str(path), "--steps", steps))
    whole = tmp_path / "whole.safetensors"
    _, records = run(*command(folder, *options, "--ckpt", str(whole), "--steps", steps))
    wanted = {r["step"]: r["loss"] for r in records if r["type"] == "step"}
    assert [r["step"] for r in resumed if r["type"] == "step"] == list(range(kept, kept + 10))
    assert all(wanted[r["step"]] == r["loss"] for r in resumed if r["type"] == "step")
    assert all(wanted[number] == loss for number, loss in seen.items())
    same(path, whole)


KILLED = """
import os, signal, sys
from anex._coremltools import keep_frameworks_out
keep_frameworks_out()  # which would take seconds to load
sys.path.insert(0, "examples/stories110m")
import stories_checkpoint, stories_files, train
moment, real, sync, saves = sys.argv.pop(1), stories_checkpoint.save_file, stories_files._sync, []

def die(*_):
    os.kill(os.getpid(), signal.SIGKILL)

def save_file(tensors, path, notes):
    real(tensors, path, notes)
    saves.append(path)
    if len(saves) == 2 and moment == "half of it written":
        os.truncate(path, os.path.getsize(path) // 2)
        die()
    if len(saves) == 2 and moment == "not yet renamed":
        os.replace = die

def _sync(path):
    if len(saves) == 2 and moment in ("not yet on the disk" if path.suffix else "renamed"):
        die()
    sync(path)

stories_checkpoint.save_file, stories_files._sync = save_file, _sync
train.main()
"""
CHECKPOINTS = ("--accum", "2", "--save-every", "2")  # after 4 steps, and 8, ...


@pytest.fixture(scope="module")
def whole(learned, tmp_path_factory):
    """The checkpoint of a run that nobody killed, after 12 steps."""
    path = tmp_path_factory.mktemp("whole") / "c.safetensors"
    run(*command(learned[0], *CHECKPOINTS, "--steps", "12", "--ckpt", str(path)))
    return path


@pytest.mark.parametrize(("moment", "kept"), [
    ("half of it written", 4), ("not yet on the disk", 4), ("not yet renamed", 4), ("renamed", 8),
])  # fmt: skip
def test_a_run_that_is_killed_while_it_writes_its_second_checkpoint_has_a_whole_one(
    learned, whole, tmp_path, moment, kept
):
    path = tmp_path / "c.safetensors"
    options = command(learned[0], *CHECKPOINTS, "--ckpt", str(path), "--steps", "1000000")
    done = subprocess.run([sys.executable, "-c", KILLED, moment, *options], cwd=ROOT, capture_output=True, text=True,
                          env={**os.environ, "PYTHONPATH": lean.path(ROOT)})  # fmt: skip
    assert done.returncode == -signal.SIGKILL, done.stderr
    assert Checkpoint.load(path).run["step"] == kept
    run(*command(learned[0], "--resume", "--ckpt", str(path), "--steps", "12"))
    same(path, whole)


@needs_ane
def test_a_resumed_run_on_the_neural_engine_has_the_same_bits(learned, tmp_path):
    folder, _ = learned
    one, two = tmp_path / "one.safetensors", tmp_path / "two.safetensors"
    options = ("--device", "ane", "--offload", "softmax,classifier,rmsnorm", "--accum", "2")
    run(*command(folder, *options, "--steps", "12", "--ckpt", str(one)))
    run(*command(folder, *options, "--steps", "6", "--ckpt", str(two)))
    run(*command(folder, *options, "--steps", "12", "--ckpt", str(two), "--resume"))
    same(one, two)


STEP = ["type", "step", "loss", "t_ane", "t_io", "t_cls", "t_elem", "t_rms", "t_cblas_wait", "compiles"]
BATCH = ["type", "batch", "compile_ms", "train_ms", "ms_per_step"]
PERF = ["type", "ane_tflops", "ane_util_pct"]
NUMBER = r"-?\d+\.\d+"
LINES = [
    rf"step 0    loss={NUMBER}",
    r"  \[batch 3: compile=\d+ms train=\d+\.\dms \(\d+\.\dms/step\) compiles=1\]",
    r"    ane=\d+\.\d io=\d+\.\d cls=\d+\.\d elem=\d+\.\d rms=\d+\.\d cblas_wait=\d+\.\d ms/step",
    r"\[checkpoint saved: step 4, loss=\d+\.\d{4}\]",
    "=== Efficiency Report ===", r"Total steps:     4", r"Wall time:       \d+ ms \(\d+\.\d s\)",
    r"Compile time:    \d+ ms \(\d+\.\d%\)", r"Train time:      \d+ ms \(\d+\.\d%\)",
    r"Avg train:       \d+\.\d ms/step",
    r"ANE TFLOPS:      0\.00 sustained", r"Total TFLOPS:    \d+\.\d\d \(CPU\)",
    r"ANE utilization: 0\.0% of 15\.8 TFLOPS", "Recompilations:  0 after the first step",
]  # fmt: skip


def test_lines_and_records_are_those_of_the_published_trainer(learned, tmp_path):
    path = str(tmp_path / "c.safetensors")
    out, records = run(*command(learned[0], "--steps", "4", "--accum", "3", "--breakdown", "--ckpt", path))
    keys = [STEP] * 3 + [BATCH, PERF, STEP, BATCH, PERF]
    assert [list(record) for record in records] == keys
    assert [record["type"] for record in records] == ["step"] * 3 + ["batch", "perf", "step", "batch", "perf"]
    lines = out.splitlines()
    for pattern in LINES:
        assert any(re.fullmatch(pattern, line) for line in lines), (pattern, out)
    step = records[0]
    assert min(step[f"t_{name}"] for name in ("cls", "rms", "elem", "cblas_wait")) > 0
    assert step["t_ane"] == 0


@needs_ane
@pytest.mark.parametrize(("flags", "offloaded"), [
    (["--ane"], {"classifier", "softmax", "rmsnorm"}), (["--ane", "--no-ane-extras"], set()),
    (["--ane", "--offload", "softmax"], {"softmax"}),
])  # fmt: skip
def test_the_flags_of_train_large_ane_say_what_runs_where(learned, tmp_path, monkeypatch, flags, offloaded):
    made = []
    monkeypatch.setattr(train, "train", lambda trainer, *_: made.append(trainer.engine))
    run(*command(learned[0], *flags, "--ckpt", str(tmp_path / "c.safetensors")))
    assert [(engine.device, engine.offload) for engine in made] == [("ane", frozenset(offloaded))]


def test_flops_are_those_that_were_published():
    flops = Flops(Config())
    assert round(flops.total / 1e6) == 174_248
    assert round(2 * flops.forward / 1e6 + flops.attention / 1e6) == 93_013


@pytest.mark.parametrize(("flops", "ms", "ane", "total", "utilization"), [
    (93_013e6, 72.4, "1.28", "2.41", "8.1"), (93_013e6 + 12_583e6, 62.9, "1.68", "2.77", "10.6"),
])  # fmt: skip
def test_rates_of_the_published_times_are_those_that_were_published(capsys, flops, ms, ane, total, utilization):
    """1.28 and 2.41 TFLOPS at 72.4 ms a step; 1.68 with the classifier at 62.9 ms; of 15.8."""
    report = Report(Config(), "cpu", frozenset())
    report.ane_flops = flops
    report.efficiency(Sums(train_ms=100 * ms, wall_ms=200 * ms, steps=100), 0)
    out = capsys.readouterr().out
    assert f"ANE TFLOPS:      {ane} sustained" in out
    assert f"Total TFLOPS:    {total} " in out
    assert f"ANE utilization: {utilization}% of 15.8 TFLOPS" in out
    assert f"Avg train:       {ms} ms/step" in out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--data", "/nowhere/d.bin"], "/nowhere/d.bin"),
        (["--resume", "--ckpt", "/nowhere/c.safetensors"], "there is no checkpoint /nowhere/c.safetensors"),
        (["--offload", "attention"], "the parts are rmsnorm, classifier, softmax"),
        (["--steps", "0"], "steps, accum and lr are above 0"),
        (["--no-ane-extras"], "goes with --ane"),
        (["--ane", "--no-ane-extras", "--offload", "softmax"], "name one of them"),
        (["--model", "/nowhere/m.bin"], "/nowhere/m.bin"),
    ],
)
def test_mistakes_are_answered_in_one_line(arguments, message, monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["train.py", "--tiny", *arguments])
    with pytest.raises(SystemExit) as caught:
        train.main()
    assert str(caught.value).startswith("train: ")
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_the_environment_names_model_and_data(learned, tmp_path, monkeypatch):
    save(tmp_path / "m.bin", TINY, random_weights(TINY, seed=5))
    monkeypatch.setenv("ANE_MODEL_PATH", str(tmp_path / "m.bin"))
    monkeypatch.setenv("ANE_DATA_PATH", str(learned[0] / "d.bin"))
    line = ["--steps", "1", "--ckpt", str(tmp_path / "c.safetensors"), "--export", str(tmp_path / "out.bin")]
    out, records = run(*line)
    tokens = Tokens(learned[0] / "d.bin", TINY.seq_len, TINY.vocab_size).step(0)
    loss, _ = stories_case.torch_gradients(TINY, random_weights(TINY, seed=5), *tokens)
    assert records[0]["loss"] == pytest.approx(loss, rel=1e-4)
    assert "Loaded pretrained weights (shared embed/cls)" in out
    assert (tmp_path / "out.bin").stat().st_size == (tmp_path / "m.bin").stat().st_size
