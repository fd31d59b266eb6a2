"""`anex dash` over files that change and runs that live: following, restarting, ending, generating."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from pathlib import Path

import pytest
from dash_case import jsonl, once, records

from anex.dash import sources
from anex.dash.app import Dash, text_of
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


def test_keys_that_need_a_run_say_so_over_a_file(tmp_path):
    path = tmp_path / "run.jsonl"
    path.write_text(jsonl(records()))
    run = Run()

    async def steps(app, pilot):
        await until(lambda: run.told.curve.steps)
        for key in "rg":
            await pilot.press(key)
        await until(lambda: len(app._notifications) == 2)
        path.write_text('{"type":"step","step":0,"loss":7.25}\n')
        await until(lambda: run.told.curve.losses == [7.25])
        await until(lambda: "loss 7.2500" in text_of(app))
        await pilot.press("q")

    shown(Session(run, Followed(path, run), Machine(None, "")), steps)
