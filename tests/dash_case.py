"""Frames of `anex dash` as text, and recorded runs, for its tests."""

from __future__ import annotations

import asyncio
import json
import math
import random
from pathlib import Path

from click.testing import CliRunner

from anex.cli import main
from anex.dash.app import Dash, frame, text_of
from anex.dash.run import Run
from anex.dash.session import Session
from anex.dash.sources import Followed

HEADER = """\
=== ANE Training: Stories110M (12 layers) ===
dim=768 hidden=2048 heads=12 seq=256 vocab=32000 layers=12
Params: 109.53M (transformer 84.95M + embed 24.58M)
Kernels: 72 (60 weight-bearing + 12 static sdpaBwd2)
Accum 3 steps per recompile | Adam LR=2.5e-04 b1=0.9 b2=0.999
FLOPs/step: fwd=43487M bwd_dx=43487M bwd_dW=43487M sdpa_bwd=6040M total=174248M
ANE FLOPs/step: 93013M (fwd+bwd_dx+sdpa_bwd) | CPU: dW+cls (cblas)
"""
LOSSES = [9.5, 9.25, 8.75, 8.5, 8.875, 8.0]  # of steps 0 to 5: the best is the last
PARTS = {"ane": 20.0, "io": 5.0, "cls": 4.0, "elem": 10.0, "rms": 1.0, "cblas_wait": 0.0}
BATCHES = [(3000.0, 240.0), (1500.0, 270.0)]  # compile and train ms, of three steps each


def records(losses=LOSSES, batches=BATCHES):
    """The JSON of a run, as the published trainer writes it: steps, and after three of them a batch."""
    found = []
    for step, loss in enumerate(losses):
        parts = {f"t_{name}": value + step % 3 for name, value in PARTS.items()}
        found.append({"type": "step", "step": step, "loss": loss, **parts, "compiles": 72})
        if step % 3 == 2 and step // 3 < len(batches):
            compile_ms, train_ms = batches[step // 3]
            found += [
                {"type": "batch", "batch": 3, "compile_ms": compile_ms, "train_ms": train_ms,
                 "ms_per_step": round(train_ms / 3, 1)},
                {"type": "perf", "ane_tflops": 1.25, "ane_util_pct": 7.91},
            ]  # fmt: skip
    return found


def jsonl(found):
    return "".join(json.dumps(record) + "\n" for record in found)


def people(losses=LOSSES, batches=BATCHES):
    """The same run as lines for people; the C program prints every tenth step, here every one."""
    text = HEADER
    for step, loss in enumerate(losses):
        text += f"step {step:<4d} loss={loss:.4f}\n"
        if step % 3 == 2 and step // 3 < len(batches):
            compile_ms, train_ms = batches[step // 3]
            text += f"  [batch 3: compile={compile_ms:.0f}ms train={train_ms:.1f}ms ({train_ms / 3:.1f}ms/step) "
            text += "compiles=72]\n    " + " ".join(f"{name}={value + 2:.1f}" for name, value in PARTS.items())
            text += " ms/step\n"
    return text


def read(text: str) -> Run:
    run = Run()
    for line in text.splitlines():
        run.read(line)
    return run


def shown(session: Session, width: int = 110, height: int = 34) -> str:
    return asyncio.run(frame(session, width, height))[0]


def frame_of(path, width: int = 110, height: int = 34) -> str:
    """Of a file, by the classes themselves."""

    async def whole() -> str:
        run = Run()
        session = Session(run, Followed(path, run))
        await session.whole()
        return (await frame(session, width, height))[0]

    return asyncio.run(whole())


def frames_of(texts, sizes=((110, 34),)):
    """Of each text in each size, by one dashboard: (text, size, frame)."""

    async def all_of_them():
        app = Dash(Session(Run(), Followed(Path("run.jsonl"), Run())), live=False)
        found = []
        async with app.run_test(size=sizes[0]) as pilot:
            for size in sizes:
                await pilot.resize_terminal(*size)
                for text in texts:
                    run = read(text)
                    app.session = Session(run, Followed(Path("run.jsonl"), run))
                    app.show()
                    await pilot.pause()
                    found.append((text, size, text_of(app)))
        return found

    return asyncio.run(all_of_them())


def once(*arguments: object):
    """The command with --once."""
    return CliRunner().invoke(main, ["dash", "--once", *map(str, arguments)])


def noisy(steps: int, seed: int = 3) -> list[float]:
    rng = random.Random(seed)
    return [9 * math.exp(-step / steps) + rng.uniform(-0.5, 0.5) for step in range(steps)]
