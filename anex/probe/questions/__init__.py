"""The probes, by what they are about; importing registers them."""

from __future__ import annotations

from . import attention, backward, chaining, classifier, dynamic, framework, inputs, integers  # noqa: F401
