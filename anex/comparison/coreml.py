"""Core ML itself as one of two sides: the public framework, through coremltools, on macOS."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from .._coremltools import coremltools
from ..errors import DeviceError, UnsupportedError
from ..ops import dtype_name
from ..store import save
from .runs import Arrays, Side

if TYPE_CHECKING:
    from coremltools.converters.mil.mil import Var

PORTS = {"fp16": "float16", "fp32": "float32", "int32": "int32"}  # the dtypes Core ML returns


def require() -> None:
    """``UnsupportedError`` where coremltools cannot run models, which is everywhere but on macOS."""
    with coremltools():
        from coremltools.models import model

        if model._MLModelProxy is None:
            raise UnsupportedError(
                "'coreml' runs Core ML itself, which needs macOS; here you can compare with 'cpu-fp32' or 'cpu-strict'"
            )


class CoreMLSide(Side):
    """A program that Core ML runs on CPU and Neural Engine; ``options``: {"compute_units": ...}."""

    def values(self, wanted: Sequence[Var], given: Mapping[str, np.ndarray]) -> Arrays:
        return super().values([var for var in wanted if dtype_name(var) in PORTS], given)

    def _run(self, given: Mapping[str, np.ndarray]) -> Arrays:
        from ..program import is_state

        if any(map(is_state, self.function.inputs.values())):
            raise UnsupportedError("programs with states are not compared with Core ML; make them inputs and outputs")
        with coremltools() as ct, tempfile.TemporaryDirectory(prefix="anex-") as folder:
            package = Path(folder, "model.mlpackage")
            save(self.program, package)
            units = self.options.get("compute_units", "CPU_AND_NE")
            arguments = {name: _taken(given[name]) for name in self.function.inputs}
            try:
                model = ct.models.MLModel(str(package), compute_units=ct.ComputeUnit[units])
                results: Mapping[str, Any] = model.predict(arguments)
            except Exception as error:  # whatever the framework says, it says as RuntimeError or NSException
                raise DeviceError(f"Core ML failed: {error}") from error
            if missing := [var.name for var in self.function.outputs if var.name not in results]:
                raise DeviceError(f"Core ML returned no {', '.join(missing)}")
            return {
                var.name: np.asarray(results[var.name]).reshape(var.shape).astype(PORTS.get(dtype_name(var), "float32"))
                for var in self.function.outputs
            }


def _taken(array: np.ndarray) -> np.ndarray:
    """As Core ML takes it: what is neither a float nor an int32 comes in as int32."""
    return array if array.dtype.name in PORTS.values() else array.astype(np.int32)
