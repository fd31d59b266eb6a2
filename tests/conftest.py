"""Fixtures for every test: a device to run on, and random numbers that can be had again.

What the Neural Engine's rules refuse is listed by name when the tests end.
"""

# ruff: noqa: E402 - the environment first

import os
import shutil
import tempfile
import zlib
from collections import Counter

from fake_ane import build, control

# Before anex is imported: the stand-in is the Neural Engine, and its notes are not the user's. GNUstep takes its
# temporary directory, and so the stand-in its files, from TEMP; each worker of a test run has its own, of which
# nothing is left when the tests end.
_temporary = tempfile.TemporaryDirectory(prefix="anex-tests-", ignore_cleanup_errors=True)
os.environ["TEMP"] = _temporary.name
os.environ["ANEX_CACHE_DIR"] = f"{_temporary.name}/notes"
os.environ["ANEX_HOME"] = f"{_temporary.name}/answers"
# torch's threads, of several workers on a few cores, spend most of their time on waiting for each other.
os.environ["OMP_NUM_THREADS"] = "1"
if "ANEX_ANE_FRAMEWORK" not in os.environ and shutil.which(build.COMPILER):
    os.environ["ANEX_ANE_FRAMEWORK"] = str(build.build())

import lean
import numpy as np
import pytest
import refused
from mil_facts import sample

from anex import UnsupportedError, _native, devices, store

#: Files whose time is not in the number of their tests, the longest first. Begun last, such a one would keep one worker
#: busy when the others have nothing left. Those that build wait for each other: other files stand between them.
LONG = (
    "macos_wheel", "gpt2", "program", "ane_never", "arm64", "soak", "dash_runs", "ane_isolate", "bench_all", "selftest",
    "plain_wheel", "distributed", "torch_training", "dash_command", "stories_parallel", "minilm", "ane_call", "tensor",
    "calibration", "source", "models", "models_more", "batch_inference",
)  # fmt: skip


def pytest_configure(config):
    """What tests start imports coremltools in a quarter of the time. pytest's own workers are none of these."""
    if hasattr(config, "workerinput") or not config.getoption("numprocesses", None):
        os.environ["PYTHONPATH"] = lean.path(os.environ.get("PYTHONPATH"))


@pytest.fixture(scope="module", autouse=True)
def _nothing_was_asked():
    """Answers to probes of another file's tests would settle this one's rules, depending on which worker ran it."""
    shutil.rmtree(os.environ["ANEX_HOME"], ignore_errors=True)


def pytest_collection_modifyitems(items):
    """Long files first, then those of many tests: ``--dist loadfile`` hands them out in this order."""
    tests, places = Counter(item.path for item in items), {name: place for place, name in enumerate(LONG)}

    def turn(item):
        return places.get(item.path.stem.removeprefix("test_"), len(LONG)), -tests[item.path], str(item.path)

    items.sort(key=turn)


@pytest.fixture(autouse=True)
def _any_number_of_compilations():
    """A process may compile 119 programs for the Neural Engine; the tests of that set their own limits."""
    if "ane" in devices.available():
        control.put("compile_limit", 0)
        _native.ane_set_limits(0, _native.ane_account()["load_limit"])


@pytest.fixture(params=devices.available(), scope="session")
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


@pytest.hookimpl(wrapper=True)
def pytest_pyfunc_call(pyfuncitem):
    """A refusal by rule ends the test, if it stands in the list of refusals: nothing is skipped silently."""
    try:
        return (yield)
    except UnsupportedError as error:
        on_ane = pyfuncitem.funcargs.get("device") == "ane"
        found = refused.rules_of(str(error)) if on_ane else []
        if not found or not refused.RULES.issuperset(found):
            raise
        pyfuncitem.user_properties += [("refused", f"{op}: {rule}") for op, rule in found]
        return True


def pytest_terminal_summary(terminalreporter):
    names = [value for each in terminalreporter.stats.get("passed", []) for key, value in each.user_properties]
    if names:
        terminalreporter.section("ops refused by the Neural Engine's rules (op: rule, times)")
        for name in sorted(set(names)):
            terminalreporter.line(f"{name} {names.count(name)}")
