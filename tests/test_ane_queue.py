"""What is particular to the Neural Engine's queue: its depth, order, futures, other ways, and what it measures."""

import threading
from concurrent.futures import TimeoutError

import numpy as np
import pytest
from fake_ane import control as fake_ane
from needs_ane import needs_ane

import anex
from anex import mb

pytestmark = needs_ane
SHAPE = (1, 4, 1, 5)
X = np.arange(20, dtype=np.float16).reshape(SHAPE)


def scaled(by, **options):
    @anex.graph(x=SHAPE)
    def program(x):
        return mb.mul(x=x, y=np.float16(by), name="y")

    return anex.compile(program, device="ane", **options)


def test_the_queue_holds_as_many_calls_as_the_framework_says_and_the_next_one_waits():
    with scaled(2) as program, fake_ane.switched(completion="slow:10"):
        depth = program._executable.stats()["queue_depth"]
        x, y = anex.tensor(X), [anex.zeros(SHAPE) for _ in range(depth + 20)]
        futures, seen = [], []
        for out in y:
            futures.append(program.submit(x, out=out))
            seen.append(fake_ane.count("in_flight"))
        for out, future in zip(y, futures, strict=True):
            assert future.result(60) is out
    assert depth // 2 < max(seen) <= depth == 127


def test_results_arrive_in_the_order_of_submission():
    arrived, all_here = [], threading.Event()

    def note(number):
        arrived.append(number)
        if len(arrived) == 40:
            all_here.set()

    with scaled(2) as program, fake_ane.switched(completion="slow:1"):
        for number in range(40):
            program.submit(X).add_done_callback(lambda _, number=number: note(number))
        assert all_here.wait(60)
    assert arrived == list(range(40))


def test_what_the_device_has_is_running_and_cannot_be_cancelled():
    with scaled(2) as program, fake_ane.switched(completion="slow:200"):
        future = program.submit(X)
        assert future.running()
        assert not future.done()
        assert not future.cancel()
        with pytest.raises(TimeoutError):
            future.result(0.01)
        np.testing.assert_array_equal(np.asarray(future.result(30)), X * 2)
        assert future.done()
        assert not future.cancelled()
        assert future.exception() is None


def test_a_callback_that_raises_stops_nobody():
    with scaled(2) as program:
        program.submit(X).add_done_callback(lambda _: 1 / 0)
        np.testing.assert_array_equal(np.asarray(program.submit(X).result(30)), X * 2)


def test_one_failure_among_many_is_that_futures_alone():
    with scaled(2) as program, fake_ane.switched(completion="once"):
        futures = [program.submit(X) for _ in range(10)]
        failed = [isinstance(future.exception(30), anex.DeviceError) for future in futures]
        assert failed == [True] + [False] * 9
        for future in futures[1:]:
            np.testing.assert_array_equal(np.asarray(future.result()), X * 2)


def test_two_programs_share_a_tensor_and_nothing_is_copied():
    with scaled(2) as first, scaled(3) as second:
        x, between, y = anex.tensor(X), anex.zeros(SHAPE), anex.zeros(SHAPE)
        first(x, out=between)
        second(between, out=y)
        surfaces, requests = fake_ane.count("live_surfaces"), fake_ane.count("requests")
        view = np.asarray(x)
        for value in (1, 4):
            view[...] = value
            first(x, out=between)
            assert second.submit(between, out=y).result(30) is y
            assert (np.asarray(y) == 6 * value).all()
        assert first.stats()["staged"] == second.stats()["staged"] == 0
        assert fake_ane.count("live_surfaces") == surfaces
        # a submission has a request of its own, which holds its completion handler
        assert fake_ane.count("requests") == requests + 2


@pytest.mark.parametrize(("way", "at"), [("direct", "evaluate"), ("real_time", "real_time"), ("evaluate", "evaluate")])
def test_every_way_of_evaluating_reports_that_it_is_refused(way, at):
    with scaled(2, way=way) as program:
        with fake_ane.switched(**{at: "code:2"}), pytest.raises(anex.UnsupportedError, match="entitlement"):
            program(X)
        with fake_ane.switched(**{at: "code:2"}):
            assert isinstance(program.submit(X).exception(30), anex.UnsupportedError)
        np.testing.assert_array_equal(np.asarray(program(X)), X * 2)
        np.testing.assert_array_equal(np.asarray(program.submit(X).result(30)), X * 2)


def test_statistics_are_those_of_the_hardware_where_it_tells_them():
    with scaled(2, perf_stats=True) as program:
        assert "hardware_ns" not in program.stats()
        program.profile(X, repeat=3)
        stats = program.stats()
        assert stats["hardware_ns"] > 0
        assert stats["counters"]["kANE_NE_COMPUTE_CYCLES"] >= 0
        with fake_ane.switched(perf_stats=False):
            program.profile(X, repeat=3)
        assert "hardware_ns" not in program.stats()
    with scaled(2) as program:
        program.profile(X, repeat=3)
        assert "hardware_ns" not in program.stats()
