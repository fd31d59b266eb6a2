"""What is generated is up to date, and names every op that coremltools has."""

import runpy
from pathlib import Path

import coremltools  # noqa: F401
from coremltools.converters.mil.mil.ops.registry import SSAOpRegistry

from anex.ops import OPS

ROOT = Path(__file__).parent.parent
TABLE = runpy.run_path(str(ROOT / "tools/ops_table.py"))

COSTS = runpy.run_path(str(ROOT / "tools/cost_table.py"))


def test_the_table_of_ops_is_what_its_tool_writes():
    assert (ROOT / "docs/ops.md").read_text() == TABLE["text"](), "run `make docs`"


def test_the_tables_of_costs_and_rules_are_what_their_tool_writes():
    assert (ROOT / "docs/cost.md").read_text() == COSTS["text"](), "run `make docs`"
    assert (ROOT / "docs/rules.md").read_text() == COSTS["rules"](), "run `make docs`"


def test_the_table_has_every_op_of_coremltools():
    assert set(SSAOpRegistry.core_ops) == {name for name in OPS if name in SSAOpRegistry.core_ops} | {
        *TABLE["NOWHERE"],
        "const",
    }
