"""Checkpoints of a run in one safetensors file: weights, the optimizer's state, and numbers to go on from.

A file is written beside the old one and then takes its name, so that there is a whole one at any moment.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file
from stories_config import Config, StoriesError
from stories_files import replacing

FORMAT = "anex-stories-1"


@dataclass
class Checkpoint:
    """What is saved. ``run``: the options and sums of the run. ``state`` is the optimizer's, by its names."""

    config: Config
    weights: Mapping[str, Any]
    state: Mapping[str, Any] = field(default_factory=dict)
    run: dict[str, Any] = field(default_factory=dict)

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write it; after a crash at any moment ``path`` is the old file or the new one."""
        path = Path(path)
        tensors = {f"weight.{name}": np.ascontiguousarray(value) for name, value in self.weights.items()}
        tensors |= {f"state.{name}": np.ascontiguousarray(value) for name, value in self.state.items()}
        notes = {"format": FORMAT, "config": json.dumps(asdict(self.config)), "run": json.dumps(self.run)}
        with replacing(path) as partial:
            try:
                save_file(tensors, partial, notes)
            except SafetensorError as error:
                raise StoriesError(f"{partial} cannot be written: {error}; {path} is as it was") from None

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> Checkpoint:
        path = Path(path)
        if not path.is_file():
            raise StoriesError(f"there is no checkpoint {path}")
        try:
            with safe_open(path, framework="numpy") as file:
                notes = file.metadata() or {}
                if notes.get("format") != FORMAT:
                    raise StoriesError(f"{path} is safetensors, but no checkpoint of this program")
                tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - no mapping
        except SafetensorError as error:
            raise StoriesError(
                f"{path} is cut off or damaged ({error}); it has {path.stat().st_size} bytes. Checkpoints are replaced "
                "as a whole, so this one was changed afterwards or copied in part: take another copy"
            ) from None
        config = Config(**json.loads(notes["config"]))
        weights = {name: tensors.get(f"weight.{name}") for name in config.shapes()}
        for name, shape in config.shapes().items():
            if weights[name] is None or weights[name].shape != shape:
                raise StoriesError(f"{path} has no weight {name!r} of {list(shape)}, which its sizes call for")
        state = {name.removeprefix("state."): value for name, value in tensors.items() if name.startswith("state.")}
        return cls(config, weights, state, json.loads(notes["run"]))
