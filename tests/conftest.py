"""Fixtures for every test: a device to run on, and random numbers that can be had again."""

import zlib

import numpy as np
import pytest
from mil_facts import sample

from anex import devices, store


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


@pytest.fixture(scope="module")
def program():
    """A MIL program with weights of several dtypes."""
    return sample()


@pytest.fixture
def package(program, tmp_path):
    """The same as an ``.mlpackage``."""
    store.save(program, tmp_path / "m.mlpackage")
    return tmp_path / "m.mlpackage"


@pytest.fixture
def folder(program, tmp_path):
    """The same as a folder of MIL text and weights."""
    store.save(program, tmp_path / "m.mlmodelc")
    return tmp_path / "m.mlmodelc"
