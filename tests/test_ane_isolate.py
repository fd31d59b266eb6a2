"""isolate=True: programs in processes of their own, on the stand-in."""

import gc
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pytest
from needs_ane import needs_ane

import anex
from anex import _native, mb
from anex.devices import isolate

pytestmark = needs_ane


@pytest.fixture(autouse=True)
def _nobody_stays():
    yield
    gc.collect()
    assert not isolate._workers.alive


def times(by, **options):
    @anex.graph(x=(1, 4, 1, 8))
    def program(x):
        return mb.mul(x=x, y=np.float16(by), name="y")

    return anex.compile(program, device="ane", isolate=True, **options)


X = np.arange(32, dtype=np.float16).reshape(1, 4, 1, 8)


def worker():
    (found,) = isolate._workers.alive
    return found


def ended(process, seconds=10):
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if process.poll() is not None:
            return True
        time.sleep(0.01)
    return False


def test_it_runs_elsewhere_and_gives_the_same():
    here = _native.ane_account()["compiles"]
    with times(2) as program:
        assert worker().process.pid != os.getpid()
        np.testing.assert_array_equal(np.asarray(program(X)), X * 2)
        np.testing.assert_array_equal(np.asarray(program.submit(X).result(30)), X * 2)
        assert program.stats()["evaluations"] == 2
    assert _native.ane_account()["compiles"] == here


def test_tensors_are_shared_and_not_copied():
    with times(3) as program:
        x, y = anex.tensor(X), anex.empty(X.shape)
        into, of = np.asarray(x), np.asarray(y)
        for value in (1, 2):
            into[...] = value
            assert program(x, out=y) is y
            assert (of == 3 * value).all()
        assert program.stats()["staged"] == 0


def test_arguments_are_checked_before_anything_is_sent():
    with times(2) as program:
        with pytest.raises(anex.ShapeError, match="input 'x'"):
            program(X[:, :2])
        with pytest.raises(anex.ArgumentError, match="missing 'x'"):
            program(z=X)


def test_the_last_program_ends_the_worker():
    first, second = times(2), times(3)
    process = worker().process
    first.close()
    first.close()
    assert process.poll() is None
    with pytest.raises(anex.ClosedError, match="closed"):
        first(X)
    np.testing.assert_array_equal(np.asarray(second(X)), X * 3)
    second.close()
    assert process.poll() == 0


def test_a_dropped_program_ends_its_worker_too():
    program = times(2)
    process = worker().process
    del program
    gc.collect()
    assert ended(process)


def test_a_worker_that_died_fails_no_call_but_those_under_way():
    with times(2) as program, times(5) as other:
        np.testing.assert_array_equal(np.asarray(program(X)), X * 2)
        first = worker().process
        os.kill(first.pid, signal.SIGKILL)
        first.wait()
        with pytest.raises(anex.DeviceError, match=r"isolate=True ended during the call \(signal 9\); the next call"):
            program(X)
        np.testing.assert_array_equal(np.asarray(program(X)), X * 2)
        np.testing.assert_array_equal(np.asarray(other(X)), X * 5)
        assert worker().process.pid != first.pid


def test_a_call_under_way_fails_when_its_worker_dies(monkeypatch):
    monkeypatch.setenv("FAKE_ANE", "evaluate=slow:2000")
    with times(2) as program:
        future = program.submit(X)
        time.sleep(0.5)
        monkeypatch.delenv("FAKE_ANE")
        os.kill(worker().process.pid, signal.SIGKILL)
        assert isinstance(future.exception(30), anex.DeviceError)
        np.testing.assert_array_equal(np.asarray(program(X)), X * 2)


def test_a_program_closed_with_calls_under_way_ends_them_first(monkeypatch):
    monkeypatch.setenv("FAKE_ANE", "evaluate=slow:50")
    program = times(6)
    process = worker().process
    futures = [program.submit(X) for _ in range(10)]
    program.close()
    for future in futures:
        np.testing.assert_array_equal(np.asarray(future.result(30)), X * 6)
    assert ended(process)


def test_errors_of_the_device_come_over_as_they_are(monkeypatch):
    monkeypatch.setenv("FAKE_ANE", "evaluate=once")
    with times(2) as program:
        with pytest.raises(anex.DeviceError, match="Inference error"):
            program(X)
        np.testing.assert_array_equal(np.asarray(program(X)), X * 2)
    monkeypatch.setenv("FAKE_ANE", "compile=no")
    with pytest.raises((anex.DeviceError, anex.CompileError), match="compil"):
        times(7)


def test_a_worker_that_may_compile_no_more_is_followed_by_a_fresh_one(monkeypatch):
    original = isolate.Remote.__init__
    made = []

    def spent(self, *arguments):
        original(self, *arguments)
        self._home.worker.is_spent = True
        made.append(self._home.worker)

    monkeypatch.setattr(isolate.Remote, "__init__", spent)
    programs = [times(by) for by in (2, 3, 4)]
    assert len({id(worker) for worker in made}) == 3
    for by, program in zip((2, 3, 4), programs, strict=True):
        np.testing.assert_array_equal(np.asarray(program(X)), X * by)
    for program in programs:
        program.close()
    assert all(ended(worker.process) for worker in made)


def test_the_limit_of_a_real_worker_moves_new_programs_on(monkeypatch):
    monkeypatch.setenv("FAKE_ANE", "compile_limit=2")
    with times(2) as a, times(3) as b:
        isolate._workers.current.is_spent = True
        with times(4) as c:
            assert len(isolate._workers.alive) == 2
            for by, program in ((2, a), (3, b), (4, c)):
                np.testing.assert_array_equal(np.asarray(program(X)), X * by)


def test_threads_call_side_by_side():
    wrong = []
    with times(2) as program, times(3) as other:

        def work(seed):
            x = np.random.default_rng(seed).integers(0, 99, X.shape).astype(np.float16)
            for _ in range(30):
                if not (np.asarray(program(x)) == x * 2).all() or not (np.asarray(other(x)) == x * 3).all():
                    wrong.append(seed)

        threads = [threading.Thread(target=work, args=(seed,)) for seed in range(5)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert not wrong


CODE = """
import os, sys
import numpy as np, anex
from anex import mb
from anex.devices import isolate

@anex.graph(x=(2, 64))
def twice(x):
    return mb.add(x=x, y=x, name="y")

program = anex.compile(twice, device="ane", isolate=True)
program(np.ones((2, 64), np.float16))
(worker,) = isolate._workers.alive
print(worker.process.pid, flush=True)
END
"""


@pytest.mark.parametrize("end", ["", "raise SystemExit(3)", "os._exit(0)", "os.kill(os.getpid(), 9)"])
def test_nothing_is_left_behind_however_the_process_ends(end):
    done = subprocess.run([sys.executable, "-c", CODE.replace("END", end)], capture_output=True, text=True, timeout=120)
    pid = int(done.stdout)
    deadline = time.monotonic() + 10
    while time.monotonic() < deadline:
        try:
            state = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0]
        except FileNotFoundError:
            return
        if state == "Z":  # ended; nobody waits for it here
            return
        time.sleep(0.02)
    pytest.fail(f"worker {pid} lives on")


def test_a_worker_starts_without_coremltools():
    code = "import sys, anex.devices.worker; print('coremltools' in sys.modules, 'torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "False False\n"
