"""A Neural Engine that never answers: what waits for it, what does not, and how the process ends."""

import os
import subprocess
import sys
import threading
import time

import numpy as np
import pytest
from fake_ane import control as fake_ane
from needs_ane import needs_ane

import anex
from anex import mb
from anex.devices import isolate

pytestmark = needs_ane
X = np.arange(32, dtype=np.float16).reshape(1, 4, 1, 8)


def times(by, **options):
    @anex.graph(x=(1, 4, 1, 8))
    def program(x):
        return mb.mul(x=x, y=np.float16(by), name="y")

    return anex.compile(program, device="ane", **options)


def test_a_future_stays_pending_and_closing_its_program_does_not_wait():
    program = times(11)
    with fake_ane.switched(completion="never"):
        future = program.submit(X)
        with pytest.raises(TimeoutError):
            future.result(0.3)
        program.close()
        assert not future.done()
        with pytest.raises(anex.ClosedError):
            program(X)
    np.testing.assert_array_equal(np.asarray(future.result(30)), X * 11)  # it did answer, late


def test_a_full_queue_makes_one_thread_wait_and_no_other():
    with times(12) as program, times(13) as other:
        with fake_ane.switched(completion="never"):
            futures = []
            thread = threading.Thread(target=lambda: futures.extend(program.submit(X) for _ in range(130)), daemon=True)
            thread.start()
            while fake_ane.count("in_flight") < 127:
                time.sleep(0.01)
            np.testing.assert_array_equal(np.asarray(other(X)), X * 13)
            asking = [threading.Thread(target=program.stats) for _ in range(2)]  # these wait; we go on
            for each in asking:
                each.start()
            np.testing.assert_array_equal(np.asarray(other(X)), X * 13)
        for each in [thread, *asking]:
            each.join(30)
            assert not each.is_alive()
        for future in futures:
            np.testing.assert_array_equal(np.asarray(future.result(30)), X * 12)


def test_a_call_that_does_not_return_stops_its_thread_only():
    found = []
    with times(14) as other:
        program = times(15)
        with fake_ane.switched(evaluate="never"):
            thread = threading.Thread(target=lambda: found.append(np.asarray(program(X))))
            thread.start()
            while fake_ane.count("evaluations") == 0 or not thread.is_alive():
                time.sleep(0.01)
            time.sleep(0.1)
            program.close()
            with pytest.raises(anex.ClosedError):
                program.stats()
            assert not found
        thread.join(30)
        np.testing.assert_array_equal(found[0], X * 15)
        np.testing.assert_array_equal(np.asarray(other(X)), X * 14)


CODE = """
import threading
import numpy as np, anex, anex.submit
from anex import mb

@anex.graph(x=(2, 64))
def twice(x):
    return mb.add(x=x, y=x, name="y")

anex.submit.PATIENCE = 0.5
program = anex.compile(twice, device="ane", isolate={isolate})
future = program.submit(np.ones((2, 64), np.float16))
if {stuck}:
    threading.Thread(target=program, args=(np.ones((2, 64), np.float16),), daemon=True).start()
{end}
print("the end")
"""


@pytest.mark.parametrize(
    ("isolate", "stuck", "end"),
    [
        (False, False, "program.close()"),
        (False, True, "raise SystemExit(0)"),
        (True, False, "program.close()"),
        (True, True, ""),
    ],
)
def test_the_process_ends_all_the_same_and_says_what_it_gave_up(isolate, stuck, end):
    fault = "evaluate=never" if isolate else "completion=never"
    code = CODE.format(isolate=isolate, stuck=stuck, end=end)
    env = {**os.environ, "FAKE_ANE": fault}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=env, timeout=600)
    assert done.returncode == 0, done.stderr
    assert "1 call(s) on the Neural Engine were given up: none was done in the last 0.5 s" in done.stderr


def test_a_worker_that_does_not_answer_in_time_is_ended_and_replaced(monkeypatch):
    """The timeout leaves a busy machine the time to start a worker, which counts."""
    monkeypatch.setenv("FAKE_ANE", "evaluate=never")
    with times(2, isolate=True, timeout=10) as program:
        (worker,) = isolate._workers.alive
        future = program.submit(X)
        with pytest.raises(anex.DeviceError, match=r"has not answered for 10 s, its timeout, and was ended|signal 9"):
            program(X)  # whichever of the two is the first to lose patience
        assert isinstance(future.exception(30), anex.DeviceError)
        assert worker.process.poll() == -9
        monkeypatch.delenv("FAKE_ANE")
        np.testing.assert_array_equal(np.asarray(program(X)), X * 2)
    assert not isolate._workers.alive


def test_a_compiler_that_does_not_answer_is_ended(monkeypatch):
    monkeypatch.setenv("FAKE_ANE", "compile=never")
    with pytest.raises(anex.DeviceError, match="has not answered for 3 s"):
        times(4, isolate=True, timeout=3)
    assert not isolate._workers.alive


@pytest.mark.parametrize("options", [dict(timeout=1), dict(timeout=0, isolate=True), dict(timeout=True, isolate=True)])
def test_a_timeout_is_of_a_worker_and_above_0(options):
    with pytest.raises(anex.ArgumentError, match="timeout="):
        times(5, **options)
