"""Names that the package's doctests use."""

import sys

import pytest

# Programs of their own: one with count.c preloaded, those that Python runs at its start.
collect_ignore = ["tests/allocations/loops.py"]
collect_ignore += [f"tests/{folder}/sitecustomize.py" for folder in ("children", "distributed_site")]
if sys.platform == "darwin":  # these cross-compile on Linux, or look at what is shipped for it
    collect_ignore += [f"tests/test_{name}.py" for name in ("arm64", "macos_wheel", "plain_wheel")]


@pytest.fixture(autouse=True)
def _doctest_names(doctest_namespace):
    import numpy as np

    import anex
    from anex import mb

    doctest_namespace.update(anex=anex, np=np, mb=mb)
