"""Names that the package's doctests use."""

import pytest


@pytest.fixture(autouse=True)
def _doctest_names(doctest_namespace):
    import numpy as np

    import anex
    from anex import mb

    doctest_namespace.update(anex=anex, np=np, mb=mb)
