"""Program.submit on every device: what a call would give, later."""

import gc
import os
import subprocess
import sys
import threading
import time

import numpy as np
import pytest
from fake_ane import control as fake_ane

import anex
from anex import mb


@anex.graph(x=(1, 4, 1, 5), y=(1, 4, 1, 5))
def both(x, y):
    return mb.add(x=x, y=y, name="sum"), mb.sub(x=x, y=y, name="difference")


@pytest.fixture
def program(device):
    with anex.compile(both, device=device) as compiled:
        yield compiled


def values(seed):
    rng = np.random.default_rng(seed)
    return tuple(rng.integers(-9, 9, (1, 4, 1, 5)).astype(np.float16) for _ in range(2))


def test_a_future_gives_what_the_call_gives(program):
    x, y = values(0)
    for future in (program.submit(x, y), program.submit(y=y, x=anex.tensor(x)), program.submit(anex.tensor(x), y)):
        total, difference = future.result(30)
        np.testing.assert_array_equal(np.asarray(total), x + y)
        np.testing.assert_array_equal(np.asarray(difference), x - y)


@pytest.mark.parametrize("make", [np.empty_like, lambda a: anex.tensor(a), lambda a: anex.tensor(a, padded=False)])
def test_given_outputs_are_written_and_come_back(program, make):
    x, y = values(1)
    out = make(x), make(x)
    assert program.submit(x, y, out=out).result(30) is out
    np.testing.assert_array_equal(np.asarray(out[0]), x + y)
    np.testing.assert_array_equal(np.asarray(out[1]), x - y)


def test_more_calls_than_the_queue_holds_all_arrive(program):
    calls = [values(seed) for seed in range(300)]
    futures = [program.submit(x, y) for x, y in calls]
    for (x, y), future in zip(calls, futures, strict=True):
        np.testing.assert_array_equal(np.asarray(future.result(60)[0]), x + y)


def test_whatever_goes_wrong_arrives_in_the_future(program):
    x, y = values(2)
    assert isinstance(program.submit(x).exception(30), anex.ArgumentError)
    assert isinstance(program.submit(x, y[:, :2]).exception(30), anex.ShapeError)
    assert isinstance(program.submit(x, y.astype(np.float32)).exception(30), anex.DTypeError)
    assert isinstance(program.submit(x, y, z=x).exception(30), anex.ArgumentError)
    program.close()
    assert isinstance(program.submit(x, y).exception(30), anex.ClosedError)


def test_operands_are_pinned_until_the_call_is_done():
    with anex.compile(both, device="ane") as program, fake_ane.switched(completion="slow:200"):
        x, y = map(anex.tensor, values(3))
        future = program.submit(x, y)
        with pytest.raises(anex.ViewError, match="live view"):
            x.close()
        future.result(30)
        for _ in range(100):  # the operands go as the future is told, or a moment later
            try:
                x.close()
                break
            except anex.ViewError:
                time.sleep(0.01)
        assert x.closed


def test_futures_that_nobody_reads_leave_nothing(program):
    x, y = map(anex.tensor, values(4))
    for _ in range(200):
        program.submit(x, y)
    program.submit(x, y).result(30)
    deadline = time.monotonic() + 30
    while not x.closed and time.monotonic() < deadline:
        try:
            x.close()
        except anex.ViewError:
            time.sleep(0.01)
    assert x.closed
    gc.collect()
    if program.device == "ane":
        assert fake_ane.count("in_flight") == 0


def test_a_program_closed_with_calls_under_way_ends_them_first(device):
    program = anex.compile(both, device=device)
    x, y = values(5)
    futures = [program.submit(x, y) for _ in range(50)]
    program.close()
    for future in futures:
        np.testing.assert_array_equal(np.asarray(future.result(30)[0]), x + y)


def test_a_callback_may_call_submit_and_close(program):
    x, y = values(6)
    done = threading.Event()
    found = []

    def again(future):
        found.append(np.asarray(future.result()[0]))
        program.submit(x, y).add_done_callback(close)

    def close(future):
        found.append(np.asarray(future.result()[0]))
        program.close()
        done.set()

    program.submit(x, y).add_done_callback(again)
    assert done.wait(30)
    for each in found:
        np.testing.assert_array_equal(each, x + y)


@pytest.mark.parametrize(("when", "kind"), [("evaluate", "no"), ("evaluate", "throw"), ("completion", "no")])
def test_a_device_that_fails_says_so_in_the_future_and_goes_on(when, kind):
    x, y = values(7)
    with anex.compile(both, device="ane") as program:
        with fake_ane.switched(**{when: kind}):
            assert isinstance(program.submit(x, y).exception(30), anex.DeviceError)
        np.testing.assert_array_equal(np.asarray(program.submit(x, y).result(30)[0]), x + y)


def test_threads_submit_side_by_side(program):
    wrong = []

    def work(seed):
        x, y = values(seed)
        for _ in range(40):
            if not np.array_equal(np.asarray(program.submit(x, y).result(60)[1]), x - y):
                wrong.append(seed)

    threads = [threading.Thread(target=work, args=(seed,)) for seed in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong


def test_a_process_that_ends_with_calls_under_way_ends_well(device):
    code = (
        "import numpy as np, anex\n"
        "from anex import mb\n"
        "@anex.graph(x=(2, 64))\n"
        "def twice(x):\n"
        "    return mb.add(x=x, y=x, name='y')\n"
        f"program = anex.compile(twice, device={device!r})\n"
        "futures = [program.submit(np.ones((2, 64), np.float16)) for _ in range(20)]\n"
        "print('submitted')\n"
    )
    env = {**os.environ, "FAKE_ANE": "completion=slow:10"}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=env, timeout=120)
    assert (done.returncode, done.stdout) == (0, "submitted\n"), done.stderr
