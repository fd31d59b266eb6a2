"""Program the Apple Neural Engine from Python, and run the same programs on any CPU.

>>> @anex.graph(x=(1, 2))
... def twice(x):
...     return mb.add(x=x, y=x, name="y")
>>> anex.compile(twice)(np.ones((1, 2), np.float16)).tolist()
[[2.0, 2.0]]

Public names load their module at first use, so that importing anex costs a few milliseconds, not
numpy's time and coremltools' seconds.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from .errors import (
    AllocationError,
    AneWarning,
    ArgumentError,
    ClosedError,
    CompileError,
    CompileLimitError,
    DeviceError,
    DTypeError,
    Error,
    FormatError,
    MissingFileError,
    ShapeError,
    UnsupportedError,
    ViewError,
    WorkerError,
)
from .spec import Spec, spec

if TYPE_CHECKING:
    from coremltools.converters.mil import Builder as mb

    from . import attention, cache, cost, distributed, grad, mil, miltools, optim
    from ._native import Tensor, get_num_threads, set_num_threads
    from .build import graph
    from .creation import empty, empty_like, from_dlpack, full, ones, tensor, zeros
    from .devices.info import DeviceInfo, device_info
    from .dynamic import Packed, PingPong
    from .grad import training_step, value_and_grad, vjp
    from .load import from_mil, from_mlpackage
    from .placement import Explanation, explain, explain_op
    from .profiling import Profile
    from .program import Program, compile
    from .quantization import Quantized, quantize
    from .report import Report, profile
    from .state import State
    from .torch_frontend import from_torch
    from .torch_trainable import torch_weights
    from .verification import Verification, verify

__version__ = "0.1.0"

__all__ = [
    "AllocationError",
    "AneWarning",
    "ArgumentError",
    "ClosedError",
    "CompileError",
    "CompileLimitError",
    "DTypeError",
    "DeviceError",
    "DeviceInfo",
    "Error",
    "Explanation",
    "FormatError",
    "MissingFileError",
    "Packed",
    "PingPong",
    "Profile",
    "Program",
    "Quantized",
    "Report",
    "ShapeError",
    "Spec",
    "State",
    "Tensor",
    "UnsupportedError",
    "Verification",
    "ViewError",
    "WorkerError",
    "__version__",
    "attention",
    "cache",
    "compile",
    "cost",
    "device_info",
    "distributed",
    "empty",
    "empty_like",
    "explain",
    "explain_op",
    "from_dlpack",
    "from_mil",
    "from_mlpackage",
    "from_torch",
    "full",
    "get_num_threads",
    "grad",
    "graph",
    "mb",
    "mil",
    "miltools",
    "ones",
    "optim",
    "profile",
    "quantize",
    "set_num_threads",
    "spec",
    "tensor",
    "torch_weights",
    "training_step",
    "value_and_grad",
    "verify",
    "vjp",
    "zeros",
]

_MODULES = {
    "_native": ("Tensor", "get_num_threads", "set_num_threads"),
    "build": ("graph",),
    "devices.info": ("DeviceInfo", "device_info"),
    "creation": ("empty", "empty_like", "from_dlpack", "full", "ones", "tensor", "zeros"),
    "dynamic": ("Packed", "PingPong"),
    "grad": ("training_step", "value_and_grad", "vjp"),
    "load": ("from_mil", "from_mlpackage"),
    "placement": ("Explanation", "explain", "explain_op"),
    "profiling": ("Profile",),
    "program": ("Program", "compile"),
    "quantization": ("Quantized", "quantize"),
    "report": ("Report", "profile"),
    "state": ("State",),
    "torch_frontend": ("from_torch",),
    "torch_trainable": ("torch_weights",),
    "verification": ("Verification", "verify"),
}


def __getattr__(name: str) -> Any:
    if name in ("attention", "cache", "cost", "distributed", "grad", "mil", "miltools", "optim"):
        return importlib.import_module(f".{name}", __name__)
    if name == "mb":  # coremltools' MIL builder, loaded without its warnings
        return importlib.import_module("._coremltools", __name__).builder()
    for module, names in _MODULES.items():
        if name in names:
            found = importlib.import_module(f".{module}", __name__)
            globals().update({each: getattr(found, each) for each in names})
            return globals()[name]
    raise AttributeError(f"module 'anex' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
