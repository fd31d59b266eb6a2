"""Questions to the private framework itself: asked message by message by ``anex.selftest``, told here as published.

On the CPU the ones about weights are answered for the engine, and the others skipped: it has no such thing.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from ..._coremltools import builder
from ...bench.programs import conv_chain
from ...build import graph
from ...selftest import runner
from ...selftest.probes import PROBES as ASKED
from ..record import Answer, Check, probe
from ..session import Session, random

if TYPE_CHECKING:
    from coremltools.converters.mil.mil import Var

CHANNELS, WIDTH = 256, 64


def ask(*ids: str) -> dict[str, Mapping[str, Any]]:
    """The answers of these questions of the self-test, each in a process as fresh as it needs."""
    jobs = [{"kind": "probe", "id": id_, "alone": ASKED[id_].alone} for id_ in ids]
    return {job["id"]: answer for job, answer in runner.perform(jobs)}


def asked(*ids: str) -> Answer:
    """These questions, answered as they are: only one that nobody answers fails."""
    answers = ask(*ids)
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
    answers = ask("weight-reload")
    key = str(answers["weight-reload"].get("key"))
    verdict = {"baked": "FAIL (expected)", "reloaded": "SUCCESS"}.get(key, "PARTIAL")
    (line,) = told(answers)
    return Answer(key, f"{verdict}. {line}", (unanswered(answers),), expected=key == "baked")


@probe(
    "weight-patch",
    question="By which of five ways can weights change without a compilation?",
    source="test_weight_patch (seed 002)",
    device="ane",
)
def weight_patch(session: Session) -> Answer:
    ids = ("weight-reload", "load-without-compile", "compiled-cache", "weights-buffer", "multi-input")
    answers = ask(*ids)
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
    return Answer("told" if told_ else "silent", f"Counters of the hardware: {told_ or 'none'}.", (),
                  [f"{name}: {value}" for name, value in stats.items()], stats)  # fmt: skip


@probe(
    "qos",
    question="Does QoS change what compiling, loading and evaluating take?",
    source="test_qos_sweep (seeds 002 and 003)",
    device="ane",
    answers={"M4 Max, M5": "no measurable effect", "M3 Pro": "background 0.143 ms, default 0.248 ms"},
)
def qos(session: Session) -> Answer:
    from ...bench import tables
    from ...bench.record import BENCHMARKS
    from ...bench.running import run
    from ...bench.text import aligned

    del tables
    done = run(BENCHMARKS["qos"], session.device, {}, session.effort)
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
    return asked("weights-buffer", "procedure-index", "map-surfaces", "real-time", "dispatch-ways", "loaded-state")


@probe(
    "cliffs",
    question="Where do fp16 sums, products, slices and small numbers go wrong?",
    source="ANEForge's numeric cliffs",
    answers={"M1, M2 Pro, M5": "sums above 2,048, matmul above 32,752, slices above 4,094, subnormals"},
)
def cliffs(session: Session) -> Answer:
    if session.device == "ane":
        return asked("accumulation", "reduce-sum", "matmul-cliff", "slice-cliff", "subnormals", "rounding")
    mb, count = builder(), 16384

    @graph(x=(1, 1, 1, count))
    def total(x: Var) -> Var:
        return mb.reduce_sum(x=x, axes=[-1], keep_dims=True)

    found = float(session.run(total, {"x": np.ones((1, 1, 1, count), np.float16)}, timed=False).only.reshape(()))
    return Answer("none" if found == count else "some", f"{count} ones sum to {found:g}.",
                  (Check("sum of 16,384 ones, off by", abs(found - count), 0),),
                  ["Every cliff is modelled by compile(..., ane_numerics=True)."])  # fmt: skip


CHAIN: Sequence[tuple[str, str]] = (
    ("sequential + copy", "two programs, the result copied"),
    ("shared surface", "the output of one is the input of the next"),
    ("_ANEChainingRequest", "the framework's own chaining"),
    ("real-time evaluation", "evaluateRealTime"),
    ("fused MIL", "one program"),
)


@probe(
    "chaining",
    question="How can two programs run one after the other, and which way is fastest?",
    source="CHAINING_INVESTIGATION (seed 003)",
    answers={"M5": "chaining requests end with code 15; fuse instead"},
)
def chaining(session: Session) -> Answer:
    from ...bench.timing import measure
    from ...creation import empty, tensor
    from ...program import compile

    mb, eye = builder(), np.eye(64, dtype=np.float16)[:, :, None, None]

    def by(*factors: float) -> Any:
        @graph(x=(1, 64, 1, 64))
        def scaled(x: Var) -> Var:
            for factor in factors:
                x = mb.conv(x=x, weight=eye * np.float16(factor))
            return x

        return compile(scaled, device=session.device)

    x, between, y = (tensor(np.ones((1, 64, 1, 64), np.float16)), empty((1, 64, 1, 64)), empty((1, 64, 1, 64)))
    rows: list[tuple[str, float | None, str]] = []
    checks = []
    with by(2) as first, by(3) as second, by(2, 3) as both:
        copy = empty((1, 64, 1, 64))

        def sequential() -> None:
            first(x, out=between)
            np.asarray(copy)[...] = np.asarray(between)
            second(copy, out=y)

        def shared() -> None:
            first(x, out=between)
            second(between, out=y)

        for (name, _), call in zip(
            (CHAIN[0], CHAIN[1], CHAIN[4]), (sequential, shared, lambda: both(x, out=y)), strict=True
        ):
            np.asarray(y)[...] = 0
            timing = measure(call, session.effort)
            checks.append(Check(f"{name}: all 6.0", float(np.abs(np.asarray(y).astype(np.float64) - 6).max()), 0))
            rows.append((name, timing.ms, "OK"))
    if session.device == "ane":
        answers = ask("chaining", "real-time")
        for (name, _), id_ in ((CHAIN[2], "chaining"), (CHAIN[3], "real-time")):
            rows.append((name, None, str(answers[id_].get("verdict") or answers[id_].get("reason"))))
    else:
        rows += [(name, None, "only device='ane' has this") for name, _ in CHAIN[2:4]]
    base = rows[0][1]
    order = [name for name, _ in CHAIN]
    lines = [row_text(*row, base) for row in sorted(rows, key=lambda row: order.index(row[0]))]
    fastest, ms, _ = min((row for row in rows if row[1] is not None), key=lambda row: row[1] or 0.0)
    key = "fuse" if fastest == "fused MIL" else fastest
    return Answer(key, f"Fastest: {fastest}, {(base or 0.0) / (ms or 1.0):.2f}x.", checks, lines)


def row_text(name: str, ms: float | None, status: str, base: float | None) -> str:
    """Approach, ms/iter, Speedup, Status."""
    if ms is None or base is None:
        return f"{name:22} {'-':>8}          {'-':>5}   {status}"
    return f"{name:22} {ms:8.4f} ms/iter  {base / ms:5.2f}x  {status}"
