"""The parameters of a torch module as inputs of its MIL program, for training.

torch traces the module with tensors of the caller's in the place of its parameters; ops that Core ML has with constant
weights only are made of others where coremltools builds them (or in torch: ``torch_plain``).
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from . import _coremltools
from .errors import ArgumentError
from .ops.conv_vjp import turned
from .ops.shape_vjp import spread
from .ops.windows import Window, over_all
from .torch_mended import faithful, value, varies

if TYPE_CHECKING:
    from coremltools.converters.mil.mil import Var


def torch_weights(module: Any, /) -> dict[str, np.ndarray]:
    """The parameters of a torch module by the names that ``from_torch(..., trainable=True)`` gives their inputs.

    Those are torch's names with "_" for "."; arrays share memory with the parameters where these are on the CPU, so
    that what is written into them is in the module.

    >>> import torch
    >>> {name: array.shape for name, array in torch_weights(torch.nn.Linear(8, 4)).items()}
    {'weight': (4, 8), 'bias': (4,)}
    """
    found: dict[str, np.ndarray] = {}
    for name, parameter in parameters_of(module).items():
        plain = parameter.detach().cpu()
        found[name] = (plain if str(plain.dtype) != "torch.bfloat16" else plain.float()).numpy()
    return found


def parameters_of(module: Any) -> dict[str, Any]:
    """Each floating parameter once, by the name of its input."""
    found: dict[str, Any] = {}
    for name, parameter in module.named_parameters():
        if not parameter.is_floating_point():
            continue
        wanted = _coremltools.legal_name(name.replace(".", "_"))
        if wanted in found:
            raise ArgumentError(f"two parameters would be the input {wanted!r}, the latter {name!r}: rename one")
        found[wanted] = parameter
    return found


@contextlib.contextmanager
def in_place_of_parameters(module: Any, tensors: Mapping[int, Any]) -> Iterator[None]:
    """Within the block, parameters are ``tensors``, by the ``id`` of the parameter, wherever they are used."""
    before = [(part, dict(part._parameters)) for part in module.modules()]
    try:
        for part, parameters in before:
            for name, parameter in parameters.items():
                if id(parameter) in tensors:
                    delattr(part, name)
                    setattr(part, name, tensors[id(parameter)])
        yield
    finally:
        for part, parameters in before:
            for name, parameter in parameters.items():
                if id(parameter) in tensors:
                    with contextlib.suppress(AttributeError):  # what failed before its turn
                        delattr(part, name)
            part._parameters.clear()
            for name, parameter in parameters.items():
                part.register_parameter(name, parameter)
                if id(parameter) in tensors:
                    setattr(part, name, parameter)  # recurrent layers keep a list beside


# ---- ops of the builder whose weights are constants ----------------------------------------------------------------


CONSTANT = {
    "conv": ("bias",),  # and a weight whose taps are apart
    "conv_transpose": ("weight", "bias"),
    "layer_norm": ("gamma", "beta"),
    "instance_norm": ("gamma", "beta"),
    "batch_norm": ("gamma", "beta"),
}
"""By op: what Core ML has constant, and may vary here."""


@contextlib.contextmanager
def mended(builder: Any, *, trainable: bool) -> Iterator[None]:
    """Within the block, the builder makes of ops what torch means (``torch_mended``).

    With ``trainable``, reductions of all axes name them, without which a pass fails, ReLU6 is itself, and tensors that
    are no constants are taken for the weights of ``CONSTANT``. As in ``build.constants_follow``, its ``_add_op`` is
    wrapped.
    """
    original = builder.__dict__.get("_add_op")
    if original is None:
        yield
        return

    def add_op(cls: Any, op: Any, /, **arguments: Any) -> Any:
        made = faithful(builder, op, arguments)
        if made is None and trainable:
            made = _made(builder, op, arguments)
        if made is not None:
            return made
        return original.__get__(None, cls)(op, **arguments)

    builder._add_op = classmethod(add_op)
    try:
        yield
    finally:
        builder._add_op = original


def _made(mb: Any, op: Any, arguments: dict[str, Any]) -> Any:
    """The op made of others; None where it is fine, which may change ``arguments``."""
    name = op.__name__
    if name == "clip" and (value(arguments["alpha"]), value(arguments["beta"])) == (0, 6):
        return mb.relu6(x=arguments["x"], name=arguments["name"])  # whose slope is torch's at 0 and 6
    if name.startswith("reduce_") and arguments.get("axes") is None and hasattr(arguments["x"], "shape"):
        arguments["axes"] = list(range(len(arguments["x"].shape)))
    varying = any(varies(arguments.get(each)) for each in CONSTANT.get(name, ()))
    if name == "conv" and varies(arguments["weight"]) and not _are_one(arguments.get("dilations")):
        varying = True
    if not varying:
        return None
    made = MAKERS[name](mb, **{each: given for each, given in arguments.items() if given is not None})
    made.op.name = made.name = arguments["name"]
    return made


def _are_one(dilations: Any) -> bool:
    return dilations is None or bool(np.all(np.asarray(value(dilations)) == 1))


def _conv(mb: Any, weight: Any, bias: Any = None, dilations: Any = None, name: str = "", **rest: Any) -> Var:
    """``bias``: [channels]"""
    return _scaled(mb, mb.conv(weight=_apart(mb, weight, dilations), **rest), None, bias)


def _apart(mb: Any, weight: Any, dilations: Any) -> Any:
    """With zeros between the taps in place of a dilation, which Core ML has for constant weights only."""
    for i, dilation in enumerate(value(dilations) if dilations is not None else ()):
        weight = spread(mb, weight, 2 + i, int(dilation))
    return weight


def _conv_transpose(
    mb: Any, x: Any, weight: Any, bias: Any = None, strides: Any = None, dilations: Any = None, groups: Any = 1,
    pad_type: Any = "valid", pad: Any = None, name: str = "",
) -> Var:  # fmt: skip
    """A convolution of ``x`` with zeros between; ``weight`` [in, out / groups, taps..]."""
    rank, groups, weight = len(x.shape) - 2, int(value(groups)), _apart(mb, weight, dilations)
    steps = [1] * rank if strides is None else [int(n) for n in value(strides)]
    around = [int(n) for n in value(pad)] if str(value(pad_type)) == "custom" else [0] * 2 * rank
    space = []
    for i, (n, size) in enumerate(zip(x.shape[2:], weight.shape[2:], strict=True)):
        before, after = around[2 * i : 2 * i + 2]
        extent = (n - 1) * steps[i] + size - before - after
        space.append(Window(int(extent), int(n), int(size), steps[i], 1, before, after))
    return _scaled(mb, over_all(mb, x, turned(mb, weight, groups), space, groups), None, bias)


def _layer_norm(mb: Any, x: Any, axes: Any, gamma: Any = None, beta: Any = None, name: str = "", **rest: Any) -> Var:
    y = mb.layer_norm(x=x, axes=axes, **rest)
    rank = len(x.shape)
    over = {int(axis) % rank for axis in value(axes)}
    shape = [int(n) if i in over else 1 for i, n in enumerate(x.shape)]
    for op, values in ((mb.mul, gamma), (mb.add, beta)):
        if values is not None:
            y = op(x=y, y=mb.reshape(x=values, shape=shape))
    return y


def _instance_norm(mb: Any, gamma: Any = None, beta: Any = None, name: str = "", **rest: Any) -> Var:
    return _scaled(mb, mb.instance_norm(**rest), gamma, beta)


def _batch_norm(
    mb: Any, x: Any, mean: Any, variance: Any, gamma: Any = None, beta: Any = None, epsilon: Any = 1e-5, name: str = ""
) -> Var:
    """(x - mean) / sqrt(variance + epsilon) gamma + beta, with constants for mean and variance."""
    shape = [-1] + [1] * (len(x.shape) - 2)
    mean, variance = (np.asarray(value(given)).reshape(shape) for given in (mean, variance))
    scale = 1 / np.sqrt(variance.astype(np.float64) + float(value(epsilon)))
    y = mb.mul(x=mb.add(x=x, y=-mean), y=scale.astype(mean.dtype))
    return _scaled(mb, y, gamma, beta)


def _scaled(mb: Any, y: Any, gamma: Any, beta: Any) -> Any:
    for op, values in ((mb.mul, gamma), (mb.add, beta)):
        if values is not None:
            y = op(x=y, y=mb.reshape(x=values, shape=[1, -1] + [1] * (len(y.shape) - 2)))
    return y


MAKERS: dict[str, Callable[..., Any]] = {
    "conv": _conv, "conv_transpose": _conv_transpose, "layer_norm": _layer_norm, "instance_norm": _instance_norm,
    "batch_norm": _batch_norm,
}  # fmt: skip
