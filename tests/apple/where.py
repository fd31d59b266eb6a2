"""Prints where coremltools keeps its tests, without importing it: of operators ("ops"), of the torch frontend ("torch")."""

import sys
from importlib.util import find_spec
from pathlib import Path

FILES = {"ops": "mil/ops/tests/iOS*/test_*.py", "torch": "mil/frontend/torch/test/test_torch_*ops.py"}
spec = find_spec("coremltools")
assert spec is not None
assert spec.origin is not None
print(*sorted((Path(spec.origin).parent / "converters").glob(FILES[sys.argv[1]])))
