"""`anex dash`: what it reads from the lines of a run, and the frames that it makes of that."""

from __future__ import annotations

import asyncio
import itertools
import math
import random

import dash_case
import pytest
from dash_case import BATCHES, LOSSES, PARTS, frame_of, frames_of, jsonl, once, people, read, records, shown
from hypothesis import given, settings
from hypothesis import strategies as st

from anex.dash.curve import Curve
from anex.dash.machine import Machine
from anex.dash.run import LOGGED, Run
from anex.dash.session import Session
from anex.dash.sources import Followed
from anex.power import Sample


def row(text: str, name: str) -> str:
    """The right part of the row of a frame that has ``name``."""
    return next(line.split("││")[-1] for line in text.splitlines() if f"│ {name} " in line)


@pytest.fixture
def write(tmp_path):
    def written(text, name="run.jsonl"):
        path = tmp_path / name
        path.write_bytes(text if isinstance(text, bytes) else text.encode())
        return path

    return written


SHARE = 100 * sum(c for c, _ in BATCHES) / sum(c + t for c, t in BATCHES)  # 4500 of 5010 ms


@pytest.mark.parametrize("text", [jsonl(records()), people(), people() + jsonl(records()), jsonl(records()) + people()],
                         ids=["records", "people", "people first", "records first"])  # fmt: skip
def test_a_run_has_the_same_numbers_in_whichever_form_it_was_recorded(text):
    run = read(text)
    assert run.told.curve.losses == LOSSES
    assert run.told.curve.best == (5, 8.0)
    assert run.told.ms_per_step == 90  # the last batch: 270 ms, 3 steps
    assert 100 * run.compile_share == pytest.approx(SHARE)
    rest = 90 - sum(PARTS.values()) - 2 * len(PARTS)  # each grew by 2 until the third step of its batch
    assert run.components() == {**{name: value + 2 for name, value in PARTS.items()}, "other": rest}
    assert run.compiles == 72


def test_a_frame_has_the_numbers_of_the_run(write):
    found = frame_of(write(people() + jsonl(records())))
    assert "loss 8.0000  best 8.0000 at step 5" in found
    assert f"90.0 ms/step  {1e3 / 90:.1f} steps/s" in found
    assert f"compile {SHARE:.1f} %  compiles 72" in found
    assert "ANE 1.25 TFLOPS  7.9 %" in found
    for name, value in [*((name, value + 2) for name, value in PARTS.items()), ("other", 38.0)]:
        assert row(found, name).split()[1:4] == [f"{value:.1f}", f"{100 * value / 90:.0f}", "%"]
    facts = ("dim 768", "hidden 2048", "heads 12", "layers 12", "seq 256", "vocab 32000", "109.53 M weights")
    more = ("3 steps/batch", "2.5e-04 lr", "72 kernels", "step 5  ANE Training: Stories110M (12 layers)")
    for text in facts + more:
        assert text in found, text


def test_a_frame_is_the_same_every_time_and_has_the_size_that_was_asked_for(write):
    path = write(people() + jsonl(records()))
    one = frame_of(path, 96, 31)
    assert one == frame_of(path, 96, 31)
    assert len(one.splitlines()) == 31
    assert max(map(len, one.splitlines())) <= 96


def test_the_curve_falls_from_left_to_right(write):
    losses = [10 - step / 10 for step in range(90)]
    drawn = [line[6:66] for line in frame_of(write(jsonl(records(losses, [])))).splitlines()[2:15]]
    columns = [{i for i, line in enumerate(drawn) if 0x2800 < ord(line[x]) < 0x2900} for x in range(60)]
    heights = [sum(column) / len(column) for column in columns if column]
    assert len(heights) > 50
    assert all(a <= b for a, b in itertools.pairwise(heights))
    assert heights[0] == 0
    assert heights[-1] > 8


def test_the_dynamic_trainers_lines_are_understood():
    run = read(
        "=== ANE Dynamic Training: Stories110M (12 layers) ===\n"
        "Kernels: 9 compiled, 9 weight-bearing\n"
        "Accum 10 steps, LR=0.0002\n"
        "Compiled 9 kernels in 353ms (shared across all 12 layers)\n"
        "  timing: ane_fwd=30.5 io_fwd=10.0 rms=2.5 ane_bwd=40.0 dw_copy=2.0\n"
        "step 10   loss=9.1674  lr=1.00e-05  118.0ms/step  x[-3.77,3.73] dy[-8.873e-05,8.298e-05]\n"
        "  grad_norm=1.6345\n"
    )
    assert run.facts["compiled"] == 9
    assert run.facts["lr"] == 1e-5
    assert run.told.ms_per_step == 118
    assert run.components() == {
        "rms": 2.5, "ane_fwd": 30.5, "io_fwd": 10.0, "ane_bwd": 40.0, "dw_copy": 2.0, "other": 33.0,
    }  # fmt: skip


def test_a_run_that_goes_on_from_a_checkpoint_replaces_what_it_does_again():
    lost = records([9.5, 9.25, 1.0, 8.5], [(3000.0, 240.0)])
    again = [record for record in records() if record.get("step", 2) >= 2]
    run = read(jsonl(lost) + "[RESUMED step 2, loss=9.25]\n" + jsonl(again))
    assert run.told.curve.steps == list(range(6))
    assert run.told.curve.losses == LOSSES
    assert run.told.curve.best == (5, 8.0)  # not the 1.0 that was lost
    assert run.compile_share == pytest.approx(SHARE / 100)
    assert run.kept == 2


def test_losses_that_are_not_finite_are_told_and_not_drawn(write):
    text = jsonl(records([9.0, 8.0])) + '{"type":"step","step":2,"loss":NaN}\n{"type":"step","step":3,"loss":-nan}\n'
    text += '{"type":"step","step":4,"loss":inf,"t_ane":nan}\n'
    found = frame_of(write(text))
    assert "loss inf  best 8.0000 at step 1  diverged at step 2" in found
    run = read(text + "step 5    loss=nan\n")
    assert run.records.curve.losses == [9.0, 8.0]
    assert math.isnan(run.lines.curve.last[1])


def test_half_a_line_tells_nothing(write):
    def losses(text):
        run = Run()
        asyncio.run(Followed(write(text), run).whole())
        return run.told.curve.losses

    whole = jsonl(records())
    assert losses(whole[: whole.rindex('{"type": "step", "step": 5') + 40]) == LOSSES[:5]
    assert losses("step 4    loss=8.8750\nstep 5    loss=8.0") == [8.875]
    assert losses(whole.rstrip()) == LOSSES  # a record has its own end


def test_files_that_tell_nothing_have_a_frame_too():
    texts = ["", "\n\n\n", "\0" * 1000, "{", "[]", "null\n", "{}\n", "\xff\xfe", "\x1b[2J"]
    for _, _, found in frames_of(texts):
        assert "no loss yet" in found
        assert "no batch yet" in found
        assert "\x1b" not in found


def test_records_of_unknown_kinds_are_counted_and_shown_in_the_log(write):
    odd = '{"type":"video","step":1}\n{"type":"step","step":"seven","loss":1}\n{"type":"step","step":3}\n{"type":[]}\n'
    found = frame_of(write(jsonl(records()) + odd))
    assert "4 records of unknown kinds" in found
    assert "loss 8.0000  best 8.0000 at step 5" in found
    assert "video" in found


@pytest.mark.parametrize("value", ["1e999", str(10**400), "true", '"9.5"', "null", "[9.5]", "{}"])
def test_a_loss_that_is_no_number_is_no_step(value):
    run = read(f'{{"type":"step","step":0,"loss":{value}}}')
    assert run.unknown == (value != "1e999")  # that is infinite, and a number
    assert not run.told.curve.steps


def test_bytes_that_are_no_text_and_commands_to_the_terminal_do_no_harm(write):
    hostile = (
        b"\x1b]0;title\x07\x1b[2J\x1b[31mred\x1b[0m caf\xe9 \x00\x08\x08\xe2\x80\xaegnol\n\xff\xfe\n" + b"\x9b5n\n"
    )
    found = frame_of(write(people().encode() + hostile))
    assert "red caf� gnol" in found
    assert not [c for c in found if not c.isprintable() and c != "\n"]


def test_long_lines_deep_json_and_many_lines_are_bounded():
    run = Run()
    run.read("x" * 10_000_000)
    run.read('{"type":' + "[" * 200_000)
    run.read("  " + "a=1 " * 100_000)
    run.read("  a=" + "1" * 3000 + "b")
    for number in range(3 * LOGGED):
        run.read(f"line {number}")
    assert len(run.log) == LOGGED
    assert max(len(line.text) for line in run.log) <= LOGGED


def test_many_steps_take_bounded_memory_and_keep_the_best():
    losses = dash_case.noisy(50_000)
    curve = Curve(limit=1000)
    for step, loss in enumerate(losses):
        curve.add(step, loss)
    assert len(curve.steps) <= 1000
    assert len(curve.lows) <= 1000
    assert curve.best == min(enumerate(losses), key=lambda pair: pair[1])
    assert curve.last == (49_999, losses[-1])
    steps, means = curve.points(10)
    assert len(steps) == 10
    for i, mean in enumerate(means):  # noise of half a unit, over thousands of steps
        assert mean == pytest.approx(sum(losses[i * 5000 : (i + 1) * 5000]) / 5000, abs=0.1)


@given(st.lists(st.tuples(st.integers(0, 30), st.floats()), max_size=60), st.integers(2, 20))
def test_a_curve_is_what_a_list_without_the_steps_done_again_is(pairs, most):
    curve, kept = Curve(), []
    for step, loss in pairs:
        curve.add(step, loss)
        kept = [pair for pair in kept if pair[0] < step] + [(step, loss)]
    finite = [pair for pair in kept if abs(pair[1]) < 1e100]
    assert list(zip(curve.steps, curve.losses, strict=True)) == finite
    assert curve.best == (min(finite, key=lambda pair: pair[1]) if finite else None)
    assert curve.diverged == next((step for step, loss in kept if not abs(loss) < 1e100), None)
    steps, losses = curve.points(most)
    assert len(steps) == len(losses) <= max(most, 0)
    assert steps == sorted(steps)


SCRAPS = [
    '{"type":"step"', '"loss":', "step ", "loss=", "nan", "1e3", "-", "[batch 3: ", "compile=1ms", "}", "\r", "\x1b[",
    "ms/step", "dim=", "===", '"step":', ",", "compiles=1]", "Params: ", "\ud800", "\0",
]  # fmt: skip


@settings(max_examples=200)
@given(st.lists(st.sampled_from(SCRAPS) | st.text(max_size=5) | st.integers().map(str)).map("".join))
def test_no_line_at_all_is_too_odd_to_read(line):
    run = Run()
    for stream in ("file", "stdout", "stderr"):
        run.read(line, stream)
        run.cut(line, stream)
    run.components(), run.compile_share, run.left()


def test_every_terminal_is_large_enough():
    texts = [people() + jsonl(records()), jsonl(records(dash_case.noisy(400), []))]
    for text, size, found in frames_of(texts, [(40, 12), (20, 5), (71, 17), (80, 24), (300, 12), (30, 90)]):
        lines = found.splitlines()
        assert len(lines) == size[1]
        assert max(map(len, lines)) <= size[0]
        assert "loss" in lines[1]
        if size != (20, 5):
            assert any(0x2800 < ord(c) < 0x2900 for c in found), (size, found)
            assert ("90.0 ms/step" if text is texts[0] else "no batch yet") in found


def test_curves_of_any_shape_are_drawn():
    shapes = [[3.0], [3.0, 3.0], [9e99, -9e99], [1e-300, 2e-300], [0.0, 0.0], [5.0] * 500]
    for losses, (_, _, found) in zip(shapes, frames_of([jsonl(records(each, [])) for each in shapes]), strict=True):
        assert f"at step {min(range(len(losses)), key=losses.__getitem__)} " in found


def test_random_records_have_frames():
    rng = random.Random(11)
    values = [0, 1, -5.5, 1e308, math.inf, -math.inf, math.nan, 1e-12]

    def record():
        parts = {f"t_{rng.choice(['ane', 'io', 'x'])}": rng.choice(values) for _ in range(3)}
        return rng.choice([
            {"type": "step", "step": rng.randrange(40), "loss": rng.choice(values), **parts},
            {"type": "batch", "batch": rng.randrange(4), "compile_ms": rng.choice(values),
             "train_ms": rng.choice(values), "ms_per_step": rng.choice(values)},
            {"type": "perf", "ane_tflops": rng.choice(values), "ane_util_pct": rng.choice(values)},
        ])  # fmt: skip

    texts = [jsonl(record() for _ in range(60)) for _ in range(6)]
    for _, _, found in frames_of(texts, [(90, 34), (90, 24), (40, 12)]):
        assert "╭─ loss" in found


class Recorded:
    """A sampler that drew what it was told to."""

    name = "IOReport"

    def __init__(self, *samples):
        self.samples = list(samples)

    def start(self): ...
    def stop(self):
        return self.samples


def test_power_is_the_mean_of_the_samples_and_says_who_read_it(write, monkeypatch):
    from anex.dash import machine

    monkeypatch.setattr(machine, "POWER_SECONDS", 0.0)
    sampler = Recorded(Sample(1.0, ane=2.0, cpu=5.0), Sample(3.0, ane=4.0, cpu=9.0))
    found = Machine(sampler, "")

    async def measured():
        task = asyncio.create_task(found.measure_power())
        while found.watts is None:
            await asyncio.sleep(0.01)
        task.cancel()

    asyncio.run(measured())
    run = Run()
    text = shown(Session(run, Followed(write(""), run), found))
    assert "ane 3.50 W  cpu 8.00 W  gpu –  IOReport" in text  # (2*1 + 4*3) / 4, (5*1 + 9*3) / 4


def test_without_a_sampler_the_frame_says_why(write):
    run = Run()
    text = shown(Session(run, Followed(write(""), run), Machine(None, "--no-power")))
    assert "not available: --no-power" in text


def test_a_sampler_that_fails_takes_only_power_away():
    class Broken(Recorded):
        def start(self):
            raise OSError("no channels")

    found = Machine(Broken(), "")
    asyncio.run(found.measure_power())
    assert (found.sampler, found.why_no_power) == (None, "IOReport: no channels")


def test_the_command_prints_a_frame_and_writes_it_as_a_picture(write, tmp_path):
    path, picture = write(people() + jsonl(records())), tmp_path / "frame.svg"
    done = once("--follow", path, "--width", 90, "--height", 28, "--svg", picture)
    assert done.exit_code == 0, done.output
    assert done.output.rstrip("\n") == frame_of(path, 90, 28).rstrip("\n")
    assert picture.read_text().startswith("<svg")
