"""Prints where coremltools keeps its operator tests, without importing it."""

from importlib.util import find_spec
from pathlib import Path

spec = find_spec("coremltools")
assert spec is not None
assert spec.origin is not None
print(*sorted((Path(spec.origin).parent / "converters/mil/mil/ops/tests").glob("iOS*/test_*.py")))
