"""A run's numbers at Weights & Biases, by its own library."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

from ..errors import UnsupportedError
from .records import Batch, Event, Speed, Step
from .run import Run


def log_to(run: Run, project: str, name: str | None, config: dict[str, Any]) -> Callable[[], None]:
    """Log what ``run`` reads from now on; gives what ends that. Steps that are done again are left out there."""
    os.environ.setdefault("WANDB_SILENT", "true")  # it would print into the dashboard
    try:
        import wandb
    except ImportError as error:
        raise UnsupportedError("--wandb needs wandb, which is not installed: pip install wandb") from error
    remote = wandb.init(project=project, name=name, config=config)
    told: dict[str, float] = {}

    def listener(event: Event) -> None:
        if isinstance(event, Step) and run.told.curve.last == (event.number, event.loss):
            parts = {f"ms/{part}": value for part, value in event.parts.items()}
            remote.log({"loss": event.loss, **parts, **told}, step=event.number)
        elif isinstance(event, Batch):
            told.update({"ms_per_step": event.ms_per_step, "compile_share": run.compile_share or 0.0})
        elif isinstance(event, Speed):
            told.update({"ane_tflops": event.tflops, "ane_util_pct": event.percent})

    run.listeners.append(listener)
    return lambda: remote.finish()
