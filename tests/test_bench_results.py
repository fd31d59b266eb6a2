"""Ratios, the file and the pictures of benchmarks, on times that were made up."""

from __future__ import annotations

import json
import runpy
from pathlib import Path

import numpy as np
import pytest

from benchmarks.case import Goal, Limit
from benchmarks.plot import draw
from benchmarks.results import SCHEMA, Report, Result, spread
from benchmarks.text import three_digits, time_in_words

PAGE = runpy.run_path(str(Path(__file__).parent.parent / "tools/benchmarks_page.py"))


def made_up(**more):
    """Three rounds; in the second the machine was half as fast, for everybody."""
    given = {
        "seconds": {"anex fp16": [1.0, 2.0, 1.0], "torch fp32": [3.0, 6.0, 2.0], "onnxruntime fp32": [2.0, 6.0, 4.0]},
        "rates": {"fma": [100.0, 50.0, 100.0]},
        "state": {"signal": [2e-7, 2e-7, 2e-7], "scaling": [1.9, 1.9, 1.0]},
        "left_out": {"openvino fp32": "not installed"},
        "limits": [Limit("fma", 80.0)],
        "goals": [
            Goal("anex fp16", "torch fp32", 3.2),
            Goal("anex fp16", ("onnxruntime fp32", "torch fp32", "openvino fp32"), 2.0),
            Goal("anex fp16", "openvino fp32", 1.0),
            Goal("anex fp16", "limit fma", 0.95),
        ],
    }
    return Result("case", "made up", 2, 0.2, "anex fp16", date="2026-01-02T03:04:05+00:00", **{**given, **more})


def test_ratios_are_taken_round_by_round_and_then_the_quartiles():
    """Paired: 3, 3, 2. The ratio of the medians, 3 / 1, says nothing of the third round."""
    assert made_up().ratio("anex fp16", ["torch fp32"]) == (3.0, 2.5, 3.0)
    values = [1.0, 4.0, 2.0, 8.0, 5.0, 7.0, 3.0]
    assert spread(values) == tuple(np.percentile(values, [50, 25, 75]))
    assert spread([2.0]) == (2.0, 2.0, 2.0)


def test_the_best_of_several_peers_is_the_fastest_of_each_round():
    assert made_up().ratio("anex fp16", ["torch fp32", "onnxruntime fp32"]) == spread([2.0, 3.0, 2.0])


def test_the_share_of_a_limit_is_taken_with_the_rate_of_the_same_round():
    """80 FLOP at 100, 50 and 100 FLOP/s would take 0.8, 1.6 and 0.8 seconds."""
    found = made_up().of_limit("anex fp16")["fma"]
    assert found == pytest.approx((0.8, 0.8, 0.8))


def test_goals_stand_beside_what_was_measured():
    found = {each.peer: each for each in made_up().comparisons()}
    assert list(found) == [
        "torch fp32", "onnxruntime fp32", "best of onnxruntime fp32, torch fp32", "openvino fp32", "limit fma"
    ]  # fmt: skip
    assert [each.goal for each in found.values()] == [3.2, None, 2.0, 1.0, 0.95]
    assert [each.verdict for each in found.values()] == ["within noise", "", "met", "", "missed"]
    assert found["best of onnxruntime fp32, torch fp32"].why == "without openvino fp32"
    assert found["openvino fp32"].ratio is None
    assert found["openvino fp32"].why == "without openvino fp32"


def test_the_limit_of_the_machine_says_what_a_goal_could_reach():
    """torch took 3, 6 and 2 seconds for what the machine can do in 0.8, 1.6 and 0.8, or in 1, 2 and 1 by the bytes."""
    [torch, *_] = made_up().comparisons()
    assert torch.most == pytest.approx((3.75, 3.125, 3.75))
    assert not torch.out_of_reach  # 3.2 is missed, and possible
    bytes_too = [Limit("fma", 80.0), Limit("read", 10.0, ("anex",)), Limit("cache", 1e9, ("torch",))]
    rates = {"fma": [100.0, 50.0, 100.0], "read": [10.0, 5.0, 10.0], "cache": [1.0, 1.0, 1.0]}
    goals = [Goal("anex fp16", "torch fp32", 3.2), Goal("anex fp16", "limit read", 0.95)]
    [torch, _, limit] = made_up(limits=bytes_too, rates=rates, goals=goals).comparisons()
    assert torch.most == pytest.approx((3.0, 2.5, 3.0))
    assert torch.out_of_reach
    assert limit.most is None  # of itself a limit says nothing
    assert made_up(limits=[]).comparisons()[0].most is None


def test_peak_memory_has_a_column_and_goals_where_it_is_measured():
    mega = 1 << 20
    memory = {"anex fp16": [10 * mega] * 3, "torch fp32": [15 * mega] * 3, "onnxruntime fp32": [8 * mega] * 3}
    goals = [Goal("anex fp16", "torch fp32", 1.0), Goal("anex fp16", "torch fp32", 1.25, "memory")]
    result = made_up(memory=memory, goals=goals)
    (time, space) = (each for each in result.comparisons() if each.goal)
    assert (time.ratio.median, space.ratio.median, space.verdict) == (3.0, 1.5, "met")
    text = PAGE["text"](report(result))
    assert "| torch fp32: memory | 1.50x | 1.50 to 1.50 |  | 1.25 met |" in text
    assert "| anex fp16 | 1.00 s | 80% of fma | 10 MiB |" in text


def test_on_the_stand_in_differences_are_shown():
    result = made_up(device="double")
    assert result.more("torch fp32") == spread([2.0, 4.0, 1.0])


def report(*results):
    return Report({"processor": "P", "processors": 2, "system": "S", "python": "3.11"}, {"anex": "0"}, {}, [*results])


def test_a_report_is_read_as_it_was_written(tmp_path):
    path = tmp_path / "bench.json"
    report(made_up()).write(path)
    assert Report.read(path) == report(made_up())
    data = json.loads(path.read_text())
    assert data["schema"] == SCHEMA
    assert data["version"] == 1
    assert data["results"][0]["comparisons"][0] == {
        "ours": "anex fp16", "peer": "torch fp32", "of": "time", "goal": 3.2, "verdict": "within noise", "why": "",
        "ratio": {"median": 3.0, "low": 2.5, "high": 3.0},
        "most": {"median": pytest.approx(3.75), "low": pytest.approx(3.125), "high": pytest.approx(3.75)},
    }  # fmt: skip


def test_a_file_of_another_version_is_refused(tmp_path):
    path = tmp_path / "bench.json"
    report().write(path)
    path.write_text(path.read_text().replace('"version": 1', '"version": 99'))
    with pytest.raises(ValueError, match="version 99; this reads"):
        Report.read(path)


def test_a_case_measured_again_takes_the_place_of_the_old_result():
    found = report(made_up(), Result("other", "", 1, 0.2, "anex fp16"))
    newer = made_up(seconds={})
    found.add(newer)
    assert found.results[0] is newer
    assert len(found.results) == 2
    assert [each.case for each in found.in_order(["other", "case"])] == ["case", "other"]  # two threads first


def test_the_picture_is_a_png_that_grows_with_what_is_in_it(tmp_path):
    from matplotlib.image import imread

    heights = []
    for results in ([], [made_up()], [made_up(), made_up(), made_up()]):
        path = tmp_path / "ratios.png"
        draw(results, path)
        assert path.read_bytes().startswith(b"\x89PNG\r\n\x1a\n")
        pixels = imread(path)
        assert pixels.std() > 0
        heights.append(pixels.shape[0])
    assert heights == sorted(set(heights))


def test_the_page_says_device_machine_goals_and_who_is_missing():
    text = PAGE["text"](report(made_up()))
    for part in (
        "device cpu", "| torch fp32 | 3.00x | 2.50 to 3.00 | 3.75x | 3.2 within noise |", "80% of fma", "two cores",
        "- left out: openvino fp32: not installed", "of 3 goals 1 met, 1 within noise, 1 missed",
    ):  # fmt: skip
        assert part in text


def test_the_page_says_which_goals_ask_for_more_than_the_machine_can_do():
    text = PAGE["text"](report(made_up(goals=[Goal("anex fp16", "torch fp32", 4.0)])))
    assert (
        "of 1 goals 0 met, 0 within noise, 1 missed; 1 of those not met ask for more than the machine can do." in text
    )
    assert "| case | torch fp32 / anex fp16 | 4x | 3.00x missed (limit 3.75x) |" in text


def test_the_published_page_is_what_its_tool_writes_of_the_published_file():
    assert PAGE["PAGE"].read_text() == PAGE["text"](Report.read(PAGE["DATA"])), "run `make docs`"
    assert PAGE["PICTURE"].exists()


def test_numbers_have_three_digits():
    assert [time_in_words(x) for x in (2.5, 0.0123, 4.56e-7)] == ["2.50 s", "12.3 ms", "0.46 us"]
    assert [three_digits(x) for x in (0.123, 9.996, 99.96, 1234.5)] == ["0.12", "10.0", "100", "1234"]


def test_the_picture_of_the_page_has_the_goals_and_nothing_else():
    from benchmarks.plot import drawn

    [(_, rows)] = drawn([made_up()], goals_only=True)
    assert [(label, each.goal) for label, each in rows] == [
        ("case: torch fp32 / anex fp16", 3.2),
        ("case: best of onnxruntime fp32, torch fp32 / anex fp16", 2.0),
        ("case: limit fma / anex fp16", 0.95),
    ]
