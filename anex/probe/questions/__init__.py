"""The probes, by what they are about; each file registers its own."""

from __future__ import annotations

from ..record import PROBES
from . import attention, backward, chaining, classifier, dynamic, framework, inputs, integers  # noqa: F401

__all__ = ["PROBES"]
