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
from anex.ops import OPS, Measured
from anex.placement.catalogue import PROGRAM
from anex.placement.measured import preferred
from anex.probe import asking
from anex.probe.record import PROBES

SHAPE = (1, 2, 64, 64)
SETTLED = [rule for op in OPS.values() for rule in op.ane if rule.probe] + [rule for rule in PROGRAM if rule.probe]


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


def test_each_rule_that_a_probe_can_settle_names_one_that_is_there():
    assert {rule.id for rule in SETTLED} == {"sdpa-mask", "weights-baked", "quantised-per-tensor"}
    assert {rule.probe for rule in SETTLED} <= {*PROBES}
    assert all(not {*rule.holds} & {*rule.lifted} for rule in SETTLED)


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
        known = {"sdpa-mask": {"key": key, "verdict": "v"}}
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
