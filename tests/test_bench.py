"""The benchmarks compute the same as their peers, and their arithmetic is right; what the clock says is not tested."""

from __future__ import annotations

import dataclasses
import functools
import os
import sys

import numpy as np
import pytest

from benchmarks import gpt2, machine, measure, runtimes
from benchmarks.__main__ import main
from benchmarks.case import Case, Goal, Limit, Setting, Work, normal
from benchmarks.cases import bandwidth, blocks, chain, compiling, conversion, networks, tiny, training
from benchmarks.catalogue import CASES, matching
from benchmarks.processes import Process, Refused
from benchmarks.turn import timed

SMALL_GPT2 = gpt2.Config(n_embd=128, n_layer=2, n_head=2, n_positions=256, n_inner=128, vocab_size=200)
# Each case of the catalogue, no larger than it must be.
SMALL = {
    "tiny-add": tiny.add,
    "tiny-conv": tiny.conv,
    "chain": functools.partial(chain.floating, 2, 64, 8),
    "chain-w8a8": functools.partial(chain.w8a8, 2, 64, 8),
    **{f"{name}-{length}": functools.partial(getattr(blocks, name), length)
       for name in ("ffn", "attention", "product") for length in (64, 256)},
    "resnet": functools.partial(networks.resnet, 32),
    "mobilenet": functools.partial(networks.mobilenet, 32),
    "encoder": functools.partial(networks.encoder, 1, 16),
    "minilm-32": functools.partial(networks.minilm, 32),
    "minilm-128": functools.partial(networks.minilm, 128),
    "add": bandwidth.add,
    "gelu": bandwidth.gelu,
    **{f"{name}-{place}": functools.partial(function, axis)
       for name, function in (("softmax", bandwidth.softmax), ("norm", bandwidth.layer_norm))
       for place, axis in (("last", 3), ("channel", 1))},
    **{f"{name}-{where}": functools.partial(conversion.conversion, to, 1000)
       for name, to in (("widen", "float32"), ("narrow", "float16")) for where in ("cache", "memory")},
    "compile": functools.partial(compiling.gpt2, 1, 32),
    **{f"gpt2-prefill-{length}": functools.partial(gpt2.prefill, min(length, 256), SMALL_GPT2)
       for length in (32, 128, 512, 1024)},
    "gpt2-decode": functools.partial(gpt2.decode, SMALL_GPT2),
    "gpt2-decode-int8": functools.partial(gpt2.decode_int8, SMALL_GPT2),
    "train-step": lambda: training.step(training.small()),
    "train-adamw": lambda: training.adamw(training.small()),
}  # fmt: skip
SLOW = {  # contenders that take seconds to convert or to compile, of cases that have others
    "resnet": ("anex fp32", "last"), "mobilenet": ("anex fp32", "last"), "encoder": ("anex fp32", "last"),
    "train-step": ("torch compile",),
}  # fmt: skip
SAME = (  # as others are, when small
    "gpt2-prefill-128", "gpt2-prefill-512", "gpt2-prefill-1024", "minilm-128", "ffn-256", "attention-64", "product-256",
    "widen-memory", "narrow-memory",
)  # fmt: skip


@pytest.fixture(autouse=True)
def _threads():
    import torch

    import anex

    before = anex.get_num_threads(), torch.get_num_threads(), torch.backends.quantized.engine
    yield
    anex.set_num_threads(before[0])
    torch.set_num_threads(before[1])
    torch.backends.quantized.engine = before[2]


def play(case, tmp_path, *, rounds=1, names=("anex", "numpy", "torch", "coremltools")):
    return measure.inline("made up", case, threads=1, rounds=rounds, turn=1e-3, folder=tmp_path, runtimes=names)


def test_each_case_of_the_catalogue_has_a_small_one_here():
    assert set(SMALL) | {"call"} == set(CASES)


@pytest.mark.parametrize("name", [name for name in SMALL if name not in SAME])
def test_a_case_gives_the_answers_of_its_peers_and_takes_some_time(name, tmp_path):
    case = SMALL[name]()
    if name in SLOW:
        kept = {n: made for n, made in case.contenders.items() if not any(slow in n for slow in SLOW[name])}
        case = dataclasses.replace(case, contenders=kept)
    result = play(case, tmp_path)
    wanted = {each for each in case.contenders if each.split()[0] in ("anex", "numpy", "torch", "coremltools")}
    assert set(result.seconds) == wanted, result.left_out
    assert set(result.left_out) == set(case.contenders) - wanted
    assert all(time > 0 for times in result.seconds.values() for time in times)
    for each in result.comparisons():
        assert each.ratio or each.why.startswith("without")
    assert set(result.rates) == {limit.kind for limit in case.limits if machine.rate(limit.kind, 1, 1e-3)}


@pytest.mark.parametrize("name", CASES)
def test_the_goals_and_limits_of_a_case_name_its_contenders(name):
    case = CASES[name]()
    limits = {f"limit {limit.kind}" for limit in case.limits}
    for goal in case.goals:
        if name.startswith("gpt2"):  # of peers that have no such row, some stay in the goal: they would be the best
            continue
        assert {goal.ours, *goal.peers} <= {*case.contenders, *limits}
        assert goal.ratio > 0
    for limit in case.limits:
        assert limit.kind in machine.KINDS
        assert limit.amount > 0
        assert any(limit.binds(each) for each in case.contenders)
    assert {each.split()[0] for each in case.contenders} <= set(runtimes.RUNTIMES)
    assert next(iter(case.contenders)).split()[0] in ("anex", "double")


def test_processes_take_turns_and_who_is_not_installed_is_named(tmp_path):
    found = runtimes.find(tmp_path / "nobody")
    case = tiny.add()
    kept = {name: case.contenders[name] for name in ("anex fp16", "numpy fp32", "onnxruntime fp32")}
    found.versions.pop("onnxruntime", None)
    found.absent["onnxruntime"] = "not on this machine"
    result = measure.in_processes("tiny-add", dataclasses.replace(case, contenders=kept), threads=1, rounds=2,
                                  turn=1e-3, folder=tmp_path / "files", found=found)  # fmt: skip
    assert result.left_out == {"onnxruntime fp32": "not on this machine"}
    assert {name: len(times) for name, times in result.seconds.items()} == {"anex fp16": 2, "numpy fp32": 2}
    assert not result.unchecked
    assert list((tmp_path / "files").glob("*.onnx")) == []  # nobody there would read it


def test_a_call_to_the_framework_is_measured_on_the_stand_in(tmp_path):
    case = CASES["call"]()
    kept = dict(list(case.contenders.items())[:2])
    result = measure.in_processes("call", dataclasses.replace(case, contenders=kept), threads=1, rounds=1, turn=1e-3,
                                  folder=tmp_path, found=runtimes.find(tmp_path / "nobody"))  # fmt: skip
    assert not result.left_out
    assert result.device == "double"
    assert result.more("double program(x, out=y)").median > 0
    assert result.comparisons() == []  # no ratios of what no device did


def test_a_contender_that_cannot_be_built_says_why(tmp_path):
    process = Process("tiny-add", "numpy fp64", 1, tmp_path, runtimes.find(tmp_path / "nobody"))
    try:
        with pytest.raises(Refused, match="KeyError: 'numpy fp64'"):
            process.ready()
    finally:
        process.close()


def test_the_process_of_a_contender_stands_still_between_its_turns(tmp_path):
    process = Process("tiny-add", "numpy fp32", 1, tmp_path, runtimes.find(tmp_path / "nobody"))
    try:
        process.ready()
        for _ in range(2):
            os.waitid(os.P_PID, process._process.pid, os.WSTOPPED | os.WNOWAIT)
            assert process.turn(1e-3)["seconds"] > 0
    finally:
        process.close()


def constant(value, *, wrong=None):
    """A contender whose answer is ``value`` five times."""

    def contender(setting: Setting) -> Work:
        if isinstance(value, Exception):
            raise value
        return Work(lambda: None, lambda: np.full(5, value))

    return contender


def test_who_answers_otherwise_is_not_timed(tmp_path):
    made = {"anex a": constant(2.0), "numpy a": constant(2.01), "numpy b": constant(2.1), "numpy c": constant(np.nan)}
    result = play(Case("made up", made, tolerance=0.02), tmp_path)
    assert set(result.seconds) == {"anex a", "numpy a"}
    assert "differs from ours by 0.1, 5.0%" in result.left_out["numpy b"]
    assert "differs" in result.left_out["numpy c"]


def test_an_answer_of_another_shape_is_wrong_though_it_would_broadcast(tmp_path):
    made = {"anex a": constant(2.0), "numpy a": lambda setting: Work(lambda: None, lambda: np.full((1, 5), 2.0))}
    result = play(Case("made up", made), tmp_path)
    assert result.left_out["numpy a"] == "its answer has the shape (1, 5), ours (5,)"


def test_a_case_without_ours_has_times_but_no_ratios():
    result = measure.Result("made up", "", 1, 0.1, first="anex a", seconds={"numpy a": [1.0], "torch a": [2.0]})
    assert result.ours is None
    assert result.comparisons() == []


def test_numbers_are_the_same_in_every_process_and_float16_holds_them():
    values = normal((3, 4), seed=2)
    np.testing.assert_array_equal(values, normal((3, 4), seed=2))
    np.testing.assert_array_equal(values, values.astype(np.float16))
    assert values.dtype == np.float32


def test_a_turn_is_the_median_of_its_calls_and_counts_repeats(monkeypatch):
    """With a clock of its own: calls take 3, 1, 2, ... seconds."""
    now, lengths = [0.0], iter([5.0, 3.0, 1.0, 2.0, 9.0])

    def call():
        now[0] += next(lengths)

    monkeypatch.setattr("benchmarks.turn.time.perf_counter", lambda: now[0])
    assert timed(Work(call, None, repeats=4), 6.0) == 2.0 / 4


def test_limits_of_this_machine_are_measured():
    assert machine.rate("fma", 1, 1e-3) > 1e8
    with pytest.raises(RuntimeError, match="'nothing' cannot be measured"):
        machine.rate("nothing", 1, 1e-3)
    found = machine.state(1e-3)
    assert set(found) == ({"signal", "scaling"} if machine.processors() > 1 else set())
    assert [machine.state_in_words(x) for x in (1.9, 1.0, 1.45)] == [
        "two cores", "hyperthreads of one core", "disturbed",
    ]  # fmt: skip


def test_names_and_their_beginnings_choose_cases():
    assert matching(["ffn"]) == ["ffn-64", "ffn-256"]
    assert matching(["gpt2-decode", "tiny-add"]) == ["tiny-add", "gpt2-decode"]
    assert matching([]) == list(CASES)
    with pytest.raises(KeyError):
        matching(["ff"])


def test_the_command_lists_its_cases_and_refuses_others(monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["benchmarks", "--list"])
    main()
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines] == list(CASES)
    monkeypatch.setattr(sys, "argv", ["benchmarks", "nothing"])
    with pytest.raises(SystemExit):
        main()
    assert "no case is called 'nothing'" in capsys.readouterr().err


def test_a_limit_binds_those_whose_names_begin_so():
    limit = Limit("cache", 1, ("anex fp16", "torch fp16"))
    assert [limit.binds(name) for name in ("anex fp16", "torch fp16", "anex fp32")] == [True, True, False]
    assert Limit("fma", 1).binds("anybody")
    assert Goal("a", "b", 1).peers == ("b",)
