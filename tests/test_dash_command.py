"""The command `anex dash`: its mistakes, its flags and the example's, Weights & Biases, a tiny run."""

from __future__ import annotations

import contextlib
import importlib.util
import os
import pty
import re
import select
import signal
import subprocess
import sys
import threading
import time
import types
from pathlib import Path

import click
import psutil
import pytest
import stories_case
from click.testing import CliRunner
from dash_case import jsonl, once, records
from stories_checkpoint import Checkpoint

from anex.cli import main
from anex.dash import commands
from anex.dash.command import Options, generating

TRAINER = str(Path(__file__).parent / "dash_trainer.py")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--follow", "/nowhere/run.jsonl"], "--follow /nowhere/run.jsonl: No such file or directory"),
        (["--follow", "/"], "--follow /: a folder, not a file"),
        (["--follow", "/dev/zero"], "--follow /dev/zero: not a file"),
        (["--follow", "x", "--run", "y"], "--run and --follow: one of the two"),
        (["--run"], "--run: the command is missing"),
        (["python"], "'python' is no option; a command to run stands behind --run"),
        (["--run", "/nowhere/train"], "--run /nowhere/train: there is no such program"),
        (["--lr", "1", "--run", "x"], "--lr: for the Stories110M example; say it in the command of --run"),
        (["--infinite", "--steps", "3"], "--infinite and --steps: one of the two"),
        (["--no-ane-extras"], "--no-ane-extras goes with --ane"),
        (["--scratch", "--resume"], "neither --resume nor --model goes with it"),
        (["--wandb", "--follow", __file__], "--wandb needs wandb, which is not installed: pip install wandb"),
    ],
)
def test_mistakes_are_answered_in_one_line(arguments, message, monkeypatch):
    monkeypatch.setitem(sys.modules, "wandb", None)
    done = once("--no-power", *arguments)
    assert done.exit_code == 1
    assert message in done.output
    assert done.output.startswith("Error: ")
    assert done.output.count("\n") == 1


def test_without_a_terminal_there_is_only_one_frame():
    done = CliRunner().invoke(main, ["dash", "--follow", __file__])
    assert (done.exit_code, done.output) == (
        1, "Error: anex dash needs a terminal; --once prints a frame without one\n",
    )  # fmt: skip


def test_a_library_that_is_missing_is_named_with_the_way_to_get_it(monkeypatch):
    find = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "textual_plotext" else find(name))
    done = once("--follow", __file__)
    assert "anex dash needs textual-plotext: pip install 'anex[dash]'" in done.output


def test_the_command_line_loads_the_libraries_only_when_it_draws():
    code = "import sys; from anex import cli; print([m for m in ('textual', 'psutil', 'plotext') if m in sys.modules])"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout == "[]\n"


def test_a_command_may_be_words_or_one_text():
    assert commands.words(True, ("python train.py --data 'a b'",)) == ["python", "train.py", "--data", "a b"]
    assert commands.words(True, ("python", "-c", "a b")) == ["python", "-c", "a b"]
    assert commands.words(True, (TRAINER,)) == [TRAINER]


def test_the_trainer_takes_every_flag_that_the_dashboard_passes_on(tmp_path):
    every = Options(steps=7, lr=0.5, accum=2, data=tmp_path, model=tmp_path, resume=True, ane=True, tiny=True)
    given = stories_case.train.parser().parse_args(every.arguments())
    assert (given.steps, given.lr, given.accum, given.data, given.model) == (7, 0.5, 2, tmp_path, tmp_path)
    assert set(stories_case.train.placed(given)) == {"classifier", "softmax", "rmsnorm"}
    assert (given.resume, given.device, given.tiny, given.scratch) == (True, "ane", True, False)
    given = stories_case.train.parser().parse_args(Options(ane=True, ane_extras=False, scratch=True).arguments())
    assert stories_case.train.placed(given) == ()
    assert (given.device, given.scratch, given.steps) == ("ane", True, None)
    assert stories_case.train.parser().parse_args(Options(infinite=True).arguments()).steps > 10**8
    made = stories_case.generate.parser().parse_args(generating(tmp_path, tmp_path)[2:])
    assert (made.model, made.tokenizer, made.temp) == (tmp_path, tmp_path, 0.8)


def test_scratch_reads_no_model_file(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "stories110M.bin").write_bytes(b"no model")
    monkeypatch.setattr(stories_case.train, "random_weights", lambda config: {"of": config})
    config, weights = stories_case.train.beginning(stories_case.train.parser().parse_args(["--scratch"]))
    assert (config.dim, weights) == (768, {"of": config})


def test_every_flag_of_the_published_dashboard_is_there():
    names = {name for option in commands.dash.params if isinstance(option, click.Option) for name in option.opts}
    published = (
        "resume dynamic ane no-ane-extras scratch lr accum infinite no-powermetrics no-generate steps data model"
    )
    assert {f"--{name}" for name in f"{published} wandb wandb-project wandb-name".split()} <= names


def test_numbers_go_to_weights_and_biases(tmp_path, monkeypatch):
    log, begun, finished = [], [], []
    remote = types.SimpleNamespace(
        log=lambda values, step: log.append((step, values)), finish=lambda: finished.append(1)
    )
    fake = types.SimpleNamespace(init=lambda **given: begun.append(given) or remote)
    monkeypatch.setitem(sys.modules, "wandb", fake)
    path = tmp_path / "run.jsonl"
    path.write_text(jsonl(records()))
    done = once("--follow", path, "--wandb", "--wandb-name", "mine")
    assert done.exit_code == 0, done.output
    assert (begun[0]["project"], begun[0]["name"], finished) == ("ane-training", "mine", [1])
    assert [step for step, _ in log] == list(range(6))
    assert log[0][1]["loss"] == 9.5
    assert log[0][1]["ms/elem"] == 10.0
    assert log[3][1]["ms_per_step"] == 80.0  # of the batch before it
    assert log[3][1]["compile_share"] == pytest.approx(3000 / 3240)


def test_a_tiny_run_of_the_example_is_shown_with_its_text(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    arguments = ("--tiny", "--steps", 12, "--accum", 3, "--lr", 0.002, "--no-power", "--ckpt", "c.safetensors")
    done = once(*arguments, "--height", 40)
    assert done.exit_code == 0, done.output
    kept = Checkpoint.load(tmp_path / "c.safetensors")
    found = done.output
    assert f"loss {kept.run['loss']:.4f}  best " in found
    assert "finished  step 11 of 12  anex training: Tiny (2 layers) on cpu" in found
    for text in ("dim 64", "layers 2", "vocab 512", "3 steps/batch", "2.0e-03 lr", "compiles 1"):
        assert text in found
    sums = kept.run["sums"]
    share = 100 * sums["compile_ms"] / (sums["compile_ms"] + sums["train_ms"])
    assert float(re.search(r"compile (\d+\.\d) %", found)[1]) == pytest.approx(share, abs=0.2)
    assert "sample of step 12" in found
    assert "not available: --no-power" in found
    assert "run mem" in found


@pytest.mark.parametrize("how", ["once", "terminated", "hung up"])
def test_a_dashboard_that_is_ended_from_outside_ends_its_run(how, tmp_path):
    mine, theirs = pty.openpty()
    path, over = tmp_path / "c", threading.Event()
    line = [sys.executable, "-m", "anex", "dash", "--no-power", *(["--once"] if how == "once" else []), "--run"]
    process = subprocess.Popen([*line, sys.executable, TRAINER, "--ckpt", str(path)], stdin=theirs, stdout=theirs,
                               stderr=theirs, start_new_session=True)  # fmt: skip
    os.close(theirs)
    terminal = threading.Thread(target=read_until, args=(mine, over))
    terminal.start()
    while not path.exists():
        assert process.poll() is None
        time.sleep(0.05)
    trainers = [int(pid) for pid in psutil.pids() if str(path) in words_of(pid) and pid != process.pid]
    if how == "hung up":
        over.set()
        terminal.join()
        os.close(mine)
    process.send_signal(signal.SIGHUP if how == "hung up" else signal.SIGTERM)
    process.wait()
    assert len(trainers) == 1
    while psutil.pid_exists(trainers[0]):
        time.sleep(0.05)
    if how != "hung up":
        over.set()
        terminal.join()
        os.close(mine)


def read_until(descriptor: int, over: threading.Event) -> None:
    """What a terminal does."""
    with contextlib.suppress(OSError):  # the other end is closed
        while not over.is_set():
            if select.select([descriptor], [], [], 0.05)[0]:
                os.read(descriptor, 4096)


def words_of(pid: int) -> list[str]:
    try:
        return psutil.Process(pid).cmdline()
    except psutil.Error:
        return []
