"""A group by torch.distributed, over gloo: what ``torchrun`` starts."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import numpy as np

from ..errors import UnsupportedError, WorkerError
from .group import Group
from .messages import Array


class GlooGroup(Group):
    """Joins the process group that the environment describes, or the one that there is already."""

    def __init__(self, timeout: float) -> None:
        try:
            import torch
            import torch.distributed as dist
        except ImportError as error:
            raise UnsupportedError(
                f"torchrun's processes need torch: pip install 'anex[distributed]' ({error})"
            ) from None
        self._torch, self._dist = torch, dist
        limit = timedelta(seconds=timeout)
        try:
            self._joined = not dist.is_initialized()
            if self._joined:
                dist.init_process_group("gloo", timeout=limit)
                self._group = dist.group.WORLD
            else:
                self._group = dist.new_group(backend="gloo", timeout=limit)
        except (OSError, RuntimeError, ValueError) as error:
            raise WorkerError(f"the process group of torch.distributed could not be joined: {error}") from error
        super().__init__(dist.get_rank(self._group), dist.get_world_size(self._group), timeout)

    def _leave(self) -> None:
        self._dist.destroy_process_group(None if self._joined else self._group)

    def _start(self, data: Array, root: int | None) -> Any:
        if root is None:
            return self._dist.all_reduce(self._torch.from_numpy(data), group=self._group, async_op=True)
        whole = self._torch.from_numpy(data.view(np.uint8))
        return self._dist.broadcast(whole, root, group=self._group, async_op=True)

    def _wait(self, pending: Any) -> None:
        pending.wait(timedelta(seconds=self.timeout))

    def _abandon(self) -> None:
        pass  # the others see its connections close, and torchrun ends them
