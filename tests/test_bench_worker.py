"""Parts of a whole run in processes of their own: what comes back, what a death costs, when a fresh one takes over."""

from __future__ import annotations

import io
import pickle

import pytest
from needs_ane import needs_ane
from suite_case import SMALL, table

from anex import _native
from anex.bench.running import run
from anex.bench.tables import BENCHMARKS
from anex.bench.text import text
from anex.bench.timing import Effort
from anex.suite import playing, worker
from anex.suite.playing import Plan, outcomes
from anex.suite.worker import Done, Worker


def told(*_):
    return lambda *_: None


@pytest.fixture(autouse=True)
def home(tmp_path, monkeypatch):
    monkeypatch.setenv("ANEX_HOME", str(tmp_path / "home"))


def test_a_run_comes_back_as_it_was_without_its_programs():
    done = run(BENCHMARKS["depth"], "cpu", {"depths": [1, 2], "channels": 16, "size": 4}, Effort(0, 1, 0.0))
    back = pickle.loads(pickle.dumps(worker.plain(done)))
    assert text(back) == text(done)
    assert back.benchmark is BENCHMARKS["depth"]
    with pytest.raises(LookupError, match="is over"):
        back.rows[0].config.programs["eval"]()


def test_jobs_are_answered_one_after_another_with_how_far_they_are(monkeypatch):
    table(monkeypatch, "small", SMALL)
    plan = Plan("cpu", quick=True, only=["small"])
    answers = io.BytesIO()
    worker.serve(io.BytesIO(pickle.dumps(("benchmarks", "small", plan))), answers)
    answers.seek(0)
    messages = []
    while answers.tell() < len(answers.getvalue()):
        messages.append(pickle.load(answers))
    assert messages[:-1] == [("1", 0, 3), ("2", 1, 3), ("4", 2, 3), ("", 3, 3)]
    assert isinstance(messages[-1], Done)
    assert (messages[-1].outcome.status, len(messages[-1].runs[0].rows)) == ("PASS", 3)


@pytest.mark.parametrize(("limit", "compiled", "spent"), [(119, 60, False), (119, 80, True), (0, 500, False)])
def test_a_process_that_may_not_compile_much_more_is_spent(monkeypatch, limit, compiled, spent):
    account = {"compile_limit": limit, "compiles": compiled}
    monkeypatch.setattr(_native, "ane_account", lambda: account)
    assert worker.is_spent() == spent


@needs_ane
def test_a_process_that_dies_costs_its_part_and_the_next_ones_have_another(monkeypatch):
    class Dying(Worker):
        made = 0

        def __init__(self):
            super().__init__()
            Dying.made += 1

        def perform(self, section, name, plan, listener):
            if name == "dispatch":
                self.process.kill()
            return super().perform(section, name, plan, listener)

    monkeypatch.setattr(playing, "Worker", Dying)
    plan = Plan("ane", quick=True, sections=("benchmarks",), only=["dispatch", "matmul"])
    first, second = outcomes(plan, told)
    assert (first.name, first.status) == ("dispatch", "FAIL")
    assert first.reasons[0] in ("its process ended with signal SIGKILL", "its process is gone")
    assert (second.name, second.status) == ("matmul", "PASS")
    assert Dying.made == 2
    assert [done.benchmark.name for done in plan.runs] == ["matmul"]


@needs_ane
def test_a_benchmark_compiles_no_more_programs_than_a_process_has_room_for():
    """As ``ROOM`` promises: else one would fail in a process that is not spent."""
    for benchmark in BENCHMARKS.values():
        several = [
            getattr(each, "parts", (each,)) for config in benchmark.configs() for each in config.programs.values()
        ]
        assert sum(map(len, several)) <= worker.ROOM, benchmark.name
