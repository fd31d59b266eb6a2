"""Verdicts on ops by name, against the published table of what the engine takes."""

import csv
from pathlib import Path

import pytest

import anex
from anex.ops import OPS, rules_of, verdict
from anex.ops.foreign import FOREIGN, FORMS
from anex.ops.rule import FAMILIES
from anex.selftest.cases import CASES

NAME = "shared/reference/ane_op_support.csv"  # beside the repository, if at all
TABLE = next((found for parent in Path(__file__).parents if (found := parent / NAME).exists()), Path(NAME))
COLUMNS = dict(zip(FAMILIES, ("m1", "m2", "m3", "m4_m5", "m4_m5"), strict=True))
# A sample of that table: name, what it says, and the families whose cell is "walled".
SAMPLE = [
    ("relu", "yes", ()),
    ("conv", "conditional", ()),
    ("lstm", "no", FAMILIES),
    ("topk", "conditional", ("h13",)),
    ("concat", "conditional", ()),
    ("cumsum", "conditional", ()),
    ("acosh", "no", FAMILIES),
    ("pe_elementwise", "yes", ()),
    ("write_state", "conditional", ()),
    ("constexpr_cast", "yes", FAMILIES),
    ("argsort", "no", ("h13",)),
]


def recorded(accepted, walled):
    return "no" if accepted == "no" or walled else accepted


def agrees(name, chip, says):
    """The same, or a verdict that names the sources that contradict each other."""
    found = anex.explain_op(name, chip)
    named = sum(len(rule.source) for rule in found.rules)
    assert found.taken == says or (found.taken == "contested" and named >= 2), f"{says} recorded; {found}"


@pytest.mark.parametrize(("name", "accepted", "walled"), SAMPLE, ids=[name for name, *_ in SAMPLE])
def test_a_sample_of_the_table_agrees_or_names_the_conflict(name, accepted, walled):
    for chip in FAMILIES:
        agrees(name, chip, recorded(accepted, chip in walled))


@pytest.mark.skipif(not TABLE.exists(), reason="the table of op support is not beside this checkout")
def test_every_row_of_the_published_table_agrees_on_every_family_or_names_the_conflict():
    rows = list(csv.DictReader(TABLE.open()))
    assert len(rows) == 195
    for row in rows:
        for chip, column in COLUMNS.items():
            agrees(row["mil_op"], chip, recorded(row["accepted"], row[column] == "walled"))


@pytest.mark.parametrize("name", sorted({*CASES} & {*OPS}))
def test_a_program_of_one_op_is_placed_as_the_verdict_on_the_op_has_it(name):
    """By `e5rt`, whose compiler gets the program as it is: "no" leaves the engine, and nothing else does for that."""
    case = CASES[name][0]
    program = case.build()
    for chip in ("M1", "M5"):
        taken = anex.explain_op(name, chip).taken
        found = [op for op in anex.explain(program, chip=chip, path="e5rt").ops if op.op == name]
        refused = {finding.rule.id for op in found for finding in op.findings if finding.refuses}
        if taken == "no" and found:
            assert refused & {"unsupported-op", "too-old"}, (chip, refused)
        else:
            assert not refused & {"unsupported-op"}, (chip, refused)


def test_an_op_nobody_ran_is_refused_and_says_so():
    found = verdict("knit", "h16g")
    assert found.taken == "no"
    assert "anyone ran" in str(found)


def test_a_verdict_tells_chip_statement_sources_and_way_out():
    text = str(verdict("lstm", "h13g"))
    for part in ("lstm on h13 (M1): no", "recurrent", "SWP", "unroll"):
        assert part in text


def test_names_of_other_lists_are_no_ops_of_the_registry():
    assert not {*FOREIGN, *FORMS} & {*OPS}
    assert {*FORMS.values()} <= {*OPS}
    assert rules_of("gelu_exact") == OPS["gelu"].ane


def test_an_unknown_chip_is_refused():
    with pytest.raises(anex.ArgumentError, match="h13"):
        verdict("relu", "h9")
