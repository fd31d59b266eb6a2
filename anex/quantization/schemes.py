"""The schemes of ``anex.quantize``: which of coremltools' passes run, in which order, with which configuration."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields
from typing import Any

import numpy as np

from ..errors import ArgumentError, UnsupportedError


@dataclass(frozen=True)
class Settings:
    """What the schemes leave open. ``block_size``: weights that share a scale, along the input channels.
    ``group_size``: output channels that share a palette. ``sparsity``: of 1, the weights that become zero.
    ``threshold``: tensors of no more elements stay as they are."""

    block_size: int = 32
    group_size: int = 32
    sparsity: float = 0.5
    threshold: int = 2048

    def __post_init__(self) -> None:
        for name in ("block_size", "group_size", "threshold"):
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, int) or value < (name != "threshold"):
                raise ArgumentError(f"{name}={value!r} is no whole number from {int(name != 'threshold')} on")
        if isinstance(self.sparsity, bool) or not isinstance(self.sparsity, (int, float)) or not 0 < self.sparsity < 1:
            raise ArgumentError(f"sparsity={self.sparsity!r} is no number between 0 and 1")

    @classmethod
    def of(cls, given: Mapping[str, Any]) -> Settings:
        known = [field.name for field in fields(cls)]
        if unknown := [name for name in given if name not in known]:
            raise ArgumentError(f"{', '.join(unknown)}: quantize's settings are {', '.join(known)}")
        return cls(**given)


Configure = Callable[[Any, Settings], Any]
"""From ``coremltools.optimize.coreml`` and the settings to the configuration of one op."""


@dataclass(frozen=True)
class Step:
    """One of coremltools' passes over weights. ``joint``: it compresses further what a step before has."""

    name: str
    configure: Configure
    joint: bool = False


@dataclass(frozen=True)
class Scheme:
    """``target``: the least opset. ``activations``: int8 activations too, which takes calibration."""

    name: str
    statement: str
    target: str
    steps: tuple[Step, ...]
    activations: bool = False


def _linear(dtype: str, granularity: str, mode: str = "linear_symmetric", *, joint: bool = False) -> Step:
    def configure(cto: Any, settings: Settings) -> Any:
        return cto.OpLinearQuantizerConfig(
            mode=mode, dtype=dtype, granularity=granularity, block_size=settings.block_size,
            weight_threshold=settings.threshold,
        )  # fmt: skip

    return Step("linear_quantize_weights", configure, joint)


def _palette(bits: int, granularity: str = "per_tensor", *, joint: bool = False) -> Step:
    def configure(cto: Any, settings: Settings) -> Any:
        return cto.OpPalettizerConfig(
            mode="custom", lut_function=_clusters(bits), granularity=granularity, group_size=settings.group_size,
            weight_threshold=settings.threshold,
        )  # fmt: skip

    return Step("palettize_weights", configure, joint)


def _clusters(bits: int) -> Callable[[np.ndarray], tuple[np.ndarray, np.ndarray]]:
    """coremltools' k-means in one dimension, which is exact: its other one, of scikit-learn, depends on chance."""

    def clusters(weight: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        from coremltools.models.neural_network import quantization_utils

        if not quantization_utils._HAS_KMEANS1D:
            raise UnsupportedError("palettes need kmeans1d: pip install 'anex[quantize]'")
        wide = np.asarray(weight, np.float32).ravel()  # numpy 2.3 leaves some float16 arrays unsorted
        table, indices = quantization_utils._get_kmeans_lookup_table_and_weight(bits, wide, force_kmeans1d=True)
        return table.astype(weight.dtype), indices.astype(np.uint8)

    return clusters


def _prune() -> Step:
    def configure(cto: Any, settings: Settings) -> Any:
        return cto.OpMagnitudePrunerConfig(target_sparsity=float(settings.sparsity),
                                           weight_threshold=settings.threshold)  # fmt: skip

    return Step("prune_weights", configure)


_INT8 = _linear("int8", "per_channel")
SCHEMES: Mapping[str, Scheme] = {
    each.name: each
    for each in (
        Scheme("int8", "int8 weights, one scale for each output channel", "iOS16", (_INT8,)),
        Scheme("int8-affine", "the same with zero points", "iOS16", (_linear("int8", "per_channel", "linear"),)),
        Scheme("int8-tensor", "int8 weights, one scale for each tensor", "iOS16", (_linear("int8", "per_tensor"),)),
        Scheme("int8-tensor-affine", "the same with a zero point", "iOS16",
               (_linear("int8", "per_tensor", "linear"),)),
        Scheme("int4", "int4 weights, one scale for each block of input channels", "iOS18",
               (_linear("int4", "per_block"),)),
        Scheme("int4-channel", "int4 weights, one scale for each output channel", "iOS18",
               (_linear("int4", "per_channel"),)),
        Scheme("palette4", "indices of 4 bits into a palette of 16 for each tensor", "iOS16", (_palette(4),)),
        Scheme("palette4-grouped", "indices of 4 bits, a palette for each group of output channels", "iOS18",
               (_palette(4, "per_grouped_channel"),)),
        Scheme("palette6", "indices of 6 bits into a palette of 64 for each tensor", "iOS16", (_palette(6),)),
        Scheme("palette8", "indices of 8 bits into a palette of 256 for each tensor", "iOS16", (_palette(8),)),
        Scheme("sparse", "the smallest weights left out", "iOS16", (_prune(),)),
        Scheme("sparse-int8", "the smallest weights left out, the others int8", "iOS18",
               (_prune(), _linear("int8", "per_channel", joint=True))),
        Scheme("sparse-palette4", "the smallest weights left out, the others 4-bit indices", "iOS18",
               (_prune(), _palette(4, joint=True))),
        Scheme("palette4-int8", "indices of 4 bits into a palette of int8", "iOS18",
               (_palette(4), _linear("int8", "per_tensor", joint=True))),
        Scheme("w8a8", "int8 weights and int8 activations", "iOS17", (_INT8,), activations=True),
    )
}  # fmt: skip


def scheme(name: str) -> Scheme:
    if name not in SCHEMES:
        raise ArgumentError(f"scheme {name!r} is none of {', '.join(SCHEMES)}")
    return SCHEMES[name]
