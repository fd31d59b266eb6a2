"""The mark of tests that run programs on ``device="ane"``."""

import pytest

from anex import devices

needs_ane = pytest.mark.skipif("ane" not in devices.available(), reason="the binding was built without Objective-C")
