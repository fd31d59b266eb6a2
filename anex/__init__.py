"""Program the Apple Neural Engine from Python, and run the same programs on any CPU.

>>> @anex.graph(x=(1, 2))
... def twice(x):
...     return mb.add(x=x, y=x, name="y")
>>> anex.compile(twice)(np.ones((1, 2), np.float16)).tolist()
[[2.0, 2.0]]
"""

from . import mil
from ._native import get_num_threads, set_num_threads
from .build import from_torch, graph
from .errors import (
    AllocationError,
    ArgumentError,
    ClosedError,
    CompileError,
    DeviceError,
    DTypeError,
    Error,
    FormatError,
    MissingFileError,
    ShapeError,
    UnsupportedError,
    ViewError,
)
from .load import from_mil, from_mlpackage
from .program import Program, compile
from .spec import Spec, spec
from .tensor import Tensor, empty, empty_like, from_dlpack, full, ones, tensor, zeros

__version__ = "0.1.0"

__all__ = [
    "AllocationError",
    "ArgumentError",
    "ClosedError",
    "CompileError",
    "DTypeError",
    "DeviceError",
    "Error",
    "FormatError",
    "MissingFileError",
    "Program",
    "ShapeError",
    "Spec",
    "Tensor",
    "UnsupportedError",
    "ViewError",
    "__version__",
    "compile",
    "empty",
    "empty_like",
    "from_dlpack",
    "from_mil",
    "from_mlpackage",
    "from_torch",
    "full",
    "get_num_threads",
    "graph",
    "mil",
    "ones",
    "set_num_threads",
    "spec",
    "tensor",
    "zeros",
]
