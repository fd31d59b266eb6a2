"""A training step as one program: forward, backward and the update of the weights."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

from ..errors import ArgumentError
from ..ops.record import dtype_name, shape
from .blocks import clip_by_global_norm
from .transform import Checkpoint, differentiate, seed_of_loss

if TYPE_CHECKING:
    from coremltools.converters.mil.mil import Program, Var

RULES = ("sgd", "adamw")


def training_step(
    program: Program,
    wrt: Iterable[str] | None = None,
    *,
    rule: str = "sgd",
    momentum: float = 0.0,
    betas: tuple[float, float] = (0.9, 0.999),
    eps: float = 1e-8,
    weight_decay: float = 0.0,
    loss: str | None = None,
    checkpoint: Checkpoint = None,
    clip_norm: float | None = None,
    function: str = "main",
) -> Program:
    """The program that computes the outputs of ``program`` and the weights after one step, for ``anex.PingPong``.

    For each ``w`` of ``wrt`` it has an output ``new_w``. ``rule="sgd"`` (with ``momentum``) and ``"adamw"`` keep
    moments, inputs ``first_w`` and ``second_w`` and outputs ``new_first_w`` and ``new_second_w``, float32, as the
    update is computed. The learning rate is the input ``rate``, (1,) float32; for ``"adamw"`` the inputs
    ``correction1`` and ``correction2``, (1,) float32, are 1 - beta ** step, which float16 could not compute.
    For the rest see ``value_and_grad``. Where weights are float16 and steps small, ``anex.optim`` with its masters
    loses less; and on the Neural Engine, which computes all of this in float16, second moments of small gradients
    vanish: use ``"sgd"`` there.
    """
    if rule not in RULES:
        raise ArgumentError(f"rule={rule!r} is none of {', '.join(RULES)}")
    moments = ("first", "second") if rule == "adamw" else ("first",) if momentum else ()
    numbers = ("rate", "correction1", "correction2") if rule == "adamw" else ("rate",)

    def added(weights: Mapping[str, Var]) -> dict[str, tuple[tuple[int, ...], str]]:
        kept = {f"{moment}_{name}": (shape(var), "fp32") for moment in moments for name, var in weights.items()}
        return {**kept, **{name: ((1,), "fp32") for name in numbers}}

    def finish(
        mb: Any, gradients: Mapping[str, Var], weights: Mapping[str, Var], given: Mapping[str, Var]
    ) -> dict[str, Var]:
        results: dict[str, Var] = {}
        found = dict(gradients)
        if clip_norm is not None:
            clipped, norm = clip_by_global_norm(list(found.values()), clip_norm, mb=mb)
            found, results["gradient_norm"] = dict(zip(found, clipped, strict=True)), norm
        rate = given["rate"]
        if rule == "adamw":
            rate = mb.real_div(x=rate, y=given["correction1"])
            root = mb.sqrt(x=given["correction2"])
        for name, gradient in found.items():
            weight, ranks = weights[name], [1] * len(shape(weights[name]))
            wide, g = _wide(mb, weight), _wide(mb, gradient)
            if rule == "adamw":
                first = _mix(mb, given[f"first_{name}"], g, betas[0])
                second = _mix(mb, given[f"second_{name}"], mb.square(x=g), betas[1])
                results |= {f"new_first_{name}": first, f"new_second_{name}": second}
                deviation = mb.real_div(x=mb.sqrt(x=second), y=mb.reshape(x=root, shape=ranks))
                change = mb.real_div(x=first, y=mb.add(x=deviation, y=eps))
                if weight_decay:
                    decay = mb.mul(x=given["rate"], y=weight_decay)
                    wide = mb.sub(x=wide, y=mb.mul(x=wide, y=mb.reshape(x=decay, shape=ranks)))
            else:
                change = mb.add(x=g, y=mb.mul(x=wide, y=weight_decay)) if weight_decay else g
                if momentum:
                    change = mb.add(x=mb.mul(x=given[f"first_{name}"], y=momentum), y=change)
                    results[f"new_first_{name}"] = change
            new = mb.sub(x=wide, y=mb.mul(x=change, y=mb.reshape(x=rate, shape=ranks)))
            dtype = dtype_name(weight)
            results[f"new_{name}"] = new if dtype == "fp32" else mb.cast(x=new, dtype=dtype)
        return results

    return differentiate(program, wrt, checkpoint, function, added, seed_of_loss(loss), finish)


def _wide(mb: Any, var: Var) -> Any:
    return var if dtype_name(var) == "fp32" else mb.cast(x=var, dtype="fp32")


def _mix(mb: Any, old: Var, new: Var, beta: float) -> Any:
    return mb.add(x=mb.mul(x=old, y=beta), y=mb.mul(x=new, y=1.0 - beta))
