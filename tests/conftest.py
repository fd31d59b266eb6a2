"""Fixtures for every test: a device to run on, and random numbers that can be had again."""

import zlib

import numpy as np
import pytest

from anex import devices


@pytest.fixture(params=devices.available())
def device(request):
    """Each device this machine can run programs on."""
    return request.param


@pytest.fixture
def rng(request):
    """Random numbers seeded by the test's own name, so that a failure repeats."""
    seed = zlib.crc32(request.node.nodeid.encode())
    print(f"rng seed {seed}")
    return np.random.default_rng(seed)
