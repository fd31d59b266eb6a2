"""``anex advise``: which unit a workload is for, by its residency and by what bounds it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click

from ..commands import one_line
from ..cost.chips import Chip
from ..cost.chips import chip as chip_named
from ..cost.model import Prediction, shipped
from ..cost.named import ENCODERS
from ..cost.work import Load, Work
from ..errors import ArgumentError
from .advice import PARTLY, STILL_FINE
from .explaining import explain, program_of
from .report import Explanation

FEW_FLOPS = 5e6  # which a CPU core computes before the engine has started
TOKENS = 8  # positions up to which a model streams its weights for little work
LARGE = 50e6  # bytes of weights that a token streams


@dataclass(frozen=True)
class Workload:
    """A row of the field guide's table (S04): ``guide`` is its verdict, ``load`` a public model of the kind."""

    name: str
    guide: str
    example: str
    load: Load


@dataclass(frozen=True)
class Target:
    """``unit``: "ane", "gpu", "cpu" or "ane + gpu"; ``why`` in words; ``guide``: what the field guide says, if it does.

    ``prediction`` is of the engine, had it all to do.
    """

    workload: str
    example: str
    unit: str
    why: str
    guide: str
    prediction: Prediction | None

    def as_dict(self) -> dict[str, Any]:
        p = self.prediction
        return {
            "workload": self.workload, "example": self.example, "target": self.unit, "why": self.why,
            "guide": self.guide, "measured": False, "ms": p.ms if p else None, "low_ms": p.low if p else None,
            "high_ms": p.high if p else None, "bound": p.bound if p else None,
        }  # fmt: skip


def _net(gflop: float, parameters: float, pixels: float, channels: int, into: float, kind: str = "conv") -> Load:
    return Load((Work(kind, gflop * 1e9, 2 * parameters, 2 * pixels * channels, pixels, (channels, channels), "fp16",
                      50),), into, 4e3, "vision_cnn")  # fmt: skip


def _workloads() -> tuple[Workload, ...]:
    image = 2.0 * 3 * 224**2
    whisper = ENCODERS["whisper_small"]
    speech = Load(tuple(whisper.works("fp16", None)), 5e5, 2.0 * whisper.tokens * whisper.width, "whole_model")
    llama = Load((Work("linear", 2.48e9, 2.48e9, 0.0, 1, (2048, 8192), "fp16", 113),
                  Work("scores", bytes=2.0 * 2 * 16 * 512 * 2048)), 6.7e7, 2.6e5, "llm_decode")  # fmt: skip
    return (
        Workload("image classification", "ane", "MobileNet v1, 224 x 224",
                 _net(1.14, 4.2e6, 3136, 256, image, "conv1x1")),
        Workload("speech (Whisper)", "gpu", "encoder of Whisper small, 30 s", speech),
        Workload("chat (Llama-3.2-1B / 3B)", "gpu", "one token of Llama-3.2-1B at 2048", llama),
        Workload("image generation (Stable Diffusion)", "ane + gpu", "one step of the UNet of version 1.5",
                 _net(680, 860e6, 4096, 320, 2.0 * 4 * 64**2)),
        Workload("object detection (YOLO)", "ane, cpu for NMS", "YOLOv8n, 640 x 640",
                 _net(8.7, 3.2e6, 25600, 64, 2.0 * 3 * 640**2)),
        Workload("custom CNN", "ane", "ResNet-18, 224 x 224", _net(3.6, 11.7e6, 3136, 64, image)),
    )  # fmt: skip


def table(chip: str = "M4", path: str = "coreml") -> list[Target]:
    """The field guide's decision table with the cost model's word beside it."""
    where = _known(chip)
    rows = _workloads()
    found = shipped().predict([row.load for row in rows], [where] * len(rows), [path] * len(rows))
    return [
        Target(row.name, row.example, *_by_load(row.load, prediction), row.guide, prediction)
        for row, prediction in zip(rows, found, strict=True)
    ]


def advise(model: Any, chip: str = "M4", path: str = "private") -> Target:
    """The unit for a model: anything that ``anex.explain`` takes.

    >>> @anex.graph(x=(1, 4, 1, 8))
    ... def small(x):
    ...     return mb.relu(x=x)
    >>> advise(small).unit
    'cpu'
    """
    name = Path(model).name if isinstance(model, (str, Path)) and "\n" not in str(model) else "the model"
    found = explain(program_of(model), chip=chip, units="ALL", path=path)
    unit, why = _by_residency(found)
    return Target(name, "", unit, why, "", found.cost.prediction if found.cost else None)


def _known(chip: str) -> Chip:
    where = chip_named(chip)
    if not where.known:
        raise ArgumentError(f"chip {chip!r} is no Apple chip; such as 'M4', 'M5 Max', 'A18 Pro' or 'h16g'")
    return where


def _by_residency(found: Explanation) -> tuple[str, str]:
    share = f"{found.residency:.0%} of the ops, {found.residency_by_cost:.0%} of the time, can be on the engine"
    if found.cost is None:
        return "cpu", f"no op has a known cost; {share}"
    works = [op for op in found.cost.ops if op.flops]
    weights = sum(op.weight_bytes for op in works)
    flops = sum(op.flops for op in works)
    if flops < FEW_FLOPS:
        return _choose(found.cost.prediction, flops, 0.0)
    if found.residency_by_cost < PARTLY:
        first = found.first_off
        return "gpu", f"{share}; the first to leave is {first.op} {first.name!r}" if first else share
    if found.residency_by_cost < STILL_FINE:
        return "ane + gpu", f"{share}; {found.transfers.count} transfers"
    one_by_one = weights > LARGE and flops <= 2 * TOKENS * weights
    return _choose(found.cost.prediction, flops, weights if one_by_one else 0.0)


def _by_load(load: Load, prediction: Prediction) -> tuple[str, str]:
    heavy = max(load.works, key=lambda work: work.flops)
    streams = load.weight_bytes if heavy.positions <= TOKENS and load.weight_bytes > LARGE else 0.0
    return _choose(prediction, load.flops, streams)


def _choose(prediction: Prediction, flops: float, streamed: float) -> tuple[str, str]:
    if streamed:
        rate = streamed / prediction.ms / 1e6
        return "gpu", (f"every call streams {streamed / 1e9:.2g} GB of weights, here at {rate:.0f} GB/s; "
                       "the GPU has the whole memory path")  # fmt: skip
    if flops < FEW_FLOPS:
        return "cpu", f"starting the engine takes {prediction.bounds['dispatch']:.2g} ms, its work less"
    return "ane", f"resident, bound by {prediction.bound}, {prediction.tflops:.3g} TFLOPS"


def lines(found: list[Target], chip: str) -> Iterator[str]:
    yield f"on {chip}: predicted, nothing was run; guide: the field guide's verdict (S04), where it has one"
    yield f"{'workload':<36} {'example':<36} {'target':<10} {'guide':<16} {'ms':>8} {'80 % interval':>18}  why"
    for each in found:
        p = each.prediction
        ms, interval = (f"{p.ms:.3g}", f"{p.low:.3g} .. {p.high:.3g}") if p else ("", "")
        yield (f"{each.workload[:36]:<36} {each.example:<36} {each.unit:<10} {each.guide:<16} {ms:>8} {interval:>18}  "
               f"{each.why}")  # fmt: skip


@click.command("advise")
@click.argument("model", required=False, type=click.Path(path_type=Path))
@click.option("--chip", default="M4", show_default=True, help="Such as 'M4 Max' or h16g.")
@click.option("--path", default="coreml", show_default=True, help="The way into the engine: private, e5rt or coreml.")
@click.option("--json", "as_json", is_flag=True, help="JSON instead of text.")
def command(model: Path | None, chip: str, path: str, as_json: bool) -> None:
    """Tell which unit MODEL is for, the Neural Engine, the GPU or the CPU; without MODEL, a table of workloads."""
    import json

    from ..cost.model import path_of

    with one_line():
        path_of(path)
        found = table(chip, path) if model is None else [advise(model, chip, path)]
    if as_json:
        click.echo(json.dumps([each.as_dict() for each in found], indent=1))
    else:
        click.echo("\n".join(lines(found, chip)))
