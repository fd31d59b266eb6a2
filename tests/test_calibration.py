"""``anex calibrate``, on the stand-in of the framework."""

import csv
import os
import subprocess
import sys

import fake_ane
import pytest

from anex import _native
from anex.calibration import cases
from anex.cost import model, rows, text
from anex.cost.chips import chip
from anex.cost.program import cost

if not _native.ane_selectors():
    pytest.skip("anex was built without its Objective-C binding; ANEX_OBJC=1 builds it", allow_module_level=True)


def anex(*arguments, **environment):
    return subprocess.run(
        [sys.executable, "-m", "anex", *map(str, arguments)],
        env=environment or None, capture_output=True, text=True, timeout=300,
    )  # fmt: skip


def test_the_programs_are_timed_and_written_as_rows_that_the_model_knows(tmp_path):
    file = tmp_path / "mine.csv"
    done = anex("calibrate", "--quick", "--calls", "2", "--output", file, **fake_ane.environment(arch="h16g"))
    assert done.returncode == 0, done.stderr
    assert "stand-in" in done.stdout
    lines = list(csv.DictReader(file.open()))
    assert {line["device"] for line in lines} == {"double"}
    assert {line["chip"] for line in lines} == {"M4"}
    assert all(float(line["ms"]) > 0 for line in lines)
    assert all(row.load is not None for row in rows.rows(lines))
    refused = anex("cost", "--calibration", file, "--rows", file)
    assert refused.returncode == 1
    assert "not on hardware" in refused.stderr
    for line in lines:
        line["device"] = "ane"
    assert len(model.shipped().calibrated(lines).known) == len(model.shipped().known) + len(lines)


def test_the_rows_say_what_the_programs_do():
    for case in cases(quick=True):
        row = rows.row({name: str(value) for name, value in case.row.items()} | {"chip": "M4"})
        flops = cost(case.build(), chip("M4")).prediction.flops
        if case.row.get("gflop"):
            assert flops == pytest.approx(row.load.flops, rel=1e-6)


def test_where_there_is_no_engine_it_says_so():
    plain = {name: value for name, value in os.environ.items() if name not in ("ANEX_ANE_FRAMEWORK", "FAKE_ANE")}
    done = anex("calibrate", **plain)
    assert done.returncode == 1
    assert done.stderr.startswith("Error: there is no Neural Engine")


def test_a_machine_that_is_slow_in_every_program_is_predicted_slow_in_others_too():
    """The seven rows as the shipped model has them, at one and a half times the time: a slower clock."""
    shipped = model.shipped()
    lines = [{name: str(value) for name, value in case.row.items()} | {"chip": "M4", "path": "private"}
             for case in cases()]  # fmt: skip
    priced = text.priced(lines, shipped)
    slow = shipped.calibrated([line | {"ms": str(1.5 * float(each["predicted_ms"]))}
                               for line, each in zip(lines, priced, strict=True)])  # fmt: skip
    other = {"chip": "M4", "path": "private", "workload": "conv_chain", "depth": "24", "in_ch": "768", "height": "32",
             "width": "32"}  # fmt: skip
    (before,), (after,) = (text.priced([other], each) for each in (shipped, slow))
    assert 1.25 < float(after["predicted_ms"]) / float(before["predicted_ms"]) < 1.7
    again = text.priced([dict(line, source=model.HERE) for line in lines], slow)
    ratios = [float(a["predicted_ms"]) / float(b["predicted_ms"]) for a, b in zip(again, priced, strict=True)]
    assert all(1.2 < ratio < 1.7 for ratio in ratios)
