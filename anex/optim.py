"""Optimizers over resident tensors: one native pass over weights, gradients and moments, in place.

The weights are the tensors that a compiled program takes as inputs, the gradients those it gives: nothing is
copied between a program and its optimizer. Weights in float16 are working copies of float32 masters, which the
optimizer keeps, moments are float32, and gradients may be either. The arithmetic is torch's.

>>> w = anex.tensor(np.ones(3), dtype="float32")
>>> optimizer = anex.optim.SGD({"w": w}, lr=0.5)
>>> optimizer.step({"w": np.ones(3, np.float32)})
True
>>> w.tolist()
[0.5, 0.5, 0.5]
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np

from . import _native
from ._native import Tensor
from .creation import tensor, zeros
from .errors import ArgumentError, DTypeError

if TYPE_CHECKING:
    from .distributed import Group

__all__ = ["SGD", "Adam", "AdamW", "LossScale", "Optimizer", "warmup_cosine", "warmup_linear"]

Gradients: TypeAlias = "Mapping[str, Any] | Sequence[Any] | None"
Decay: TypeAlias = "float | Mapping[str, float]"


class Optimizer:
    """What SGD, Adam and AdamW share.

    ``params``: float32 or float16 ``Tensor``s by name, changed in place by every step. ``lr``: the rate of steps that
    are given none. ``weight_decay``: one number, or one by name (0 for names left out: norms, biases).
    ``clip_norm``: the most that the norm of all gradients together may be; they are scaled down to it.
    ``check_finite``: look at the gradients first and leave the step out where one is infinite or NaN; by default
    where there is a loss scale or ``clip_norm``. Looking costs one more reading of the gradients.
    ``group``: of ``anex.distributed.join()``. Gradients are then summed over its processes before anything looks at
    them, so that all take the same step, or none: float32 gradients in place, in their own memory, others in the
    sums of ``accumulate``. All processes call ``step`` alike.

    Raises ``ArgumentError`` for numbers that make no sense, ``DTypeError`` for params of another dtype.
    """

    _rule = ""
    _moments: tuple[str, ...] = ()

    def __init__(
        self,
        params: Mapping[str, Tensor],
        *,
        lr: float,
        weight_decay: Decay = 0.0,
        clip_norm: float | None = None,
        check_finite: bool | None = None,
        group: Group | None = None,
    ) -> None:
        if not params:
            raise ArgumentError("an optimizer of no parameters")
        decays = weight_decay if isinstance(weight_decay, Mapping) else dict.fromkeys(params, weight_decay)
        if unknown := sorted(set(decays) - set(params)):
            raise ArgumentError(f"weight_decay names {', '.join(unknown)}, which is no parameter")
        if clip_norm is not None and not clip_norm > 0:
            raise ArgumentError(f"clip_norm={clip_norm!r} is not above 0")
        if min(decays.values(), default=0.0) < 0:
            raise ArgumentError("weight_decay is below 0")
        self.params = MappingProxyType(dict(params))
        self.lr, self.clip_norm, self.check_finite, self.group = lr, clip_norm, check_finite, group
        self.steps = 0  # taken; those left out do not count
        self.grad_norm = math.nan  # of the last step that looked, without the loss scale, before clipping
        self._decay = {name: float(decays.get(name, 0.0)) for name in params}
        self._masters: dict[str, Tensor] = {}
        self._state: dict[str, Tensor] = {}
        self._sums: dict[str, Tensor] = {}
        self._summed = 0
        for name, weight in params.items():
            if not isinstance(weight, Tensor) or weight.dtype_name not in ("float32", "float16"):
                found = weight.dtype_name if isinstance(weight, Tensor) else type(weight).__name__
                raise DTypeError(f"parameter {name!r} is {found}; it must be a float32 or float16 anex.Tensor")
            if weight.dtype_name == "float16":
                self._masters[name] = self._state[f"master.{name}"] = tensor(weight, dtype="float32", padded=False)
            for moment in self._moments:
                self._state[f"{moment}.{name}"] = self._zeros(weight)

    @property
    def state(self) -> Mapping[str, Tensor]:
        """What the optimizer keeps, resident: ``first.w``, ``second.w`` and, of float16 weights, ``master.w``."""
        return MappingProxyType(self._state)

    def load(self, state: Mapping[str, Any], steps: int) -> None:
        """Take over what ``state`` and ``steps`` of another optimizer of the same parameters were.

        Masters also become the weights they are masters of.
        """
        if set(state) != set(self._state):
            differing = ", ".join(sorted(set(state) ^ set(self._state))[:5])
            raise ArgumentError(f"the state is of another optimizer or other parameters: {differing}")
        for name, value in state.items():
            self._state[name].copy_from(value)
        for name, master in self._masters.items():
            self.params[name].copy_from(master)
        self.steps = int(steps)

    def accumulate(self, grads: Gradients) -> None:
        """Add gradients to float32 sums; the next ``step()`` without gradients takes their mean."""
        given = self._in_order(grads)
        self._make_sums()
        rows = [(name, self._sums[name], gradient, None, None, None, 0.0) for name, gradient in given.items()]
        _native.optimizer_step("sum", rows, step=self._summed + 1)
        self._summed += 1

    def step(self, grads: Gradients = None, lr: float | None = None, *, loss_scale: float = 1.0) -> bool:
        """One step in place; whether it was taken.

        ``grads``: by name, or in the order of the parameters, float32 or float16; left out: the mean of those that
        ``accumulate`` was given. They are divided by ``loss_scale`` first. False where a gradient is not finite and
        that was looked for (``check_finite``): then nothing has changed.

        With a ``group`` the mean is of what all its processes were given: of one of them each, or of all that was
        accumulated, which may be more on one than on another and nothing on some.
        """
        scale = 1.0 / loss_scale
        if not (math.isfinite(scale) and scale > 0):
            raise ArgumentError(f"loss_scale={loss_scale!r} is not a positive number")
        given, count = self._all(grads)
        scale /= count
        rows: list[tuple[str, Any, Any, Any, Any, Any, float]] = []
        for name, gradient in given.items():
            weight, master = self.params[name], self._masters.get(name)
            first, second = (self._state.get(f"{moment}.{name}") for moment in ("first", "second"))
            wide, copy = (weight, None) if master is None else (master, weight)
            rows.append((name, wide, gradient, copy, first, second, self._decay[name]))
        looks = self.check_finite
        looks = loss_scale != 1.0 if looks is None else looks
        norm, applied = _native.optimizer_step(
            self._rule,
            rows,
            step=self.steps + 1,
            rate=self.lr if lr is None else lr,
            gradient_scale=scale,
            clip=self.clip_norm or 0.0,
            measures=looks or self.clip_norm is not None,
            **self._numbers(),
        )
        self.grad_norm = norm
        self.steps += applied
        return applied

    def _all(self, grads: Gradients) -> tuple[dict[str, Any], int]:
        """The sums of all gradients of a step, over the group too, and of how many they are."""
        alone = self.group is None or self.group.size == 1
        if grads is not None:
            given = self._in_order(grads)
            if alone:
                return given, 1
            if all(isinstance(g, (Tensor, np.ndarray)) and g.dtype == np.float32 for g in given.values()):
                self.group.all_reduce(given.values())  # type: ignore[union-attr]
                return given, self.group.size  # type: ignore[union-attr]
            if self._summed:
                raise ArgumentError("step(gradients) after accumulate(): accumulate these too, and call step()")
            self.accumulate(given)
        count, self._summed = np.array([self._summed]), 0
        if not alone:
            self._make_sums()
            if not count[0]:
                for each in self._sums.values():
                    np.asarray(each)[...] = 0
            self.group.all_reduce([*self._sums.values(), count])  # type: ignore[union-attr]
        if not count[0]:
            raise ArgumentError("step() without gradients, and accumulate() was given none since the last step")
        return dict(self._sums), int(count[0])

    def _make_sums(self) -> None:
        if not self._sums:
            self._sums = {
                name: zeros(weight.shape, dtype="float32", padded=False) for name, weight in self.params.items()
            }

    def _numbers(self) -> dict[str, Any]:
        raise NotImplementedError

    @staticmethod
    def _zeros(like: Tensor) -> Tensor:
        return zeros(like.shape, dtype="float32", padded=False)

    def _in_order(self, grads: Gradients) -> dict[str, Any]:
        if grads is None:
            raise ArgumentError("no gradients are given")
        if not isinstance(grads, Mapping):
            if len(grads) != len(self.params):
                raise ArgumentError(f"{len(grads)} gradients for {len(self.params)} parameters")
            return dict(zip(self.params, grads, strict=True))
        if set(grads) != set(self.params):
            differing = ", ".join(sorted(set(grads) ^ set(self.params))[:5])
            raise ArgumentError(f"gradients and parameters have different names: {differing}")
        return {name: grads[name] for name in self.params}


class SGD(Optimizer):
    """w -= lr m with m = momentum m + g; Nesterov's looks one step ahead. See ``Optimizer`` for the rest."""

    _rule = "sgd"

    def __init__(
        self, params: Mapping[str, Tensor], *, lr: float, momentum: float = 0.0, nesterov: bool = False, **options: Any
    ) -> None:
        if not 0 <= momentum < 1 or (nesterov and not momentum):
            raise ArgumentError(f"momentum={momentum!r} is not from 0 to below 1, or 0 with nesterov={nesterov!r}")
        self._moments = ("first",) if momentum else ()
        self.momentum, self.nesterov = momentum, nesterov
        super().__init__(params, lr=lr, **options)

    def _numbers(self) -> dict[str, Any]:
        return {"beta1": self.momentum, "nesterov": self.nesterov}


class Adam(Optimizer):
    """Kingma and Ba's, with bias correction; ``weight_decay`` is added to the gradient. See ``Optimizer``."""

    _rule = "adam"
    _moments = ("first", "second")

    def __init__(
        self,
        params: Mapping[str, Tensor],
        *,
        lr: float = 1e-3,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        **options: Any,
    ) -> None:
        if not all(0 <= beta < 1 for beta in betas) or not eps > 0:
            raise ArgumentError(f"betas={betas!r}, eps={eps!r}: betas are from 0 to below 1, eps is above 0")
        self.betas, self.eps = betas, eps
        super().__init__(params, lr=lr, **options)

    def _numbers(self) -> dict[str, Any]:
        return {"beta1": self.betas[0], "beta2": self.betas[1], "epsilon": self.eps}


class AdamW(Adam):
    """Adam whose ``weight_decay`` (0.01 unless given) shrinks the weights themselves. See ``Optimizer``."""

    _rule = "adamw"

    def __init__(self, params: Mapping[str, Tensor], *, weight_decay: Decay = 0.01, **options: Any) -> None:
        super().__init__(params, weight_decay=weight_decay, **options)


class LossScale:
    """A loss scale that finds itself: halved where a step was not finite, doubled after ``interval`` that were.

    ``scale.tensor`` is the input ``loss_scale`` of a program that ``value_and_grad(..., loss_scale=True)`` made.

    >>> scale = LossScale(1024.0, interval=2)
    >>> for applied in (False, True, True):
    ...     scale.update(applied)
    >>> scale.value
    1024.0
    """

    def __init__(
        self, value: float = 65536.0, *, factor: float = 2.0, interval: int = 2000, most: float = 2.0**24
    ) -> None:
        if not (value > 0 and factor > 1 and interval >= 1):
            raise ArgumentError(f"a loss scale of {value!r} that changes by {factor!r} after {interval!r} steps")
        self.factor, self.interval, self.most, self.good = factor, interval, most, 0
        self.tensor = tensor([value], dtype="float32")

    @property
    def value(self) -> float:
        return float(self.tensor[0])

    @value.setter
    def value(self, value: float) -> None:
        self.tensor[0] = value

    def update(self, applied: bool) -> None:
        """After each step, with what ``Optimizer.step`` returned."""
        self.good = self.good + 1 if applied else 0
        if not applied:
            self.value = max(self.value / self.factor, 2.0**-14)
        elif self.good >= self.interval:
            self.value, self.good = min(self.value * self.factor, self.most), 0


def warmup_cosine(step: int, *, peak: float, steps: int, warmup: int = 0, floor: float = 0.0) -> float:
    """The rate of step ``step`` (from 0): up to ``peak`` in ``warmup`` steps, then down to ``floor`` as a cosine.

    >>> [round(warmup_cosine(i, peak=1.0, steps=6, warmup=2), 3) for i in range(7)]
    [0.5, 1.0, 1.0, 0.854, 0.5, 0.146, 0.0]
    """
    if step < warmup:
        return peak * (step + 1) / warmup
    done = min(1.0, (step - warmup) / max(1, steps - warmup))
    return floor + (peak - floor) * (1 + math.cos(math.pi * done)) / 2


def warmup_linear(step: int, *, peak: float, steps: int, warmup: int = 0, floor: float = 0.0) -> float:
    """As ``warmup_cosine``, down to ``floor`` in a straight line."""
    if step < warmup:
        return peak * (step + 1) / warmup
    return peak + (floor - peak) * min(1.0, (step - warmup) / max(1, steps - warmup))
