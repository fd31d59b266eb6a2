"""Running the whole: trainings, probes and benchmarks in order. What fails says why, and the next one goes on."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import TYPE_CHECKING

from ..bench import report, text
from ..bench.packages import usual_folder
from ..bench.progress import Listener
from ..bench.record import Benchmark
from ..bench.running import Run, run
from ..bench.tables import BENCHMARKS
from ..bench.timing import QUICK, Effort
from ..bench.warned import by_rule, gathered
from ..devices.info import label
from ..errors import ArgumentError, brief
from .outcome import SECTIONS, Outcome
from .training import TRAININGS, Training, play
from .worker import Worker

if TYPE_CHECKING:
    from ..probe.record import Probe

PROBING = Effort(5, 100, 2.0)
FROM_PACKAGES = ("inmem", "sram", "sram-fine")  # whose published tools read what the script generates


@dataclass
class Plan:
    """What to run. ``only``: names, all where empty; ``quick``: a selection of each table's configurations and small
    forms of the probes, few calls each. ``runs`` and ``interrupted`` are found while it runs."""

    device: str
    chip: str = "M4"
    quick: bool = False
    steps: int = 10
    sections: Collection[str] = tuple(SECTIONS)
    only: Collection[str] = ()
    runs: list[Run] = field(default_factory=list)
    interrupted: bool = False


Item = tuple[str, str, Callable[[Plan, Listener], Outcome]]


def items(plan: Plan) -> list[Item]:
    """Section, name and what runs it. Names that nothing has are refused."""
    from ..probe.questions import PROBES

    known: dict[str, list[Item]] = {
        "training": [("training", each.name, partial(trained, each)) for each in TRAININGS],
        "probes": [("probes", each.name, partial(probed, each)) for each in PROBES.values()],
        "benchmarks": [("benchmarks", each.name, partial(benched, each)) for each in BENCHMARKS.values()],
    }
    several = [item for section in SECTIONS for item in known[section]]
    if unknown := {*plan.only} - {name for _, name, _ in several}:
        raise ArgumentError(
            f"nothing is called {', '.join(sorted(unknown))}; there are {', '.join(name for _, name, _ in several)}"
        )
    return [item for item in several if item[0] in plan.sections and (not plan.only or item[1] in plan.only)]


def outcomes(plan: Plan, listener: Callable[[str], Listener]) -> Iterator[Outcome]:
    """Each as soon as it is there. Ctrl-C ends it after what is done, and ``plan.interrupted`` says so."""
    with apart(plan) as perform:
        for item in items(plan):
            found = perform(item, plan, listener(item[1]))
            if found is not None:
                yield found
            if plan.interrupted:
                return


def performed(item: Item, plan: Plan, listener: Listener) -> Outcome | None:
    """One of them, here; None where Ctrl-C left nothing of it."""
    section, name, perform = item
    begun = time.perf_counter()
    with gathered() as warnings:
        try:
            found = perform(plan, listener)
        except KeyboardInterrupt:
            plan.interrupted = True
            return None
        except Exception as error:  # whatever it is, the others go on
            found = Outcome(section, name, "FAIL", time.perf_counter() - begun, [brief(error)], data={"name": name})
    return replace(found, warned=found.warned or by_rule(warnings))


@contextlib.contextmanager
def apart(plan: Plan) -> Iterator[Callable[[Item, Plan, Listener], Outcome | None]]:
    """``performed``; for the Neural Engine in processes that may still compile enough."""
    workers: list[Worker] = []

    def elsewhere(item: Item, plan: Plan, listener: Listener) -> Outcome | None:
        section, name, _ = item
        begun = time.perf_counter()
        workers[:] = workers or [Worker()]
        try:
            done = workers[0].perform(section, name, plan, listener)
        except (ChildProcessError, BrokenPipeError) as error:
            workers.pop().stop()
            why = str(error) if isinstance(error, ChildProcessError) else "its process is gone"
            return Outcome(section, name, "FAIL", time.perf_counter() - begun, [why], data={"name": name})
        if done.is_spent:
            workers.pop().stop()
        plan.runs += done.runs
        plan.interrupted = plan.interrupted or done.interrupted
        return done.outcome

    try:
        yield elsewhere if plan.device == "ane" else performed
    finally:
        for worker in workers:
            worker.stop()


def trained(training: Training, plan: Plan, listener: Listener) -> Outcome:
    begun = time.perf_counter()
    known = {"name": training.name, "source": training.source, "device": label(plan.device)}
    if why := training.missing:
        return Outcome("training", training.name, "SKIP", 0.0, [why], data=known)
    found = play(training, plan.steps, plan.device, listener, small=plan.quick)
    lines = (
        f"{found['steps']} steps on {label(plan.device)}: loss {found['first_loss']:.4f} to {found['last_loss']:.4f}, "
        f"{found['ms_per_step']:.2f} ms/step, first step with compilation {found['first_ms']:.0f} ms"
    )
    return Outcome("training", training.name, "PASS", time.perf_counter() - begun, (), lines, {**known, **found})


def probed(probe: Probe, plan: Plan, listener: Listener) -> Outcome:
    """Answers of the whole form are kept for ``explain``, as those of ``anex probe`` are; those of a small one not."""
    from .. import answers
    from ..probe import asking
    from ..probe.commands import text as told
    from ..probe.record import EXPECTED

    begun = time.perf_counter()
    answer = asking.answer(probe, plan.device, QUICK if plan.quick else PROBING, small=plan.quick)
    if not plan.quick:
        answers.save(plan.device, answers.by_name([answer]))
    status = "PASS" if answer["status"] == EXPECTED else answer["status"]
    reasons = [] if answer["status"] == "PASS" else [answer["verdict"]]
    lines = "\n".join(told(answer)).rstrip()
    return Outcome("probes", probe.name, status, time.perf_counter() - begun, reasons, lines, answer)


def benched(benchmark: Benchmark, plan: Plan, listener: Listener) -> Outcome:
    """Fails where a row does, each with its reason; skipped where every row is."""
    begun = time.perf_counter()
    options = dict(benchmark.quick if plan.quick else {})
    if benchmark.name in FROM_PACKAGES:
        options |= {"by": "mlpackage", "packages": usual_folder()}
    most = benchmark.quick_rows if plan.quick else 0
    done = run(benchmark, plan.device, options, QUICK if plan.quick else benchmark.usual, plan.chip, listener, most)
    plan.runs.append(done)
    plan.interrupted = plan.interrupted or done.interrupted
    status, reasons = judged(done)
    return Outcome("benchmarks", benchmark.name, status, time.perf_counter() - begun, reasons, text.text(done),
                   report.run_as_json(done), done.warned)  # fmt: skip


def judged(done: Run) -> tuple[str, Sequence[str]]:
    if done.failures:
        return "FAIL", [f"{row.config.label}: {'; '.join(row.failed.values())}" for row in done.failures]
    if done.rows and all(row.skipped for row in done.rows):
        return "SKIP", list(dict.fromkeys(row.skipped for row in done.rows))
    if done.interrupted and not done.rows:
        return "SKIP", ["interrupted before its first row"]
    return "PASS", []
