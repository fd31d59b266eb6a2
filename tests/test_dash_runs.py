"""`anex dash` over files that change and runs that live: following, restarting, ending, generating, the example."""

from __future__ import annotations

import asyncio
import importlib.util
import os
import re
import signal
import sys
import types
from pathlib import Path

import click
import pytest
import stories_case
from dash_case import jsonl, once, records
from stories_checkpoint import Checkpoint

from anex import errors
from anex.dash import commands, sources
from anex.dash.app import Dash, text_of
from anex.dash.command import EXTRAS, Options, generating
from anex.dash.generating import Generator
from anex.dash.machine import Machine
from anex.dash.run import Run
from anex.dash.session import Session
from anex.dash.sources import Child, Followed, Splitter

TRAINER = str(Path(__file__).parent / "dash_trainer.py")


def alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except FileNotFoundError:
        return False


async def until(holds, seconds=120.0):
    """Wait for what another process does."""
    for _ in range(int(seconds / 0.02)):
        if holds():
            return
        await asyncio.sleep(0.02)
    raise AssertionError("it never came to that")


def child(*arguments: str) -> Child:
    return Child([sys.executable, TRAINER, *arguments], Run())


# Files


def test_lines_that_come_in_pieces_are_put_together():
    splitter, text = Splitter(), "one\r\ntwo é\n  10 %\r  20 %\r done\n\nhalf".encode()
    found = [line for i in range(len(text)) for line in splitter.feed(text[i : i + 1])]
    assert found == ["one", "two é", " done", ""]
    assert splitter.rest() == "half"
    assert splitter.rest() == ""


def test_a_line_without_end_does_not_fill_the_memory():
    splitter = Splitter()
    for _ in range(40):
        assert splitter.feed(b"x" * 10_000) == []
    assert len(splitter.half) == sources.LONGEST
    assert len(splitter.feed(b"\nnext\n")[0]) == sources.LONGEST


def follow(path):
    followed = Followed(path, Run())

    def steps():
        while followed.more():
            pass
        return followed.run.told.curve.steps

    return followed, steps


def test_a_file_is_followed_while_it_is_written(tmp_path):
    path, text = tmp_path / "run.jsonl", jsonl(records())
    followed, steps = follow(path)
    assert steps() == []
    assert followed.state == f"waiting for {path}"
    with path.open("w") as file:
        for i in range(0, len(text), 37):
            file.write(text[i : i + 37])
            file.flush()
            whole = text[: i + 37].splitlines(keepends=True)
            assert len(steps()) == sum('"step"' in line and line.endswith("\n") for line in whole)
    assert steps() == list(range(6))
    assert followed.state == "following"


def test_a_file_that_is_cut_is_read_from_its_beginning(tmp_path):
    path = tmp_path / "run.jsonl"
    path.write_text(jsonl(records()) + '{"type":"st')
    followed, steps = follow(path)
    assert steps() == list(range(6))
    path.write_text('{"type":"step","step":0,"loss":1.0}\n')
    assert steps() == [0]
    assert any("was cut" in line.text for line in followed.run.log)


def test_a_file_that_is_replaced_is_read_to_its_end_and_then_the_new_one(tmp_path):
    path = tmp_path / "run.jsonl"
    path.write_text('{"type":"step","step":0,"loss":3.0}\n')
    followed, steps = follow(path)
    assert steps() == [0]
    with path.open("a") as file:
        file.write('{"type":"step","step":1,"loss":2.0}\n{"type":"step","step":2,"loss":1.5}')
    path.rename(tmp_path / "run.jsonl.1")
    assert steps() == [0, 1, 2]
    assert followed.state.startswith("waiting")
    path.write_text('{"type":"step","step":3,"loss":1.0}\n')
    assert steps() == [0, 1, 2, 3]
    notes = [line.text for line in followed.run.log if line.kind == "note"]
    assert len(notes) == 1  # told once, however often it is looked for
    assert "No such file" in notes[0]


def test_a_file_that_is_swapped_between_two_looks_loses_nothing(tmp_path):
    path = tmp_path / "run.jsonl"
    path.write_text('{"type":"step","step":0,"loss":3.0}\n')
    _, steps = follow(path)
    assert steps() == [0]
    other = tmp_path / "other"
    other.write_text('{"type":"step","step":1,"loss":2.0}\n')
    other.replace(path)
    assert steps() == [0, 1]


# Runs


def test_a_run_that_dies_says_how_and_what_it_wrote_last():
    done = once("--no-power", "--height", 30, "--run", sys.executable, TRAINER, "--steps", "3", "--die", "7")
    assert done.exit_code == 1
    assert "● exit code 7  step 2" in done.output
    assert "the run died: exit code 7" in done.output
    assert "Traceback: the disk is full" in done.output
    assert "loss 98.0000" in done.output


def test_a_run_that_is_killed_says_by_which_signal():
    found = child()

    async def killed():
        running = asyncio.create_task(found.whole())
        await until(lambda: found.run.told.curve.last)
        os.kill(found.pid, signal.SIGKILL)
        await running

    asyncio.run(killed())
    assert (found.died, found.state, found.code) == (True, "ended by SIGKILL", -9)


def test_what_a_run_leaves_behind_is_ended_and_not_waited_for():
    script = "sleep 1000 & echo $! ; echo 'step 0    loss=1.5'; exit 0"
    found = Child(["sh", "-c", script], Run())
    asyncio.run(found.whole())
    assert found.state == "finished"
    assert found.run.told.curve.losses == [1.5]
    asyncio.run(until(lambda: not alive(int(found.run.log[0].text))))


@pytest.mark.parametrize("arguments", [(), ("--deaf",)], ids=["interrupted", "killed"])
def test_the_end_of_the_dashboard_is_the_end_of_the_run(arguments, monkeypatch):
    monkeypatch.setattr(sources, "PATIENCE", 0.3 if arguments else 60.0)
    found = child(*arguments)

    async def ended():
        running = asyncio.create_task(found.whole())
        await until(lambda: found.run.told.curve.last)
        await found.end()
        await running

    asyncio.run(ended())
    assert found.code == (-signal.SIGKILL if arguments else -signal.SIGINT) or found.code == 1
    assert not found.died


def shown(session, steps):
    """Run the steps of a test, which get the dashboard and its pilot, with a live session."""

    async def run():
        app = Dash(session)
        async with app.run_test(size=(100, 32)) as pilot:
            await steps(app, pilot)

    asyncio.run(run())


def started(run: Run) -> int:
    return int(run.title.rsplit(" ", 1)[1])


def test_r_goes_on_from_the_checkpoint_and_q_ends_the_run(tmp_path):
    found = child()

    async def steps(app, pilot):
        await until(lambda: found.run.kept == 4 and found.run.told.curve.last[0] > 6)
        first = started(found.run)
        await pilot.press("r")
        await until(lambda: found.run.title and started(found.run) != first and found.code is None)
        assert not alive(first)
        await until(lambda: [line.text for line in found.run.log if line.text.startswith("[RESUMED")])
        await until(lambda: found.run.told.curve.last[0] > 6)
        assert found.run.told.curve.losses == [100.0 - step for step in found.run.told.curve.steps]
        app.show()
        await pilot.pause()
        assert "● running" in text_of(app)
        second = started(found.run)
        await pilot.press("q")
        await until(lambda: not alive(second))

    shown(Session(found.run, found), steps)
    assert found.code not in (None, 0)


def test_r_begins_again_where_nothing_was_kept_and_also_after_a_death():
    found = child("--steps", "2", "--die", "3")

    async def steps(app, pilot):
        await until(lambda: found.died)
        app.show()
        await pilot.pause()
        assert "the run died: exit code 3" in text_of(app)
        found.command[:] = [sys.executable, TRAINER, "--steps", "3"]
        await pilot.press("r")
        await until(lambda: found.state == "finished")
        app.show()
        await pilot.pause()
        assert "the run died" not in text_of(app)
        assert found.run.told.curve.steps == [0, 1, 2]

    shown(Session(found.run, found), steps)


def test_a_dashboard_that_fails_still_ends_its_run(monkeypatch):
    found = child()

    async def steps(app, pilot):
        await until(lambda: found.run.told.curve.last)
        monkeypatch.setattr(Dash, "show_what_is_new", None)
        app.call_later(lambda: 1 / 0)
        await pilot.pause()

    with pytest.raises(ZeroDivisionError):
        shown(Session(found.run, found), steps)
    assert not alive(started(found.run))


TELL = "import sys, pathlib; print('made of', pathlib.Path(sys.argv[1]).read_text())"


def generator(checkpoint, run, code=TELL):
    return Generator([sys.executable, "-c", code, str(checkpoint)], checkpoint, run)


def test_g_generates_now_and_a_new_checkpoint_does_by_itself(tmp_path):
    path = tmp_path / "c.safetensors"
    found = child("--ckpt", str(path))
    session = Session(found.run, found, generator=generator(path, found.run), generate_every=1000)

    async def steps(app, pilot):
        await until(lambda: session.generator.text)
        assert (session.generator.text, session.generator.step) == ("made of checkpoint", 4)
        path.write_text("something else")
        await pilot.press("g")
        await until(lambda: session.generator.text == "made of something else")
        app.show()
        await pilot.pause()
        assert "sample of step 4" in text_of(app)
        assert "made of something else" in text_of(app)

    shown(session, steps)


def test_a_generator_that_fails_says_why_and_the_run_goes_on(tmp_path):
    path = tmp_path / "c"
    path.write_text("x")
    made = generator(path, Run(), "import sys; sys.exit('generate: no tokenizer.bin')")
    asyncio.run(made.generate())
    assert (made.state, made.text) == ("generate: no tokenizer.bin", "")
    made = Generator(["/nowhere/python"], path, Run())
    asyncio.run(made.generate())
    assert made.state == "cannot run /nowhere/python: No such file or directory"
    made = generator(tmp_path / "none", Run())
    asyncio.run(made.generate())
    assert made.state.startswith("there is no ")


def test_the_machine_sees_the_run_and_what_it_started():
    big = "x = b'1' * 300_000_000; print('big', flush=True); input()"
    script = f"import subprocess, sys; subprocess.run([sys.executable, '-c', {big!r}])"
    machine = Machine(None, "")

    async def looked():
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-c", script, stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE
        )
        await process.stdout.readline()
        machine.look(process.pid)
        machine.look(process.pid)
        process.stdin.close()
        await process.wait()
        machine.look(process.pid)

    asyncio.run(looked())
    assert len(machine.run_bytes) == 2  # nothing of one that ended
    assert 300e6 < machine.run_bytes[-1] < 600e6
    assert 0 < machine.used < machine.total
    assert len(machine.percent) == 3
    assert all(0 <= percent <= 100 for percent in machine.percent)


# The command


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--follow", "/nowhere/run.jsonl"], "--follow /nowhere/run.jsonl: there is no such file"),
        (["--follow", "/"], "--follow /: a folder, not a file"),
        (["--follow", "/dev/zero"], "--follow /dev/zero: not a file"),
        (["--follow", "x", "--run", "y"], "--run and --follow: one of the two"),
        (["--run"], "--run: the command is missing"),
        (["python"], "'python' is no option; a command to run stands behind --run"),
        (["--run", "/nowhere/train"], "cannot run /nowhere/train: No such file or directory"),
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


def test_a_library_that_is_missing_is_named_with_the_way_to_get_it(monkeypatch):
    find = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "textual_plotext" else find(name))
    done = once("--follow", __file__)
    assert "anex dash needs textual-plotext: pip install 'anex[dash]'" in done.output


def test_the_command_line_loads_the_libraries_only_when_it_draws():
    code = "import sys; from anex import cli; print([m for m in ('textual', 'psutil', 'plotext') if m in sys.modules])"
    import subprocess

    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout == "[]\n"


def test_a_command_may_be_words_or_one_text():
    assert commands.words(True, ("python train.py --data 'a b'",)) == ["python", "train.py", "--data", "a b"]
    assert commands.words(True, ("python", "-c", "a b")) == ["python", "-c", "a b"]
    assert commands.words(True, (TRAINER,)) == [TRAINER]


def test_the_trainer_takes_every_flag_that_the_dashboard_passes_on(tmp_path):
    every = Options(steps=7, lr=0.5, accum=2, data=tmp_path, model=tmp_path, resume=True, ane=True, tiny=True)
    given = stories_case.train.parser().parse_args(every.arguments())
    assert (given.steps, given.lr, given.accum, given.data, given.model) == (7, 0.5, 2, tmp_path, tmp_path)
    assert (given.resume, given.device, given.offload, given.tiny, given.scratch) == (True, "ane", EXTRAS, True, False)
    given = stories_case.train.parser().parse_args(Options(ane=True, ane_extras=False, scratch=True).arguments())
    assert (given.device, given.offload, given.scratch, given.steps) == ("ane", "", True, None)
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


def test_the_example_is_looked_for_where_it_may_be(tmp_path, monkeypatch):
    from anex.dash import command

    monkeypatch.setattr(command, "__file__", str(tmp_path / "site-packages" / "anex" / "dash" / "command.py"))
    monkeypatch.chdir(tmp_path)
    with pytest.raises(errors.MissingFileError, match="the examples are in anex's repository"):
        command.example()
    (tmp_path / command.EXAMPLE).mkdir(parents=True)
    (tmp_path / command.EXAMPLE / "train.py").touch()
    assert command.example() == tmp_path / command.EXAMPLE
