"""What the engine draws at its peak (seed 001: 0 mW idle, 2.8 W and 6.6 TFLOPS/W on M4)."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from ...power import Reading, why_none
from ..columns import CONFIG, MS, TFLOPS
from ..record import Benchmark, Column, Config, Row, register
from . import peak


def configs(*, batch: int = 1, sp: str = "64") -> Iterator[Config]:
    """The deepest chain of each width."""
    chosen = {config.facts["channels"]: config for config in reversed(list(peak.configs(batch=batch, sp=sp)))}
    yield from reversed(chosen.values())


def read(row: Row) -> Reading:
    """KeyError where nothing was read."""
    found: Reading | None = row.found.get("power")
    if found is None:
        raise KeyError("power")
    return found


def said(rows: Sequence[Row]) -> list[str]:
    if any(row.found.get("power") for row in rows):
        return [f"Power by {', '.join({row.found['power'].by for row in rows if row.found.get('power')})}"]
    why = (
        why_none() or "the sampler told nothing, or that a busy engine draws nothing, or the run was on another device"
    )
    return [f"Power: not available ({why})"]


register(
    Benchmark(
        "power", "Power of the engine at its peak", "power efficiency (seed 001)", ("seed001", "peak"),
        (CONFIG, MS, Column("mw", "mW", "{:.0f}", lambda row: 1e3 * read(row).watts, "mW"), TFLOPS,
         Column("tflops_per_w", "TFLOPS/W", "{:.2f}", lambda row: read(row).tflops_per_watt(row["gflop"]), "TFLOPS/W"),
         Column("mj_per_call", "mJ/call", "{:.2f}", lambda row: 1e3 * read(row).joules_per_call, "mJ")),
        configs, notes=said, powered=True, quick={"sp": "64x1"},
    )
)  # fmt: skip
