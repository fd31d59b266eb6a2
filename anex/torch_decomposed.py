"""Modules of ops that coremltools does not convert, exported by torch and taken apart into ops that it does."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, TypeAlias

Table: TypeAlias = "dict[Any, Callable[..., Any]]"  # of ops: what computes the same


def decomposed(module: Any, tensors: Sequence[Any]) -> Any:
    """The ``ExportedProgram`` of a module run with these tensors, in torch's core ops."""
    import torch

    return taken_apart(torch.export.export(module, tuple(tensors), strict=False))


def taken_apart(exported: Any) -> Any:
    """An ``ExportedProgram`` in torch's core ops, and what is left of them that coremltools has not."""
    import torch

    return exported.run_decompositions({**torch.export.default_decompositions(), **_factors(torch), **_missing(torch)})


def readable(exported: Any) -> Any:
    """An ``ExportedProgram`` in the dialect that coremltools reads, without the factors that it does not look at."""
    import torch

    factors = _factors(torch)
    if exported.dialect == "TRAINING" or any(node.target in factors for node in exported.graph.nodes):
        return exported.run_decompositions(factors)
    return exported


def _factors(torch: Any) -> Table:
    """Ops with factors, of which coremltools reads none: left as they are where these are 1."""
    aten = torch.ops.aten

    def add(x: Any, y: Any, *, alpha: Any = 1) -> Any:
        return NotImplemented if alpha == 1 else x + y * alpha

    def sub(x: Any, y: Any, *, alpha: Any = 1) -> Any:
        return NotImplemented if alpha == 1 else x - y * alpha

    def rsub(x: Any, y: Any, alpha: Any = 1) -> Any:
        return NotImplemented if alpha == 1 else x * -alpha + y

    def elu(x: Any, alpha: Any = 1, scale: Any = 1, input_scale: Any = 1) -> Any:
        if scale == input_scale == 1:
            return NotImplemented
        return scale * torch.where(x > 0, x, alpha * ((x * input_scale).exp() - 1))

    return {
        aten.add.Tensor: add, aten.sub.Tensor: sub, aten.rsub.Scalar: rsub, aten.rsub.Tensor: rsub,
        aten.elu.default: elu,
    }  # fmt: skip


def _missing(torch: Any) -> Table:
    """What neither torch takes apart nor coremltools has."""
    aten = torch.ops.aten

    def prod(x: Any, dim: int, keepdim: bool = False, *, dtype: Any = None) -> Any:
        found, *others = (x if dtype is None else x.to(dtype)).unbind(dim)
        for other in others:
            found = found * other
        return found.unsqueeze(dim) if keepdim else found

    return {
        aten.lerp.Scalar: lambda x, y, weight: x + weight * (y - x),
        aten.lerp.Tensor: lambda x, y, weight: x + weight * (y - x),
        aten.trunc.default: lambda x: torch.where(x < 0, x.ceil(), x.floor()),
        aten.isinf.default: lambda x: x.abs() == float("inf"),
        aten.asinh.default: lambda x: x.sign() * (x.abs() + (x * x + 1).sqrt()).log(),
        aten.acosh.default: lambda x: (x + (x * x - 1).sqrt()).log(),
        aten.erfc.default: lambda x: 1 - x.erf(),
        aten.prod.dim_int: prod,
    }
