"""What the workers of one run do together: begin alike, and end with a message that helps."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import threading
import zlib
from collections.abc import Callable, Iterator
from dataclasses import asdict
from pathlib import Path

import numpy as np
from safetensors import SafetensorError, safe_open
from stories_checkpoint import Checkpoint
from stories_config import Config, StoriesError
from stories_data import Tokens

import anex
from anex.distributed import Group


@contextlib.contextmanager
def together(timeout: float, path: Path) -> Iterator[Group]:
    """The group of this run, of which rank 0 alone prints. A lost worker, or the launcher's end of a run that lost
    one, becomes a message that names the checkpoint at ``path``.
    """
    with anex.distributed.join(timeout=timeout) as group, open(os.devnull, "w") as nowhere:
        who = f"worker {group.rank} of {group.size}" if group.size > 1 else "the run"

        def stop(*_: object) -> None:
            raise SystemExit(f"train: {who} was stopped by SIGTERM; {last(path)}")

        before = signal.signal(signal.SIGTERM, stop) if threading.current_thread() is threading.main_thread() else None
        try:
            with contextlib.redirect_stdout(nowhere) if group.rank else contextlib.nullcontext():
                yield group
        except anex.WorkerError as error:
            raise StoriesError(f"{error}; {last(path)}") from None
        except (StoriesError, anex.Error, OSError) as error:
            raise StoriesError(f"{who}: {error}" if group.rank else str(error)) from None
        finally:
            if before is not None:
                signal.signal(signal.SIGTERM, before)


def last(path: Path) -> str:
    """What there is to go on from."""
    try:
        with safe_open(path, framework="numpy") as file:
            step = json.loads(file.metadata()["run"])["step"]
    except (OSError, SafetensorError, KeyError, TypeError):
        return f"there is no checkpoint {path} here"
    return f"{path} is of step {step}: go on with --resume"


def of_rank_0(group: Group, make: Callable[[], Checkpoint]) -> Checkpoint:
    """What ``make`` gives on rank 0, which alone needs the files; the others have its sizes and numbers, and zeros."""
    made = make() if group.rank == 0 else None
    about = group.share(made and {"config": asdict(made.config), "run": made.run})
    if made:
        return made
    config = Config(**about["config"])
    weights = {name: np.zeros(shape, np.float32) for name, shape in config.shapes().items()}
    return Checkpoint(config, weights, {}, about["run"])


def check_data(group: Group, tokens: Tokens) -> None:
    """Workers read their shares from their own copies of one file."""
    found = np.array([len(tokens), zlib.crc32(tokens.data[:100_000].tobytes())])
    if not group.agree([found]):
        raise StoriesError(f"{tokens.path} has {len(tokens)} tokens here; the workers' files are not the same")
