"""Prints where coremltools keeps its tests, without importing it: "ops" of operators, "torch" of the torch frontend."""

import sys
from importlib.util import find_spec
from pathlib import Path

FILES = {"ops": "mil/mil/ops/tests/iOS*/test_*.py", "torch": "mil/frontend/torch/test/test_torch_*ops.py"}

if __name__ == "__main__":
    spec = find_spec("coremltools")
    assert spec is not None
    assert spec.origin is not None
    print(*sorted((Path(spec.origin).parent / "converters").glob(FILES[sys.argv[1]])))
