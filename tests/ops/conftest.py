"""Every test of an operator runs on every device."""

from __future__ import annotations

import harness
import pytest

from anex import devices


def pytest_generate_tests(metafunc):
    """Once a device, unless the test's subject is the CPU engine itself: its instruction sets, threads, memory."""
    about_the_engine = "isa" in metafunc.fixturenames or metafunc.definition.get_closest_marker("cpu_engine")
    metafunc.parametrize("device", ["cpu"] if about_the_engine else devices.available(), indirect=True)


@pytest.fixture(autouse=True, scope="session")
def device(request):
    """The device that ``check`` and ``run`` take when they are told none."""
    harness.DEVICE = request.param
    return request.param
