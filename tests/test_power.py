"""Samples of power: the text of Apple's tool, the counters of IOReport, and what follows from them."""

from __future__ import annotations

import json
import plistlib
from pathlib import Path

import pytest
from click.testing import CliRunner

from anex import power
from anex.bench.running import idle
from anex.cli import main
from anex.power import meter, powermetrics
from anex.power.ioreport import sample
from anex.power.sample import Sample, joules

# The form of powermetrics' own output on Apple silicon: three samples, the last one cut off.
RECORDED = """\
Machine model: Mac16,10
OS version: 24G90
Boot arguments:
Boot time: Wed Nov  8 16:44:22 2025



*** Sampled system activity (Tue Nov 28 14:37:01 2025 +0100) (1006.50ms elapsed) ***


**** Processor usage ****

E-Cluster Online: 100%
E-Cluster HW active frequency: 1578 MHz
CPU Power: 1612 mW
GPU Power: 31 mW
ANE Power: 2804 mW
Combined Power (CPU + GPU + ANE): 4447 mW

**** GPU usage ****

GPU HW active frequency: 444 MHz
GPU Power: 31 mW

*** Sampled system activity (Tue Nov 28 14:37:02 2025 +0100) (500.00ms elapsed) ***

CPU Power: 900 mW
GPU Power: 0 mW
ANE Power: 0 mW

*** Sampled system activity (Tue Nov 28 14:37:03 2025 +0100) (501.10ms elapsed) ***

CPU Power: 90
"""


def test_each_whole_sample_of_powermetrics_is_read_and_the_cut_off_one_left_out():
    assert list(powermetrics.parse(RECORDED.splitlines())) == [
        Sample(1.0065, ane=2.804, cpu=1.612, gpu=0.031), Sample(0.5, ane=0.0, cpu=0.9, gpu=0.0),
    ]  # fmt: skip


def test_a_system_that_names_no_engine_gives_samples_without_one():
    lines = [line for line in RECORDED.splitlines() if "ANE Power" not in line]
    first, *_ = powermetrics.parse(lines)
    assert first.ane is None
    assert first.cpu == 1.612


def test_text_of_something_else_has_no_samples():
    assert list(powermetrics.parse(["Password:", "ANE Power: 12 mW", ""])) == []


@pytest.mark.parametrize(
    ("channels", "ane"),
    [
        ([("ANE", "mJ", 1400)], 2.8),
        ([("ANE0", "mJ", 700), ("ANE1", "mJ", 700)], 2.8),
        ([("DIE_0_ANE", "uJ", 700_000), ("DIE_1_ANE", "uJ", 700_000)], 2.8),
        ([("DIE_0_ANE0", "nJ ", 700_000_000), ("DIE_1_ANE0", "nJ ", 700_000_000)], 2.8),
        ([("ANE0_0", "mJ", 700), ("ANE0_1", "mJ", 700)], 2.8),
        ([("ANE", "mJ", 1400), ("ANE0", "mJ", 700), ("ANE1", "mJ", 700)], 2.8),  # the sum, not twice it
        ([("ANE", "\u00b5J", 1_400_000)], 2.8),
        ([("ANE", "\u03bcJ", 1_400_000)], 2.8),
        ([("ANE", "ticks", 5)], None),
        ([("ANE", "", 5)], None),
        ([], None),
        ([("PLANE", "mJ", 5), ("ANE DCS", "mJ", 5)], None),
        ([("ANE", "mJ", -(2**63))], None),  # what a counter of another format reads as
    ],
)
def test_counters_of_the_engine_add_up_to_watts(channels, ane):
    assert sample(channels, 0.5).ane == (pytest.approx(ane) if ane else None)


def test_a_sample_of_no_time_says_nothing():
    assert sample([("ANE", "mJ", 5)], 0.0) == Sample(0.0)


ULTRA = """\
Machine model: Mac15,14
*** Sampled system activity (Mon Mar  2 10:00:00 2026 +0000) (1002.11ms elapsed) ***
CPU Power: 41250 mW
GPU Power: 2 mW
ANE0 Power: 1400 mW
ANE1 Power: 1404 mW
Combined Power (CPU + GPU + ANE): 44056 mW
"""
EARLY = """\
Machine model: MacBookPro17,1
*** Sampled system activity (Tue Nov 17 10:00:00 2020 +0000) (1006.50ms elapsed) ***
E-Cluster Power: 12 mW
P-Cluster Power: 900 mW
DRAM Power: 200 mW
CPU Power: 912 mW
GPU Power: 31 mW
ANE Power: 2804 mW
Package Power: 3900 mW
"""
GERMAN = """\
*** Sampled system activity (Di 28 Nov 14:37:01 2025 +0100) (1.006,50ms vergangen) ***
CPU Power: 912 mW
GPU Power: 31 mW
ANE Power: 2804,5 mW
"""
DOUBTFUL = GERMAN.replace("2804,5", "2,804")  # two watts, or two thousand eight hundred?


@pytest.mark.parametrize(("text", "seconds", "ane"), [
    (ULTRA, 1.00211, 2.804), (EARLY, 1.0065, 2.804), (GERMAN, 1.0065, 2.8045),
    (EARLY.replace("\n", "\r\n"), 1.0065, 2.804), (EARLY.replace("2804 mW", "2.804 W"), 1.0065, 2.804),
    (EARLY.replace("2804 mW", "2.80 W"), 1.0065, 2.8), (EARLY.replace("2804 mW", "2804000 uW"), 1.0065, 2.804),
])  # fmt: skip
def test_other_chips_systems_and_languages_are_read(text, seconds, ane):
    (found,) = powermetrics.parse(text.splitlines())
    assert found.seconds == pytest.approx(seconds)
    assert found.ane == pytest.approx(ane)


def test_a_number_that_two_languages_read_differently_is_not_read():
    more = DOUBTFUL + GERMAN
    first, second = powermetrics.parse(more.splitlines())
    assert (first.ane, first.cpu) == (None, 0.912)
    assert second.ane == 2.8045


def plist(**processor):
    return plistlib.dumps({"elapsed_ns": 500_000_000, "hw_model": "Mac16,5", "processor": processor})


def test_property_lists_are_read_one_after_another_and_a_cut_off_one_is_left_out():
    first = plist(ane_energy=1400, cpu_energy=800, gpu_energy=15, combined_power=4430.0)
    second = plist(ane_power=2804.0, cpu_power=1600.0, gpu_power=30.0)
    data = b"\0".join([first, second, first[: len(first) // 2]])
    assert list(powermetrics.parse_recorded(data)) == [
        Sample(0.5, ane=2.8, cpu=1.6, gpu=0.03), Sample(0.5, ane=2.804, cpu=1.6, gpu=0.03),
    ]  # fmt: skip


@pytest.mark.parametrize("data", [
    b"", b"\0\0", b"\xff\xfe", b"<plist></plist>", b"<?xml version='1.0'?><plist><dict><key>a</plist>",
    plistlib.dumps([1, 2]), plistlib.dumps({"elapsed_ns": 0, "processor": {"ane_energy": 1}}),
    plistlib.dumps({"elapsed_ns": 5, "processor": "none"}), plistlib.dumps({"elapsed_ns": 5, "processor": {}}),
])  # fmt: skip
def test_files_of_something_else_have_no_samples(data):
    assert list(powermetrics.parse_recorded(data)) == []


def test_the_command_tells_watts_energy_and_tflops_a_watt_of_recorded_text(tmp_path):
    file = tmp_path / "recorded.txt"
    file.write_text(ULTRA)
    call = ["power", "--read", str(file), "--gflop", "18540", "--calls", "1"]
    done = CliRunner().invoke(main, call)
    assert done.exit_code == 0, done.output
    for line in ("1 sample(s), 1.002 s, by powermetrics, recorded in", "ANE: 2804 mW, 2.810 J", "CPU: 41250 mW",
                 "18.50 TFLOPS, 6.60 TFLOPS/W"):  # fmt: skip
        assert line in done.output
    found = json.loads(CliRunner().invoke(main, [*call, "--json"]).output)
    assert found["mw"]["ane"] == pytest.approx(2804)
    assert found["tflops_per_w"] == pytest.approx(18.501 / 2.804, 1e-3)


@pytest.mark.parametrize(("arguments", "code", "said"), [
    ([], 1, "Power: not available (IOReport is part of macOS; powermetrics is part of macOS)"),
    (["--read", "no-such-file"], 1, "no-such-file cannot be read"), (["--read", __file__ + "/x"], 1, "cannot be read"),
    (["--gflop", "3"], 2, "give both"), (["--seconds", "nan"], 2, "no number of seconds"),
    (["--read", str(Path(__file__).parent / "objc.py")], 1, "there is no whole sample of powermetrics"),
])  # fmt: skip
def test_the_command_says_why_there_is_nothing_to_tell(arguments, code, said):
    done = CliRunner().invoke(main, ["power", *arguments])
    assert done.exit_code == code
    assert said in done.output


def test_what_the_engine_draws_at_rest_is_measured_before_it_works(monkeypatch):
    monkeypatch.setattr(meter, "SECONDS", 0.0)
    assert idle(Fake(0.0)) == ["Idle: 0 mW (fake)"]
    assert idle(Fake(None)) == []


def test_energy_weighs_each_sample_by_its_length():
    assert joules(list(powermetrics.parse(RECORDED.splitlines()))) == pytest.approx(2.804 * 1.0065)


class Fake:
    """A sampler that says it drew 2.8 W."""

    name = "fake"

    def __init__(self, ane: float | None) -> None:
        self.ane, self.started = ane, 0

    def start(self) -> None:
        self.started += 1

    def stop(self) -> list[Sample]:
        return [Sample(1.0, ane=self.ane), Sample(3.0, ane=self.ane)]


def test_a_reading_counts_the_calls_that_ran_while_power_was_sampled():
    clock, calls, by = iter([0.0, 0.5, 1.5, 2.5]), [], Fake(2.8)
    found = meter.reading(lambda: calls.append(0), by, seconds=2.0, clock=lambda: next(clock))
    assert found == power.Reading(pytest.approx(2.8), 2, 2.5, "fake")
    assert len(calls) == 2
    assert by.started == 1
    assert found.joules_per_call == pytest.approx(2.8 * 2.5 / 2)


@pytest.mark.parametrize("ane", [None, 0.0])
def test_an_engine_that_is_said_to_draw_nothing_while_busy_is_not_available(ane):
    assert meter.reading(lambda: None, Fake(ane), seconds=0.0) is None


def test_without_macos_there_is_no_sampler_and_the_reason_is_told():
    assert power.sampler() is None
    assert power.why_none() == "IOReport is part of macOS; powermetrics is part of macOS"
