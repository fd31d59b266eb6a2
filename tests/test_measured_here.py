"""``explain`` puts what probes found on this machine before what others published, and says so."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from needs_ane import needs_ane

import anex
from anex import answers, mb
from anex.bench.timing import Effort
from anex.devices.info import device_info
from anex.ops import OPS, Measured, family
from anex.ops.rules import GENERIC
from anex.placement import measured
from anex.placement.catalogue import CATALOGUE, PROGRAM, entry, lines
from anex.placement.measured import preferred
from anex.placement.settling import SETTLEMENTS, settled
from anex.probe import asking
from anex.probe.record import PROBES
from anex.selftest.probes import PROBES as ASKED

SHAPE = (1, 2, 64, 64)
RULES = {rule.id for op in OPS.values() for rule in op.ane} | {rule.id for rule in (*PROGRAM, *GENERIC)}


@pytest.fixture(autouse=True)
def home(tmp_path, monkeypatch):
    monkeypatch.setenv("ANEX_HOME", str(tmp_path))


@pytest.fixture(scope="module")
def attention():
    @anex.graph(q=SHAPE, k=SHAPE, v=SHAPE)
    def program(q, k, v):
        mask = np.zeros((64, 64), np.float16)
        return mb.scaled_dot_product_attention(query=q, key=k, value=v, attn_mask=mask, name="y")

    return program


def here(generation=0):
    """The chip of this machine, or one of a later generation."""
    return f"h{int(device_info().architecture[1:3]) + generation}g"


def finding(program, chip):
    (found,) = (each for each in anex.explain(program, chip=chip)["y"].findings if each.rule.id == "sdpa-mask")
    return found


def test_each_settlement_joins_a_rule_and_a_question_that_are_there():
    assert {each.rule for each in SETTLEMENTS} <= RULES
    assert {each.question for each in SETTLEMENTS} <= {*PROBES} | {f"selftest/{name}" for name in ASKED}
    for rule in {each.rule for each in SETTLEMENTS}:  # at most one for each family
        families = [family for each in SETTLEMENTS if each.rule == rule for family in each.families]
        assert len(families) == len({*families}), rule


def test_each_named_constraint_that_a_machine_can_be_asked_about_is_settled_by_an_answer():
    settled_ = {each.rule for each in SETTLEMENTS}
    unsettled = {entry.name for entry in CATALOGUE if not settled_ & {*entry.rules}}
    # shapes are fixed by the form of the language, and nobody has a question about gather alone
    assert unsettled == {"R-STATIC", "R-GATHER"}


@pytest.mark.parametrize(("rule", "family", "key", "trials", "holds"), [
    ("compile-limit", "h16", "119", {}, True), ("compile-limit", "h16", "none", {}, False),
    ("compile-limit", "h16", "refused", {}, None),
    ("chaining", "h17", "code 15", {}, True), ("chaining", "h17", "yes", {}, False),
    ("surface-floor", "h16", "rows-of-64, floor larger", {}, True),
    ("surface-floor", "h16", "rows-of-64, floor none", {}, False),
    ("row-stride", "h16", "padded", {}, True), ("row-stride", "h16", "otherwise", {}, None),
    ("axis-extent", "h13", "depends", {"width 16385": "refused at compile", "width 65537": "right"}, True),
    ("axis-extent", "h16", "depends", {"width 16385": "refused at compile", "width 65537": "right"}, False),
    ("kernel-width", "h13", "depends", {"15 wide": "refused at compile", "16 wide": "refused at compile"}, True),
    ("kernel-width", "h16", "depends", {"15 wide": "right", "16 wide": "right"}, False),
    ("conv-bias", "h16", "depends", {"without": "right", "with bias": "refused at load"}, True),
    ("matmul-k32", "h13", "depends", {"K=32": "right", "K=33": "wrong"}, True),
    ("matmul-k32", "h13", "depends", {"K=32": "right", "K=33": "refused at compile"}, None),
    ("sum-range", "h14", "narrow", {}, True), ("sum-range", "h14", "wide", {}, False),
    ("slice-range", "h13", "4096", {}, True), ("matmul-range", "h14", "40000", {}, None),
    ("subnormal", "h16", "depends", {}, None),
])  # fmt: skip
def test_an_answer_says_that_its_rule_holds_or_not_or_leaves_it_open(rule, family, key, trials, holds):
    question = next(each.question for each in SETTLEMENTS if each.rule == rule)
    answer = {"key": key, "verdict": "Tried.", "data": {name: {"status": status} for name, status in trials.items()}}
    found = settled({question: answer}, family, "ane").get(rule)
    assert (None if found is None else found.holds) == holds


@pytest.mark.parametrize(
    "broken", [{}, {"key": None}, {"key": ["right"]}, {"data": {"width 65537": "right"}}, {"data": {}}]
)
def test_answers_of_another_form_leave_every_rule_open(broken):
    known = {each.question: broken for each in SETTLEMENTS}
    assert settled(known, "h16", "ane") == {}


@needs_ane
def test_asking_about_the_rules_settles_those_that_wait_for_the_self_test_and_tells_each():
    answer = asking.answer(PROBES["rules"], "ane", Effort(0, 1, 0.0))
    assert answer["status"] == "PASS", answer["verdict"]
    answers.save("ane", answers.by_name([answer]))
    known = measured.here()
    family_ = family(device_info().architecture)
    waiting = {each.rule for each in SETTLEMENTS if each.question.startswith("selftest/") and family_ in each.families}
    assert {*known} == waiting == {*answer["data"]}
    assert {each.device for each in known.values()} == {"double"}
    for name, rule in (("R-COMPILE-119", "compile-limit"), ("R-CHAINING", "chaining"), ("R-DIM-16K", "axis-extent")):
        assert any(known[rule].said in line for line in lines(entry(name))), name


@needs_ane
@pytest.mark.parametrize(("key", "holds"), [("heeded", False), ("ignored", True), ("some", True)])
def test_an_answer_of_this_machine_settles_the_rule_for_its_own_chip(attention, key, holds):
    assert finding(attention, here()).here is None
    answers.save("ane", {"sdpa-mask": {"key": key, "verdict": "Masks were tried."}})
    found = finding(attention, here())
    assert found.here == Measured(holds, "Masks were tried.", "double")
    assert f"measured here (double): it {'holds' if holds else 'does not hold'}: Masks were tried; published: high" \
        in found.text  # fmt: skip
    assert replace(found, cured=False).warns == holds


@needs_ane
def test_other_chips_other_paths_and_answers_that_say_neither_leave_it_to_what_was_published(attention):
    answers.save("ane", {"sdpa-mask": {"key": "heeded", "verdict": "v"}})
    other = here(-1) if device_info().architecture[1:3] > "13" else here(1)
    assert finding(attention, other).here is None
    answers.save("ane", {"sdpa-mask": {"key": "failed", "verdict": "v"}})
    assert finding(attention, here()).here is None


@needs_ane
def test_a_probe_that_was_asked_is_told_in_the_explanation(attention):
    answer = asking.answer(PROBES["weight-reload"], "ane", Effort(0, 1, 0.0))
    answers.save("ane", {"weight-reload": answer})
    (note,) = (each for each in anex.explain(attention, chip=here()).notes if each.rule.id == "weights-baked")
    assert note.here is not None
    assert note.here.holds == (answer["key"] == "baked")
    assert "measured here (double)" in str(anex.explain(attention, chip=here()))


def test_a_contested_refusal_that_was_measured_here_refuses_and_a_sure_one_that_was_not_does_not(attention):
    (found,) = (each for each in anex.explain(attention, chip="M4")["y"].findings if each.rule.id == "sdpa-mask")
    rule = replace(found.rule, severity="E", confidence="low")
    contested = replace(found, rule=rule, cured=False)
    sure = replace(contested, rule=replace(rule, confidence="high"))
    assert [each.refuses for each in (contested, sure)] == [False, True]
    for key, refuses in (("ignored", True), ("heeded", False)):
        known = settled({"sdpa-mask": {"key": key, "verdict": "v"}}, "h16", "ane")
        assert [preferred(each, known).refuses for each in (contested, sure)] == [refuses, refuses]


def test_a_probe_asks_for_attention_as_it_is_written(monkeypatch):
    """With the pass that rewrites it, every machine would seem to heed masks."""
    from anex.probe import session as module

    seen = []
    compile_ = module.compile

    def compiled(program, **options):
        seen.append((len(program.find_ops(op_type="scaled_dot_product_attention")), options.get("passes")))
        return compile_(program, device="cpu")

    monkeypatch.setattr(module, "compile", compiled)
    asking.answer(PROBES["sdpa-mask"], "ane", Effort(0, 1, 0.0))
    assert seen == [(1, {"sdpa_decompose": False})] * 5
