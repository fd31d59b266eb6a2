"""Samples of power: the text of Apple's tool, the counters of IOReport, and what follows from them."""

from __future__ import annotations

import pytest

from anex import power
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
        ([("ANE", "ticks", 5)], None),
        ([("PLANE", "mJ", 5), ("ANE DCS", "mJ", 5)], None),
        ([("ANE", "mJ", -(2**63))], None),  # what a counter of another format reads as
    ],
)
def test_counters_of_the_engine_add_up_to_watts(channels, ane):
    assert sample(channels, 0.5).ane == (pytest.approx(ane) if ane else None)


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
