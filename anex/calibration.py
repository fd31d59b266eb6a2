"""``anex calibrate``: a few small programs on this Mac's Neural Engine, timed for ``anex cost --calibration``.

Each shows one number of the cost model by itself: starting a program, streaming weights (and whether 4096 channels
are slow here), convolving in fp16 and in int8, multiplying matrices, copying. The file is a CSV like that of the
published measurements, so it can be attached to an issue and become data for everybody.
"""

from __future__ import annotations

import csv
import platform
import statistics
import sys
import time
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from .errors import AneWarning, Error

if TYPE_CHECKING:
    from coremltools.converters.mil.mil import Program

WARM_UP, CALLS = 10, 50
DEPTH, QUICK_DEPTH = 128, 2
SCALE = 0.125  # of activations in int8
COLUMNS = ("row_id", "source", "chip", "os", "path", "workload", "op", "depth", "in_ch", "out_ch", "kernel", "height",
           "width", "batch", "dtype", "weight_mb", "act_mb", "gflop", "ms", "device", "note")  # fmt: skip


@dataclass(frozen=True)
class Case:
    """A program and the row that describes it."""

    name: str
    build: Callable[[], Program]
    row: dict[str, Any]


def cases(quick: bool = False) -> list[Case]:
    """The programs; ``quick`` ones are shallow, for trying out the command."""
    depth = QUICK_DEPTH if quick else DEPTH
    wide = 512 if quick else 2048

    def row(
        workload: str, channels: int, height: int, width: int, depth: int, bytes: int = 2, **more: Any
    ) -> dict[str, Any]:
        positions = height * width
        return {
            "workload": workload, "depth": depth, "in_ch": channels, "out_ch": channels, "kernel": 1, "height": height,
            "width": width, "batch": 1, "dtype": "fp16", "weight_mb": channels**2 * bytes * depth / 2**20,
            "act_mb": channels * positions * 2 / 2**20, "gflop": 2 * channels**2 * positions * depth / 1e9, **more,
        }  # fmt: skip

    def conv(channels: int) -> Case:
        found = row("conv_single", channels, 1, 64, 1)
        return Case(f"conv {channels}", lambda: _chain(1, channels, (1, 64), False), found)

    return [
        conv(128),
        conv(2560),
        conv(4096),
        Case("fp16 chain", lambda: _chain(depth, 512, (64, 64), False), row("conv_chain", 512, 64, 64, depth)),
        Case("int8 chain", lambda: _chain(depth, 512, (64, 64), True),
             row("conv_chain", 512, 64, 64, depth, 1, dtype="w8a8")),
        Case("linear", lambda: _linear(wide), row("matmul", wide, 1, wide, 1, op="linear")),
        Case("relu", lambda: _relu(wide, 4096), {"workload": "elementwise", "op": "relu", "in_ch": wide,
             "out_ch": wide, "width": 4096, "batch": 1, "dtype": "fp16", "act_mb": wide * 4096 * 2 / 2**20}),
    ]  # fmt: skip


def _chain(depth: int, channels: int, image: tuple[int, int], int8: bool) -> Program:
    import numpy as np

    from ._coremltools import builder
    from .build import graph

    mb, rng = builder(), np.random.default_rng(0)

    @graph(x=(1, channels, *image))
    def chain(x: Any) -> Any:
        for layer in range(depth):
            weight: Any = (rng.normal(size=(channels, channels, 1, 1)) / channels**0.5).astype(np.float16)
            if int8:
                stored = np.clip(np.round(weight * 512), -127, 127).astype(np.int8)
                weight = mb.constexpr_affine_dequantize(
                    quantized_data=stored, zero_point=np.int8(0), scale=np.float16(1 / 512), axis=0
                )
                if layer:
                    x = mb.dequantize(input=mb.quantize(input=x, scale=SCALE, output_dtype="int8"), scale=SCALE)
            x = mb.conv(x=x, weight=weight)
        return x

    return chain


def _linear(n: int) -> Program:
    import numpy as np

    from ._coremltools import builder
    from .build import graph

    mb = builder()
    weight = (np.random.default_rng(0).normal(size=(n, n)) / n**0.5).astype(np.float16)

    @graph(x=(n, n))
    def linear(x: Any) -> Any:
        return mb.linear(x=x, weight=weight)

    return linear


def _relu(rows: int, columns: int) -> Program:
    from ._coremltools import builder
    from .build import graph

    mb = builder()

    @graph(x=(1, rows, 1, columns))
    def relu(x: Any) -> Any:
        return mb.relu(x=x)

    return relu


def measure(chip: str, quick: bool = False, calls: int = CALLS) -> Iterator[dict[str, Any]]:
    """A row for each program that compiles; those that do not have no ``ms``, and say why in ``note``."""
    import numpy as np

    from .creation import tensor
    from .devices.info import label
    from .program import compile

    device = label("ane")
    for number, case in enumerate(cases(quick), 1):
        row = {"row_id": f"C{number}", "source": "anex calibrate", "chip": chip, "os": platform.mac_ver()[0],
               "path": "private", "device": device, **case.row}  # fmt: skip
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", AneWarning)  # that 4096 channels are slow is what is measured
                program = compile(case.build(), device="ane")
            ((_, spec),) = program.inputs.items()
            x = tensor(np.random.default_rng(1).normal(size=spec.shape), dtype="float16")
            out = program(x)
            seconds = []
            for _ in range(WARM_UP):
                program(x, out=out)
            for _ in range(calls):
                begin = time.perf_counter()
                program(x, out=out)
                seconds.append(time.perf_counter() - begin)
            row |= {"ms": f"{statistics.median(seconds) * 1e3:.6g}", "note": f"median of {len(seconds)} calls"}
            program.close()
        except Error as error:
            row |= {"ms": "", "note": " ".join(str(error).split())[:300]}
        yield row


def chip_here() -> str:
    """As Apple sells it: "M4 Max"; empty where that is not known."""
    from .devices.info import device_info
    from .doctor import machine

    name = str(machine()["chip"])
    return name.removeprefix("Apple ") if sys.platform == "darwin" and "Apple M" in name else device_info().chip


@click.command()
@click.option("--output", type=click.Path(path_type=Path), default=Path("calibration.csv"), show_default=True)
@click.option("--chip", default="", help="What this Mac's chip is called, where anex cannot tell.")
@click.option("--quick", is_flag=True, help="Shallow programs, to see whether it works.")
@click.option("--calls", type=click.IntRange(1), default=CALLS, show_default=True, help="Timed calls of each program.")
def calibrate(output: Path, chip: str, quick: bool, calls: int) -> None:
    """Time seven small programs on this Mac's Neural Engine, for `anex cost --calibration FILE`."""
    from .devices.info import unavailable

    if reason := unavailable():
        raise click.ClickException(f"there is no Neural Engine to calibrate for: {reason}")
    if not output.absolute().parent.is_dir():
        raise click.ClickException(f"--output {output}: the folder {output.absolute().parent} does not exist")
    name = chip or chip_here()
    if not name:
        raise click.ClickException("the chip has no name here: pass --chip, such as --chip 'M4 Max'")
    rows = []
    for row in measure(name, quick, calls):
        rows.append(row)
        took = f"{row['ms']} ms" if row["ms"] else "FAILED"
        click.echo(f"{row['device']}  {row['workload']:<12} {row['in_ch']:>5} channels  {took:>14}  {row['note']}")
    with output.open("w", newline="", encoding="utf-8") as file:
        table = csv.DictWriter(file, COLUMNS, restval="")
        table.writeheader()
        table.writerows(rows)
    click.echo(f"{output}: {sum(bool(row['ms']) for row in rows)} of {len(rows)} programs measured on {name}.")
    if rows and rows[0]["device"] == "double":
        click.echo("They ran on the stand-in of the framework (ANEX_ANE_FRAMEWORK): nothing here tells of hardware.")
