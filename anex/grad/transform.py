"""``value_and_grad`` and ``vjp``: a program and its gradients in one."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np

from .. import _coremltools
from .._coremltools import coremltools
from ..build import constants_follow
from ..errors import ArgumentError, ShapeError, UnsupportedError
from ..ops.gradient import constant_like, zeros_like
from ..ops.record import dtype_name, shape
from .blocks import clip_by_global_norm
from .maker import Maker
from .replay import placeholders, replay
from .reverse import Adjoints, Reverse, Values, dependents, is_float

if TYPE_CHECKING:
    from coremltools.converters.mil.mil import Function, Operation, Program, Var

FLOAT16 = float(np.finfo(np.float16).max)
PRODUCTS = frozenset({
    "conv", "conv_transpose", "einsum", "gru", "linear", "lstm", "matmul", "rnn", "scaled_dot_product_attention",
})  # fmt: skip

Checkpoint: TypeAlias = "str | Sequence[str] | Callable[[Operation], bool] | None"
Added: TypeAlias = "dict[str, tuple[tuple[int, ...], str]]"  # inputs: shape and dtype by name
Seed: TypeAlias = "Callable[[Maker, Mapping[str, Var], Mapping[str, Var]], dict[str, Var]]"
Finish: TypeAlias = "Callable[[Maker, Mapping[str, Var], Mapping[str, Var], Mapping[str, Var]], dict[str, Var]]"


def value_and_grad(
    program: Program,
    wrt: Iterable[str] | None = None,
    *,
    loss: str | None = None,
    checkpoint: Checkpoint = None,
    loss_scale: bool | float = False,
    clip_norm: float | None = None,
    function: str = "main",
    prefix: str = "grad_",
) -> Program:
    """The program that computes the outputs of ``program``, and then the gradients of ``loss``.

    ``wrt``: names of float inputs; all float inputs by default. The gradient of ``w`` is the output ``grad_w``, of
    its shape and dtype, in the order of ``wrt``; zero where the loss does not depend on it.
    ``loss``: the output, of one element, that is differentiated; the first one by default.

    ``checkpoint``: what the way back keeps of the way there. None: everything that the rules use. ``"products"``:
    the results of matrix products, convolutions and attention, everything else is computed again. A list of names:
    these values only (the outputs of ops; inputs are there anyway), as one chooses the inputs of layers. A function:
    whether to keep what an ``Operation`` gives. Random numbers, and what control flow gives, are kept always.

    ``loss_scale``: the gradients are multiplied by this number, so that small ones survive float16; True makes it an
    input ``loss_scale``, (1,) float32, last. ``anex.optim`` divides by it, and ``LossScale`` there finds it.
    ``clip_norm``: the gradients are scaled down together where their global norm is above it; the norm, without the
    loss scale, is one more output ``gradient_norm``, (1,) float32, last.
    ``prefix``: before the names of gradients; another one for gradients of a program that has some already.

    Raises ``ArgumentError`` for names that are not there or are no float inputs, ``ShapeError`` for a loss of several
    elements, ``UnsupportedError`` where an op on the way has no gradient, with its reason.
    """
    scaled_by_input = loss_scale is True
    if not isinstance(loss_scale, bool) and not is_positive(loss_scale):
        raise ArgumentError(f"loss_scale={loss_scale!r} is neither True nor a positive number")
    if clip_norm is not None and not is_positive(clip_norm):
        raise ArgumentError(f"clip_norm={clip_norm!r} is no number above 0")

    def finish(
        mb: Maker, gradients: Mapping[str, Var], weights: Mapping[str, Var], given: Mapping[str, Var]
    ) -> dict[str, Var]:
        found, norm = list(gradients.values()), None
        if clip_norm is not None:
            scale = given["loss_scale"] if scaled_by_input else None if loss_scale is False else float(loss_scale)
            found, norm = clip_by_global_norm(found, clip_norm, loss_scale=scale, mb=mb)
        results = {f"{prefix}{name}": var for name, var in zip(gradients, found, strict=True)}
        return results if norm is None else {**results, "gradient_norm": norm}

    inputs: Added = {"loss_scale": ((1,), "fp32")} if scaled_by_input else {}
    seed = seed_of_loss(loss, False if scaled_by_input else loss_scale)
    return differentiate(program, wrt, checkpoint, function, lambda _: inputs, seed, finish)


def vjp(
    program: Program,
    wrt: Iterable[str] | None = None,
    *,
    checkpoint: Checkpoint = None,
    function: str = "main",
    prefix: str = "grad_",
) -> Program:
    """The program that computes the outputs of ``program`` and, of gradients of these, those of its inputs.

    It has an input ``grad_y`` for each float output ``y``, behind the inputs of ``program``, and an output ``grad_x``
    for each ``x`` of ``wrt``: the product of ``grad_y`` and the Jacobian. For the rest see ``value_and_grad``.
    """
    with coremltools():
        outputs = function_of(program, function).outputs
        inputs: Added = {f"{prefix}{var.name}": (shape(var), dtype_name(var)) for var in outputs if is_float(var)}
    if any(not dims for dims, _ in inputs.values()):
        raise ShapeError("vjp: an output has rank 0, and inputs of rank 0 are not taken; make it (1,)")

    def seed(mb: Maker, outputs: Mapping[str, Var], given: Mapping[str, Var]) -> dict[str, Var]:
        return {name: given[f"{prefix}{name}"] for name in outputs if f"{prefix}{name}" in given}

    def finish(
        mb: Maker, gradients: Mapping[str, Var], weights: Mapping[str, Var], given: Mapping[str, Var]
    ) -> dict[str, Var]:
        return {f"{prefix}{name}": var for name, var in gradients.items()}

    return differentiate(program, wrt, checkpoint, function, lambda _: inputs, seed, finish)


def seed_of_loss(loss: str | None, scale: float | bool = False) -> Seed:
    """What the way back starts from: the gradient of one output of one element.

    It is ``scale``, and times the input ``loss_scale`` where there is one.
    """

    def seed(mb: Maker, outputs: Mapping[str, Var], given: Mapping[str, Var]) -> dict[str, Var]:
        name = next(iter(outputs)) if loss is None else loss
        if name not in outputs:
            raise ArgumentError(f"loss={name!r} is no output; the outputs are {', '.join(outputs)}")
        var = outputs[name]
        if not is_float(var):
            raise ArgumentError(f"the loss {name!r} is {dtype_name(var)}; only floats have gradients")
        if math.prod(shape(var)) != 1:
            raise ShapeError(
                f"the loss {name!r} has the shape {shape(var)}; a gradient is of one number: reduce it, or use anex.vjp"
            )
        if "loss_scale" in given:
            dy = mb.reshape(x=given["loss_scale"], shape=[1] * max(1, len(shape(var))))
            dy = dy if shape(var) else mb.squeeze(x=dy, axes=[0])
            return {name: mb.cast(x=dy, dtype=dtype_name(var))}
        value = 1.0 if scale is False else float(scale)
        if dtype_name(var) == "fp16" and value > FLOAT16:
            raise ArgumentError(
                f"loss_scale={value:g}: the loss {name!r} is float16, which ends at {FLOAT16:g}; cast it to fp32, or "
                "scale by less"
            )
        return {name: mb.const(val=constant_like(var, np.full(shape(var), value)))}

    return seed


def is_positive(given: Any) -> bool:
    return isinstance(given, (int, float, np.integer, np.floating)) and 0 < float(given) < math.inf


def function_of(program: Any, name: str) -> Function:
    functions = getattr(program, "functions", None)
    if not isinstance(functions, dict):
        raise ArgumentError(
            f"a MIL program is differentiated, not a {type(program).__name__}; anex.graph makes one of a function, "
            "anex.from_torch(.., trainable=True) of a torch module"
        )
    if name not in functions:
        raise ArgumentError(f"the program has no function {name!r}; it has {', '.join(functions)}")
    found: Function = functions[name]
    return found


def differentiate(
    program: Program,
    wrt: Iterable[str] | None,
    checkpoint: Checkpoint,
    function: str,
    added: Callable[[Mapping[str, Var]], Added],
    seed: Seed,
    finish: Finish,
) -> Program:
    """``program`` with inputs ``added(weights)``, and as further outputs what ``finish`` makes of the gradients.

    ``seed(mb, outputs, added)``: gradients of outputs by name. ``finish(mb, gradients, weights, added)``: new outputs.
    """
    with coremltools():
        from coremltools.converters.mil.mil import Builder, Function, Program, types

        source = function_of(program, function)
        names = _wrt(source, wrt)
        save = _policy(source, checkpoint)
        _coremltools.restart_names()
        more = added({name: source.inputs[name] for name in names})
        given = placeholders(source)
        for name, (dims, dtype) in more.items():
            if name in given:
                raise ArgumentError(f"the program has an input {name!r} already; call it something else, as by prefix=")
            given[name] = Builder.placeholder(dims, dtype=types.string_to_builtin(dtype))
        result = Program()
        mb = Maker()
        with Function(given, source.opset_version) as main, constants_follow(Builder, types):
            env = {var: main.inputs[name] for name, var in source.inputs.items()}
            replay(source.operations, env)
            outputs = {var.name: env[var] for var in source.outputs}
            extra = {name: main.inputs[name] for name in more}
            leaves = {name: source.inputs[name] for name in names}
            adjoints = Adjoints(mb)
            by_name = {var.name: var for var in source.outputs}
            for name, dy in seed(mb, outputs, extra).items():
                adjoints.add(by_name[name], dy)
            wanted = dependents(source.operations, leaves.values())
            Reverse(mb, Values(env, save), wanted).run(list(source.operations), adjoints)
            found = {name: adjoints.take(var) for name, var in leaves.items()}
            weights = {name: main.inputs[name] for name in names}
            gradients = {name: zeros_like(mb, weights[name]) if dx is None else dx for name, dx in found.items()}
            main.set_outputs(_named(mb, outputs, finish(mb, gradients, weights, extra)))
        result.add_function("main", main)
        _coremltools.legalise(result)
        _coremltools.validate(result)
        return result


def _named(mb: Maker, outputs: Mapping[str, Var], results: Mapping[str, Var]) -> list[Var]:
    """All outputs; those of ``results`` under their names, and each a Var of its own."""
    named = list(outputs.values())
    for name, var in results.items():
        if name in outputs:
            raise ArgumentError(f"the program has an output {name!r} already; call it something else, as by prefix=")
        if var in named or var.op is None or var.op.op_type == "const":
            var = mb.identity(x=var, name=name)
        var.name = name
        named.append(var)
    return named


def _wrt(source: Function, wrt: Iterable[str] | None) -> list[str]:
    floats = [name for name, var in source.inputs.items() if is_float(var) and not _is_state(var)]
    if isinstance(wrt, str):
        raise ArgumentError(f"wrt={wrt!r}: a list of names")
    if wrt is not None and not isinstance(wrt, Iterable):
        raise ArgumentError(f"wrt={wrt!r}: a list of names of inputs ({', '.join(floats)})")
    names = floats if wrt is None else list(wrt)
    for name in names:
        if name not in source.inputs:
            raise ArgumentError(
                f"wrt: {name!r} is no input; the float inputs are {', '.join(floats)} (weights to train are inputs, "
                "not constants)"
            )
        if name not in floats:
            raise ArgumentError(f"wrt: {name!r} is {dtype_name(source.inputs[name])}; only floats have gradients")
    if not names or len(set(names)) < len(names):
        raise ArgumentError(f"wrt names no input, or one twice: {', '.join(names) or 'none'}")
    for var in source.inputs.values():
        if not all(isinstance(dim, int) or hasattr(dim, "__index__") for dim in var.shape or ()):
            raise UnsupportedError(f"input {var.name!r} has a dynamic shape; gradients are of fixed shapes")
    return names


def _is_state(var: Var) -> bool:
    from coremltools.converters.mil.mil import types

    return bool(types.is_state(var.sym_type))


def _policy(source: Function, checkpoint: Checkpoint) -> Callable[[Operation], bool]:
    if checkpoint is None:
        return lambda op: True
    if callable(checkpoint):
        return checkpoint
    if checkpoint == "products":
        return lambda op: op.op_type in PRODUCTS
    if isinstance(checkpoint, str) or not isinstance(checkpoint, Iterable):
        raise ArgumentError(f"checkpoint={checkpoint!r} is neither 'products', nor a list of names, nor a function")
    kept = set(checkpoint)
    known = {var.name for op in source.operations for var in op.outputs}
    if unknown := sorted(kept - known):
        raise ArgumentError(f"checkpoint: no op gives {', '.join(unknown)}")
    return lambda op: any(var.name in kept for var in op.outputs)
