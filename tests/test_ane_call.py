"""What stands between Python's call and the framework's evaluate: no allocation, no Python object of ours.

Every malloc, calloc and realloc of the calling thread is counted, from before the call until it has returned: Python's
(PYTHONMALLOC=malloc), ours, the Objective-C runtime's and Foundation's. The stand-in's evaluate is left out of it by
being empty.
"""

import ctypes
import functools
import json
import platform
import subprocess
import sys
from pathlib import Path

import lean
import pytest
from fake_ane import build
from fake_ane import control as fake_ane
from needs_ane import needs_ane

HERE = Path(__file__).parent
pytestmark = [
    needs_ane,
    pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="the counter takes glibc's malloc by name"),
    pytest.mark.skipif(bool(build.EXTRA), reason="a sanitizer has a heap of its own"),
]
CALLS = ["call_with_one_output", "call_with_a_tuple"]
RUNS = ["run_with_one_output", "run_with_a_tuple"]


@pytest.fixture(scope="module")
def found(tmp_path_factory):
    library = tmp_path_factory.mktemp("allocations") / "count.so"
    source = HERE / "allocations" / "count.c"
    subprocess.run(["cc", "-shared", "-fPIC", "-O2", "-Wall", "-Wextra", source, "-o", library], check=True)
    done = subprocess.run(
        [sys.executable, HERE / "allocations" / "loops.py"],
        env={
            **fake_ane.environment(),
            "LD_PRELOAD": str(library),
            "PYTHONMALLOC": "malloc",
            "PYTHONPATH": lean.path(HERE.parent, HERE),
        },
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def test_the_counter_sees_what_a_call_that_makes_its_output_takes(found):
    assert found["call_that_makes_its_output"]["thousand"] >= 1000


def test_every_call_reached_the_framework_and_nothing_was_computed(found):
    assert found["evaluations"] == 5 * (300 + 1000 + 1)
    assert found["runs"] == 0


@pytest.mark.parametrize("loop", CALLS + RUNS)
def test_a_thousand_calls_into_given_tensors_take_nothing_from_the_heap(found, loop):
    assert found[loop]["thousand"] == 0


@pytest.mark.parametrize("loop", RUNS)
def test_a_run_creates_no_python_object(found, loop):
    assert found[loop]["objects"] == 0


@pytest.mark.parametrize("loop", CALLS)
def test_a_call_creates_no_python_object_but_the_interpreters_own_arguments(found, loop):
    arguments_and_keywords = 3  # a tuple, a dict and the dict's keys: how CPython calls what is not a function
    assert found[loop]["objects"] <= arguments_and_keywords


@functools.cache
def send():
    function = ctypes.CDLL(str(fake_ane.path())).fake_ane_send
    function.restype, function.argtypes = None, [ctypes.c_int64]
    return function


def test_the_bare_message_that_calls_are_compared_with_is_one_evaluation_and_leaves_nothing():
    models = fake_ane.count("live_models")
    before = fake_ane.count("evaluations")
    with fake_ane.switched(empty_evaluate=True):
        send()(1000)
    assert fake_ane.count("evaluations") == before + 1000
    assert fake_ane.count("live_models") == models
