"""The Neural Engine's rules: each op's acceptance against the published table, and each limit at its edge."""

import csv
import re
import sys
import warnings
from pathlib import Path

import numpy as np
import pytest
from passes_case import op_types, run, same
from rules_case import CHIPS, ids, op_of, refusals

import anex
from anex import mb
from anex.ops import CURES, OPS, ane_findings, program_findings, warn_contested
from anex.ops import rule as rule_module
from anex.ops.findings import UNKNOWN
from anex.ops.rule import FAMILIES, Finding, Rule, chips, family
from anex.ops.rules import GENERIC
from anex.passes import prepare

sys.path.insert(0, str(Path(__file__).parent.parent / "examples" / "minilm"))

TABLE = next(
    (found for parent in Path(__file__).parents if (found := parent / "shared/reference/ane_op_support.csv").exists()),
    Path("ane_op_support.csv"),
)

# What the registry refuses as things stand: no pass writes these in other ops.
REFUSED = {
    "cond", "conv_quantized", "gru", "lstm", "non_zero", "random_bernoulli", "random_categorical", "random_normal",
    "reverse_sequence", "rnn", "scatter", "scatter_along_axis", "scatter_nd", "shape", "sliding_windows", "while_loop",
}  # fmt: skip
# Refused too, were it not for anex.passes.
REWRITTEN = {
    "acos", "asin", "atanh", "band_part", "cosh", "logical_and", "logical_or", "logical_xor", "mod", "one_hot",
    "reduce_prod", "sinh", "tan",
}  # fmt: skip
CONTESTED = {
    "argsort", "coreml_update_state", "crop_resize", "cumsum", "gather", "gather_along_axis", "gather_nd", "identity",
    "random_uniform", "read_state", "reduce_argmax", "reduce_argmin", "reshape_like", "slice_update",
}  # fmt: skip
# Rows whose cells say more than their first column.
ROWS_READ_OTHERWISE = {
    "cond": "no", "while_loop": "no",  # not walled by the catalogue, but control flow is refused by two more sources
    "reduce_prod": "no",  # conditional, and walled everywhere
}  # fmt: skip
OTHER_NAMES = {"coreml_update_state": "write_state"}


def rules():
    yield from GENERIC
    yield UNKNOWN
    for op in OPS.values():
        yield from op.ane


# ---- the data -----------------------------------------------------------------------------------


def test_every_op_says_first_whether_it_is_taken():
    for name, op in OPS.items():
        assert op.ane, f"{name} has no acceptance"
        assert op.ane[0].id in ("acceptance", "unsupported-op", "contested-op"), name
        assert all(rule.id not in ("acceptance", "unsupported-op") for rule in op.ane[1:]), name


def test_every_rule_has_a_source_that_is_a_known_tag():
    known = set(re.findall(r"\b[A-Z][A-Z0-9]{1,2}\b", rule_module.__doc__))
    for rule in rules():
        for source in rule.source:
            tags = re.findall(r"\b[A-Z][A-Z0-9]{1,2}\b", source.split(":")[0])
            assert tags or source in ("no record",) or source.startswith("Core ML"), (rule.id, source)
            assert {*tags} <= known, (rule.id, source)


def test_only_well_founded_errors_refuse():
    for rule in rules():
        finding = Finding(rule, "found", "op", "name")
        assert finding.refuses == (rule.severity == "E" and rule.confidence == "high")
        if rule.confidence == "low":
            assert not finding.refuses
            assert len(rule.source) > 1 or rule.severity == "I", f"{rule.id}: contested by whom?"


def test_the_ops_refused_by_name():
    always = {name for name, op in OPS.items() if op.ane[0].id == "unsupported-op"}
    contested = {name for name, op in OPS.items() if any(rule.id == "contested-op" for rule in op.ane)}
    print("refused:", ", ".join(sorted(always)))
    print("contested:", ", ".join(sorted(contested)))
    assert always == REFUSED | REWRITTEN
    assert contested == CONTESTED
    assert {name for name in always if OPS[name].ane[0].cure} == REWRITTEN


@pytest.mark.skipif(not TABLE.exists(), reason="the table of op support is not beside this checkout")
def test_acceptance_is_that_of_the_published_table():
    rows = {row["mil_op"]: row for row in csv.DictReader(TABLE.open())}
    for name, op in OPS.items():
        row = rows.get(OTHER_NAMES.get(name, name))
        assert row is not None or name.startswith("gelu"), name
        families = {row[column] for column in ("m1", "m2", "m3", "m4_m5")}
        accepted = ROWS_READ_OTHERWISE.get(name, row["accepted"])
        first, has_native = op.ane[0], "native" in families
        if accepted == "no" and (not has_native or name in ROWS_READ_OTHERWISE):
            assert first.id == "unsupported-op", name
        elif accepted == "no":
            assert first.id == "contested-op", name
        elif row["sweep_m5pro"] in ("not-implemented-on-ANE", "compile-walled") and name != "cast":
            assert name in CONTESTED, name
        else:
            assert first.id == "acceptance", name
        if accepted == "yes" and row["sweep_m5pro"] == "reachable+correct":
            assert f"{float(row['sweep_relerr']):g}" in first.statement, name
        walled = [each for each, column in zip(FAMILIES, ("m1", "m2", "m3", "m4_m5", "m4_m5"), strict=True)
                  if row[column] == "walled"]  # fmt: skip
        if accepted == "conditional" and walled and first.id == "acceptance":
            assert {*walled} <= {each for rule in op.ane if rule.id == "too-old" for each in rule.chips}, name


# ---- chips and texts ----------------------------------------------------------------------------


@pytest.mark.parametrize(("chip", "found"), [("h13g", "h13"), ("H16G", "h16"), ("h17s", "h17"), ("h18p", "h17")])
def test_a_chip_belongs_to_a_family(chip, found):
    assert family(chip) == found


@pytest.mark.parametrize("chip", ["h12", "M1", "", "h1"])
def test_what_is_no_chip_is_refused(chip):
    with pytest.raises(anex.ArgumentError, match="h13"):
        family(chip)


def test_a_rule_needs_a_source_and_a_way_out():
    with pytest.raises(ValueError, match="rule x"):
        Rule("x", "no", "E", "high", lambda op, chip: None, (), "fix")
    with pytest.raises(ValueError, match="rule x"):
        Rule("x", "no", "E", "high", lambda op, chip: None, ("FRG",), "fix", chips=("h12",))


def test_a_finding_tells_rule_value_limit_chips_source_and_way_out():
    op = op_of("conv", x=(1, 3, 4, 20), consts={"weight": np.ones((2, 3, 1, 14), np.float16)})
    (finding,) = [f for f in ane_findings(op, "h13g") if f.refuses]
    assert str(finding) == (
        "conv 'out': [kernel-width] kernel width 14; the limit is 13: a kernel is at most 13 wide on M1 and 15 on "
        "later chips; its height is free (does not compile or evaluate on every chip, macOS 15 to 26; high confidence; "
        "FRG: measured on M1, M4 and M5); transpose height and width, or split the kernel"
    )
    assert chips(("h13", "h16")) == "h13 (M1), h16 (M4)"


# ---- generic rules ------------------------------------------------------------------------------


def test_a_plain_fp16_op_has_nothing_against_it():
    for chip in CHIPS:
        assert not ane_findings(op_of("relu", x=(1, 8, 1, 32)), chip)


def test_constants_and_what_is_computed_from_them_are_not_looked_at():
    @anex.graph(x=(1, 4))
    def program(x):
        return mb.add(x=x, y=mb.cast(x=mb.add(x=np.int32([1]), y=np.int32([2])), dtype="fp16"), name="y")

    for op in program.functions["main"].operations:
        assert not refusals(op)


def test_fp32_is_cured_by_a_pass_and_refused_without_it():
    op = op_of("add", x=anex.spec((1, 4), "float32"), y=anex.spec((1, 4), "float32"))
    assert not refusals(op)
    assert refusals(op, cures=()) == {"fp16-only"}
    (finding,) = ane_findings(op, "h16g")
    assert finding.cured
    assert "the pass fp16_compute rewrites it" in finding.text


def test_a_cast_at_the_edge_is_welcome():
    assert not ids(op_of("cast", x=anex.spec((1, 4), "float32"), consts={"dtype": "fp16"}))
    assert ids(op_of("cast", x=anex.spec((1, 4), "int32"), consts={"dtype": "fp16"})) == {"integer-cast"}


@pytest.mark.parametrize("op", ["add", "mul", "maximum", "equal", "floor_div"])
def test_integer_arithmetic_is_refused(op):
    kind = anex.spec((1, 4), "int32")
    assert refusals(op_of(op, x=kind, y=kind)) == {"integer-compute"}


def test_indices_of_a_lookup_and_masks_of_a_choice_are_not():
    lookup = op_of("gather", x=(9, 4), indices=anex.spec((5,), "int32"), consts={"axis": 0})
    assert ids(lookup) == {"contested-op"}
    assert not ids(op_of("select", cond=anex.spec((1, 4), "bool"), a=(1, 4), b=(1, 4)))
    assert not ids(op_of("greater", x=(1, 4), y=(1, 4)))


def test_moving_integers_is_contested():
    moved = op_of("reshape", x=anex.spec((2, 4), "int32"), consts={"shape": (4, 2)})
    assert ids(moved) == {"integer-data"}
    assert not refusals(moved)


@pytest.mark.parametrize(("chip", "limit"), [("h13g", 16384), ("h15g", 16384), ("h16g", 65536), ("h17s", 65536)])
def test_spatial_axes_have_an_extent(chip, limit):
    for shape in [(1, 1, 1, limit), (1, 1, limit, 1), (1, 1, limit)]:
        longer = tuple(n + 1 if n == limit else n for n in shape)
        assert not refusals(op_of("relu", x=shape), chip)
        assert refusals(op_of("relu", x=longer), chip) == {"axis-extent"}


def test_channels_have_an_extent_of_their_own():
    assert not refusals(op_of("relu", x=(1, 65536, 1, 1)), "h13g")
    assert refusals(op_of("relu", x=(1, 65537, 1, 1)), "h17s") == {"channel-extent"}


def test_a_long_flat_tensor_is_doubtful():
    assert ids(op_of("relu", x=(1, 16385)), "h13g") == {"flat-extent"}


def test_dynamic_shapes_are_refused():
    from coremltools.converters.mil.mil import get_new_symbol

    @mb.program(input_specs=[mb.TensorSpec(shape=(1, get_new_symbol()))])
    def program(x):
        return mb.relu(x=x)

    (op,) = program.functions["main"].operations
    assert "static-shape" in refusals(op)


# ---- warnings -----------------------------------------------------------------------------------


def test_contested_rules_warn_once_per_rule_and_op_type():
    @anex.graph(x=(1, 4, 1, 8))
    def program(x):
        y = mb.concat(values=[x, x], axis=1)
        z = mb.concat(values=[y, y], axis=1)
        return mb.stack(values=[z, z], axis=0, name="out")

    findings = [f for op in program.functions["main"].operations for f in ane_findings(op, "h16g")]
    with pytest.warns(anex.AneWarning) as told:
        warn_contested(findings)
    texts = [str(each.message) for each in told]
    assert len(texts) == 2
    assert "[concat]" in texts[0]
    assert "(and 1 more)" in texts[0]
    assert "ORI" in texts[0]
    assert "MDX" in texts[0]
    assert told[0].filename == __file__


def test_refusals_and_cured_findings_do_not_warn():
    op = op_of("add", x=anex.spec((1, 4), "float32"), y=anex.spec((1, 4), "float32"))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        warn_contested(ane_findings(op, "h16g"))
        warn_contested(ane_findings(op, "h16g", cures=()))


def test_findings_of_a_program_are_those_of_its_blocks_too():
    @anex.graph(x=(1,), flag=anex.spec((1,), "bool"))
    def program(x, flag):
        chosen = mb.squeeze(x=flag, axes=[0])
        return mb.cond(pred=chosen, _true_fn=lambda: mb.acos(x=x), _false_fn=lambda: mb.relu(x=x), name="y")

    refused = [f.op_type for f in program_findings(program, "h16g", cures=()) if f.refuses]
    assert refused == ["cond", "acos"]


# ---- a whole model ------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def encoder():
    from encoder import Encoder

    return Encoder()


def test_minilm_is_not_refused_on_any_chip_before_or_after_preparation(encoder):
    program = encoder.build(64)
    for chip in CHIPS:
        prepared = prepare(program, chip=chip).program
        for each, cures in ((program, CURES), (prepared, ())):
            found = program_findings(each, chip, cures=cures)
            assert not [str(f) for f in found if f.refuses]
            assert not [str(f) for f in found if f.warns]


def test_prepared_minilm_gives_the_same_embeddings(encoder, rng):
    program = encoder.build(32)
    x = rng.normal(size=(1, 384, 1, 32)).astype(np.float16)
    hidden = np.where(np.arange(32) < 21, 0, -3e4).astype(np.float16).reshape(1, 1, 1, 32)
    mean = np.where(np.arange(32) < 21, 1 / 21, 0).astype(np.float16).reshape(1, 1, 1, 32)
    prepared = same(program, rng, arguments=[x, hidden, mean], atol=2e-3)
    assert list(prepared.inputs) == ["x", "mask", "mean"]
    assert not {"gelu"} & {*op_types(prepared.program)}
    before, after = (run(each, [x, hidden, mean])[0][0] for each in (program, prepared.program))
    assert before @ after / np.linalg.norm(before) / np.linalg.norm(after) > 0.9999
