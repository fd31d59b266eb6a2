"""Questions to the private framework itself: asked message by message by ``anex.selftest``, told here as published.

On the CPU the ones about weights are answered for the engine, and the others skipped: it has no such thing.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from ..._coremltools import builder
from ...bench.programs import conv_chain
from ...build import graph
from ...selftest import runner
from ...selftest.probes import PROBES as ASKED
from .. import runtime
from ..record import Answer, Check, probe
from ..session import Session, random

if TYPE_CHECKING:
    from coremltools.converters.mil.mil import Var

CHANNELS, WIDTH = 256, 64


def ask(session: Session, *ids: str) -> dict[str, Mapping[str, Any]]:
    """The answers of these questions of the self-test, each in a process as fresh as it needs."""
    jobs = [{"kind": "probe", "id": id_, "alone": ASKED[id_].alone} for id_ in ids]
    answers: dict[str, Mapping[str, Any]] = {
        job["id"]: {"id": job["id"], **answer} for job, answer in runner.perform(jobs)
    }
    session.asked.update(answers)
    return answers


def asked(session: Session, *ids: str) -> Answer:
    """These questions, answered as they are: only one that nobody answers fails."""
    answers = ask(session, *ids)
    return Answer("asked", f"{len(answers)} questions asked.", (unanswered(answers),), told(answers), plain(answers))


def plain(answers: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    return {id_: dict(answer) for id_, answer in answers.items()}


def told(answers: Mapping[str, Mapping[str, Any]]) -> list[str]:
    return [f"{id_}: {answer.get('verdict') or answer.get('reason')}" for id_, answer in answers.items()]


def unanswered(answers: Mapping[str, Mapping[str, Any]]) -> Check:
    """How many gave no answer: a refusal that is itself the answer counts as one."""
    missing = sum(answer.get("status") != "answered" for answer in answers.values())
    return Check("questions without an answer", missing, 0)


@probe(
    "basic",
    question="Does a program compile in memory, load and evaluate, with the right numbers?",
    source="inmem_basic (seed 002)",
    answers={"M4 Max": "PASS"},
)
def basic(session: Session) -> Answer:
    x = random("x", 1, CHANNELS, 1, WIDTH)
    ran = session.run(conv_chain(1, CHANNELS, 1, WIDTH), {"x": x})
    from ...bench.programs import SEED, weights

    weight = weights(np.random.default_rng(SEED), CHANNELS, CHANNELS)
    error = float(np.abs(ran.only[0, :, 0].astype(np.float64) - weight.astype(np.float64) @ x[0, :, 0]).max())
    tflops = 2 * CHANNELS**2 * WIDTH / ran.ms / 1e9
    states = [f"{name}: {value}" for name, value in ran.stats.items()]
    return Answer(
        "works" if error < 0.01 else "wrong",
        f"{CHANNELS} x {CHANNELS} conv on {WIDTH} positions: compile {ran.compile_ms:.1f} ms, {ran.ms:.4f} ms/eval, "
        f"{tflops:.3f} TFLOPS.",
        (Check("max abs error", error, 0.01),), states, {"ms": ran.ms, "tflops": tflops, "compile_ms": ran.compile_ms},
    )  # fmt: skip


@probe(
    "api",
    question="Which private classes and methods does the framework have?",
    source="api_exploration (seed 001)",
    device="ane",
)
def api(session: Session) -> Answer:
    from ...doctor import examine, verdicts

    facts = examine()
    listed = facts["ane"]["selectors"]
    missing = [each for each in listed if each["is_required"] and not each["found"]]
    lines = [
        f"{each['found'] or 'MISSING':40} {each['kind']}[{each['class']} {each['name']}]"
        + ("" if each["fits"] or not each["found"] else f" expected {each['expected']}")
        for each in listed
    ]
    found = sum(bool(each["found"]) for each in listed)
    return Answer("complete" if not missing else "incomplete", f"{found} of {len(listed)} methods are there.",
                  (Check("needed methods that are missing", len(missing), 0),), [*lines, *verdicts(facts)])  # fmt: skip


def is_baked(session: Session) -> Answer:
    """For devices without files: whether a compiled program sees that the array it was made from has changed."""
    mb, weight = builder(), np.eye(64, dtype=np.float16)[:, :, None, None]

    @graph(x=(1, 64, 1, 32))
    def identity(x: Var) -> Var:
        return mb.conv(x=x, weight=weight)

    from ...program import compile

    x = random("x", 1, 64, 1, 32)
    with compile(identity, device=session.device) as program:
        before = np.array(program(x))
        weight *= 3
        after = np.array(program(x))
    key = "baked" if (after == before).all() else "changed"
    return Answer(key, f"Weights are {key}: the array was multiplied by 3 after the compilation, and the result "
                  f"{'stayed' if key == 'baked' else 'did not stay'} the same.",
                  (Check("values that changed", int((after != before).sum()), 0),))  # fmt: skip


@probe(
    "weight-reload",
    question="Do overwritten weights take effect after unload and load?",
    source="test_weight_reload (seeds 002 and 003)",
    answers={"M4 Max": "FAIL (expected): weights are baked", "M5": "no", "ORI (M4 Max)": "yes"},
)
def weight_reload(session: Session) -> Answer:
    if session.device != "ane":
        return is_baked(session)
    answers = ask(session, "weight-reload")
    answer = answers["weight-reload"]
    key, data = str(answer.get("key")), answer.get("data", {})
    verdict = {"baked": "FAIL (expected)", "reloaded": "SUCCESS"}.get(key, "PARTIAL")
    lines = [
        f"A, as compiled: output {data['before']:g}; B, file overwritten and reloaded: output {data['after']:g}",
        ", ".join(f"{name} {data[f'{name}_ms']:.3f} ms" for name in ("compile", "unload", "reload")),
    ] if "after" in data else []  # fmt: skip
    (line,) = told(answers)
    return Answer(key, f"{verdict}. {line}", (unanswered(answers),), lines, dict(data), expected=key == "baked")


@probe(
    "weight-patch",
    question="By which of five ways can weights change without a compilation?",
    source="test_weight_patch (seed 002)",
    device="ane",
)
def weight_patch(session: Session) -> Answer:
    ids = ("weight-reload", "load-without-compile", "compiled-cache", "weights-buffer", "multi-input")
    answers = ask(session, *ids)
    works = [id_ for id_, good in (("load-without-compile", "yes"), ("weights-buffer", "used"), ("multi-input", "yes"))
             if answers[id_].get("key") == good]  # fmt: skip
    return Answer("+".join(works) or "inputs only", f"Ways that work: {', '.join(works) or 'inputs only'}.",
                  (unanswered(answers),), told(answers), plain(answers))  # fmt: skip


@probe(
    "perf-stats",
    question="Does the hardware tell its own time and counters?",
    source="test_perf_stats (seeds 002 and 003)",
    device="ane",
    answers={"M4 Max": "PASS: the class is there", "M5": "needs a mask on the model"},
)
def perf_stats(session: Session) -> Answer:
    from ...program import compile

    with compile(conv_chain(1, CHANNELS, 1, WIDTH), device="ane", perf_stats=True) as program:
        program(random("x", 1, CHANNELS, 1, WIDTH))
        stats = dict(program.stats())
    told_ = {name: stats[name] for name in ("hardware_ns", "counters") if stats.get(name)}
    listed = [line for name in runtime.classes(f"{runtime.PREFIX}PerformanceStats") for line in runtime.described(name)]
    return Answer("told" if told_ else "silent", f"Counters of the hardware: {told_ or 'none'}.",
                  (Check("classes of statistics that are missing", int(not listed), 0),),
                  [*listed, *(f"{name}: {value}" for name, value in stats.items())], stats)  # fmt: skip


@probe(
    "qos",
    question="Does QoS change what compiling, loading and evaluating take?",
    source="test_qos_sweep (seeds 002 and 003)",
    device="ane",
    answers={"M4 Max, M5": "no measurable effect", "M3 Pro": "background 0.143 ms, default 0.248 ms"},
)
def qos(session: Session) -> Answer:
    from ...bench.running import run
    from ...bench.tables import benchmark
    from ...bench.text import aligned

    done = run(benchmark("qos"), session.device, {}, session.effort)
    columns = done.benchmark.columns
    table = [[*(c.title for c in columns), "", ""], *([*(c.text(row) for c in columns), "", ""] for row in done.rows)]
    times = [row.ms() for row in done.rows if row.timings]
    key = "alike" if times and max(times) <= 1.3 * min(times) else "differs"
    return Answer(key, done.notes[0] + ".", (Check("values that are refused", len(done.failures), 0),),
                  aligned(table), {"ms": times})  # fmt: skip


@probe(
    "advanced",
    question="What do weights buffers, procedure indices, mapping, real time and the other ways of evaluating do?",
    source="test_ane_advanced (seeds 002 and 003)",
    device="ane",
)
def advanced(session: Session) -> Answer:
    found = asked(session, "weights-buffer", "procedure-index", "map-surfaces", "real-time", "dispatch-ways",
                  "loaded-state", "chaining")  # fmt: skip
    names = runtime.classes()
    return replace(found, lines=[*found.lines, f"{len(names)} classes {runtime.PREFIX}*: {', '.join(names)}"],
                   data={**found.data, "classes": names})  # fmt: skip


@probe(
    "cliffs",
    question="Where do fp16 sums, products, slices and small numbers go wrong?",
    source="ANEForge's numeric cliffs",
    answers={"M1, M2 Pro, M5": "sums above 2,048, matmul above 32,752, slices above 4,094, subnormals"},
)
def cliffs(session: Session) -> Answer:
    if session.device == "ane":
        return asked(session, "accumulation", "reduce-sum", "matmul-cliff", "slice-cliff", "subnormals", "rounding")
    mb, count = builder(), 16384

    @graph(x=(1, 1, 1, count))
    def total(x: Var) -> Var:
        return mb.reduce_sum(x=x, axes=[-1], keep_dims=True)

    found = float(session.run(total, {"x": np.ones((1, 1, 1, count), np.float16)}, timed=False).only.reshape(()))
    return Answer("none" if found == count else "some", f"{count} ones sum to {found:g}.",
                  (Check("sum of 16,384 ones, off by", abs(found - count), 0),),
                  ["Every cliff is modelled by compile(..., ane_numerics=True)."])  # fmt: skip


@probe(
    "rules",
    question="Which of the rules that sources disagree on hold on this machine?",
    source="known constraints (seed 003), and the rules of anex",
    device="ane",
)
def rules(session: Session) -> Answer:
    """Every question of the self-test that a rule waits for; what follows is told rule by rule."""
    from ...devices.info import device_info, label
    from ...ops import family
    from ...placement.settling import questions, settled

    answers = ask(session, *questions())
    known = {f"selftest/{id_}": answer for id_, answer in answers.items()}
    found = settled(known, family(device_info().architecture), label(session.device))
    lines = [f"[{rule}] {'holds' if each.holds else 'does not hold'}: {each.verdict}" for rule, each in found.items()]
    holding = sum(each.holds for each in found.values())
    return Answer("asked", f"{len(found)} rules are settled here: {holding} hold, {len(found) - holding} do not.",
                  (unanswered(answers),), lines, {rule: each.holds for rule, each in found.items()})  # fmt: skip
