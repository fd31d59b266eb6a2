"""One use or more of every op with a gradient, beside what torch calls it: ``CASES[name]``."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np


@dataclass(frozen=True)
class Case:
    """``torch(*floats)`` computes in float64 what ``op`` does with ``floats`` (by name) and ``given``."""

    op: str
    torch: Callable[..., Any]
    floats: dict[str, Any]  # arrays that have a gradient; a list of them under the name of a variadic input
    given: dict[str, Any] = field(default_factory=dict)
    constants: tuple[str, ...] = ()  # arrays of ``given`` that are constants
    opset: str = "iOS18"
    rtol: float = 2e-4
    half: float = 3e-2  # tolerance in float16
    dtypes: tuple[str, ...] = ("float32", "float16")


CASES: dict[str, Case] = {}


def case(op: str, torch: Callable[..., Any], label: str = "", **rest: Any) -> None:
    """Lower-case keywords that are fields of ``Case`` are such; the others are float inputs by name."""
    fields = {name: rest.pop(name) for name in list(rest) if name in Case.__dataclass_fields__}
    name = f"{op} {label}".strip()
    assert name not in CASES, name
    CASES[name] = Case(op, torch, rest, **fields)


def normal(*shape: int, scale: float = 1.0, shift: float = 0.0, seed: int = 0) -> np.ndarray:
    return np.random.default_rng([seed, *shape]).normal(size=shape) * scale + shift


def uniform(low: float, high: float, *shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng([seed, *shape]).uniform(low, high, size=shape)


def apart(*shape: int, step: float = 0.25) -> np.ndarray:
    """Values that differ by ``step`` at least, none of them near a multiple of 1/2: no kink is within a difference."""
    n = int(np.prod(shape))
    return (np.random.default_rng(n).permutation(n) - n // 2).reshape(shape) * step + step / 3
