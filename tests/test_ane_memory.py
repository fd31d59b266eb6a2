"""IOSurfaces as memory: zeroed, large enough, told of every access, shared between processes, gone when closed."""

import ctypes
import os
import subprocess
import sys
import threading
import time
from pathlib import Path

import lean
import numpy as np
import pytest
from ane_native import Failure, Memory, call, native, scaled
from fake_ane import control as fake

X = np.arange(128, dtype="float16").reshape(1, 4, 1, 32)


@pytest.fixture(autouse=True)
def opened():
    """Surfaces are made once the framework is open; and no test may leave a lock or a pool out."""
    call("ane_open")
    before = {name: fake.count(name) for name in COUNTED}
    yield
    assert {name: fake.count(name) for name in COUNTED} == before


def elsewhere(script, *arguments, **environment):
    """What a process of its own prints."""
    tests = Path(__file__).parent
    environment = {"PYTHONPATH": lean.path(tests.parent, tests), fake.VARIABLE: str(fake.path()), **environment}
    command = [sys.executable, "-c", script, *arguments]
    done = subprocess.run(command, env={**os.environ, **environment}, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


WRITE_SEVENS = """
import sys
from ane_native import *

memory = Memory.of_surface(int(sys.argv[1]))
with memory.locked():
    ctypes.memset(native.anex_memory_data(memory.handle), 7, 16)
"""

COUNTED = ("messages_without_pool", "unlocked_writes", "evaluated_locked", "unbalanced_unlocks", "live_surfaces")


@pytest.mark.parametrize("nbytes", [1, 49152, 49153, 1 << 20])
def test_memory_is_a_zeroed_surface_of_whole_pages_and_at_least_48_kilobytes(nbytes):
    memory = Memory.new(nbytes)
    assert memory.surface_id > 0
    assert memory.nbytes >= max(nbytes, 49152)
    assert memory.nbytes % 16384 == 0
    with memory.locked():
        data = ctypes.string_at(native.anex_memory_data(memory.handle), memory.nbytes)
    assert not any(data)


def test_absurd_sizes_are_refused():
    with pytest.raises(Failure, match="MEMORY: no memory for a tensor"):
        Memory.new(1 << 60)


def test_a_view_that_is_locked_for_long_is_unlocked_for_each_run_only():
    program, function = scaled(200)
    memories = function.memories()
    x, y = memories
    with x.locked(), x.locked(), y.locked():
        x_view, y_view = (m.view(port.tensor) for m, port in zip(memories, function.ports, strict=True))
        for i in range(3):
            x_view[...] = X + i
            function.run(memories)
            np.testing.assert_array_equal(y_view, (X + np.float16(i)) * np.float16(200))
    program.close()


def test_runs_that_overlap_leave_a_locked_view_as_it_was():
    (first, double), (second, triple) = scaled(201), scaled(202)
    shared = double.memories()[0]
    double.fill([shared], X)
    outputs = double.memories()[1], triple.memories()[1]
    with shared.locked(), fake.switched(evaluate="slow:5"):
        jobs = [
            threading.Thread(target=lambda f=f, y=y: [f.run([shared, y]) for _ in range(10)])
            for f, y in ((double, outputs[0]), (triple, outputs[1]))
        ]
        for job in jobs:
            job.start()
        while any(job.is_alive() for job in jobs):
            with shared.locked():
                time.sleep(0.001)
        for job in jobs:
            job.join()
    np.testing.assert_array_equal(double.read([shared, outputs[0]])[0], X * np.float16(201))
    np.testing.assert_array_equal(triple.read([shared, outputs[1]])[0], X * np.float16(202))
    first.close(), second.close()


def test_a_failed_run_gives_the_lock_back():
    program, function = scaled(203)
    memories = function.memories()
    with memories[0].locked():
        for fault in ("no", "throw"):
            with fake.switched(evaluate=fault), pytest.raises(Failure):
                function.run(memories)
        memories[0].view(function.ports[0].tensor)[...] = X
        function.run(memories)
    np.testing.assert_array_equal(function.read(memories)[0], X * np.float16(203))
    program.close()


def test_a_surface_is_found_by_its_number_here_and_in_another_process():
    memory = Memory.new(64)
    again = Memory.of_surface(memory.surface_id)
    assert again.nbytes == memory.nbytes
    elsewhere(WRITE_SEVENS, str(memory.surface_id))
    for one in (memory, again):
        with one.locked():
            assert ctypes.string_at(native.anex_memory_data(one.handle), 17) == b"\7" * 16 + b"\0"


def test_a_number_that_no_surface_has_is_refused():
    for number in (0, 4_000_000_000):
        with pytest.raises(Failure, match=f"ARGUMENT: there is no IOSurface number {number}"):
            Memory.of_surface(number)


CYCLES = """
import os, sys
import numpy as np
from ane_native import *

X = np.arange(128, dtype="float16").reshape(1, 4, 1, 32)

def cycles(n):
    for i in range(n):
        with scaled(2 + i % 7)[0] as program:
            assert program.functions[0](X)[0][0, 0, 0, 1] == 2 + i % 7

def footprint():
    resident = int(open("/proc/self/statm").read().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    files = [name for _, _, names in os.walk(os.environ["TEMP"]) for name in names]
    return resident, len(os.listdir("/proc/self/fd")), len(files)

cycles(200)
before = footprint()
cycles(int(sys.argv[1]))
print(*[now - then for now, then in zip(footprint(), before)])
"""


@pytest.mark.memory
@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_compiling_running_and_closing_leaves_nothing_behind(tmp_path):
    n = os.environ.get("ANEX_CYCLES", "400")  # 20,000 by hand
    resident, files, temporary = map(int, elsewhere(CYCLES, n, TEMP=str(tmp_path)).split())
    assert resident < 4 << 20
    assert (files, temporary) == (0, 0)
