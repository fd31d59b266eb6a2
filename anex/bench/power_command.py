"""The command ``anex power``: what the Neural Engine draws, here or in text that was recorded elsewhere."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import click

from .. import files
from ..commands import one_line
from ..power import Sample, joules
from .options import duration

PARTS = {"ane": "ANE", "cpu": "CPU", "gpu": "GPU"}
MOST = 64 << 20  # bytes of recorded text


@click.command()
@click.option("--read", "recorded", type=click.Path(path_type=Path, allow_dash=True), metavar="FILE",
              help="Recorded text of powermetrics in place of this machine; - for standard input.")  # fmt: skip
@click.option("--seconds", type=float, default=2.0, show_default=True, callback=duration, help="How long to look.")
@click.option("--gflop", type=float, callback=duration, help="Of what ran meanwhile, a call: also TFLOPS and TFLOPS/W.")
@click.option("--calls", type=click.IntRange(1), help="How many calls ran meanwhile.")
@click.option("--json", "as_json", is_flag=True, help="JSON instead of text.")
def power(recorded: Path | None, seconds: float, gflop: float | None, calls: int | None, as_json: bool) -> None:
    """Tell what ANE, CPU and GPU draw, and TFLOPS a watt: measured or read, never estimated.

    Without --read this machine is sampled while whatever runs, runs; `anex bench power` runs something itself. Exits
    with 1 where nothing tells.
    """
    if (gflop is None) != (calls is None):
        raise click.UsageError("--gflop is of a call, and --calls says how many: give both")
    with one_line():
        samples, by, why = read(recorded) if recorded else sampled(seconds)
    found = summary(samples, by, None if gflop is None or calls is None else gflop * calls)
    click.echo(files.as_json({**found, "why": why}) if as_json else "\n".join(lines(found, why)))
    sys.exit(0 if samples else 1)


def read(recorded: Path) -> tuple[Sequence[Sample], str, str]:
    from ..errors import ArgumentError
    from ..power.powermetrics import parse_recorded

    try:
        data = sys.stdin.buffer.read(MOST) if str(recorded) == "-" else recorded.read_bytes()[:MOST]
    except OSError as error:
        raise ArgumentError(f"--read {recorded} cannot be read: {error.strerror or error}") from error
    samples = list(parse_recorded(data))
    return (
        samples,
        f"powermetrics, recorded in {recorded}",
        "" if samples else "there is no whole sample of powermetrics",
    )


def sampled(seconds: float) -> tuple[Sequence[Sample], str, str]:
    import time

    from ..power import sampler, why_none

    by = sampler()
    if by is None:
        return [], "", why_none()
    by.start()
    time.sleep(seconds)
    samples = by.stop()
    return samples, by.name, "" if samples else f"{by.name} told nothing"


def summary(samples: Sequence[Sample], by: str, gflop: float | None) -> Mapping[str, Any]:
    """Mean milliwatts and joules of each part; TFLOPS of ``gflop`` in that time, and by the watts of the engine."""
    covered = sum(sample.seconds for sample in samples)
    energy = {part: joules(samples, part) for part in PARTS}
    watts = {part: None if each is None or not covered else each / covered for part, each in energy.items()}
    tflops = None if gflop is None or not covered else gflop / covered / 1e3
    ane = watts["ane"]
    return {
        "by": by, "samples": len(samples), "seconds": covered,
        "mw": {part: None if each is None else 1e3 * each for part, each in watts.items()}, "joules": energy,
        "tflops": tflops, "tflops_per_w": tflops / ane if tflops is not None and ane else None,
    }  # fmt: skip


def lines(found: Mapping[str, Any], why: str) -> list[str]:
    """mW, then TFLOPS and TFLOPS/W where they follow."""
    if not found["samples"]:
        return [f"Power: not available ({why})"]

    def told(value: float | None, text: str) -> str:
        return "not available" if value is None else text.format(value)

    rows = [f"{found['samples']} sample(s), {found['seconds']:.3f} s, by {found['by']}"]
    rows += [f"{name}: {told(found['mw'][part], '{:.0f} mW')}, {told(found['joules'][part], '{:.3f} J')}"
             for part, name in PARTS.items()]  # fmt: skip
    if found["mw"]["ane"] == 0:
        rows.append("ANE at 0 mW: it is off, as at rest, or this system does not count it")
    if found["tflops"] is not None:
        rows.append(f"{found['tflops']:.2f} TFLOPS, {told(found['tflops_per_w'], '{:.2f} TFLOPS/W')}")
    return rows
