"""IOSurfaces as memory: zeroed, large enough, told of every access, shared between processes, gone when closed."""

import os
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pytest
from ane_native import ROW, Failure, Memory, Program, call, scale, scaled

from fake_ane import control as fake

X = np.arange(128, dtype="float16").reshape(1, 4, 1, 32)


@pytest.fixture(autouse=True)
def opened():
    """Surfaces are made once the framework is open; and no test may leave a lock or a pool out."""
    call("ane_open")
    before = {name: fake.count(name) for name in COUNTED}
    yield
    assert {name: fake.count(name) for name in COUNTED} == before


COUNTED = ("messages_without_pool", "unlocked_writes", "evaluated_locked", "unbalanced_unlocks", "live_surfaces")


@pytest.mark.parametrize("nbytes", [1, 49152, 49153, 1 << 20])
def test_memory_is_a_zeroed_surface_of_whole_pages_and_at_least_48_kilobytes(nbytes):
    memory = Memory.new(nbytes)
    assert memory.surface_id > 0
    assert memory.nbytes >= max(nbytes, 49152)
    assert memory.nbytes % 16384 == 0
    with memory.locked():
        import ctypes

        from ane_native import native

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
    script = (
        "import ctypes, sys\n"
        "from ane_native import *\n"
        "memory = Memory.of_surface(int(sys.argv[1]))\n"
        "with memory.locked():\n"
        "    ctypes.memset(native.anex_memory_data(memory.handle), 7, 16)\n"
    )
    tests = Path(__file__).parent
    environment = {**os.environ, "PYTHONPATH": f"{tests.parent}:{tests}", fake.VARIABLE: str(fake.path())}
    subprocess.run([sys.executable, "-c", script, str(memory.surface_id)], env=environment, check=True, timeout=60)
    import ctypes

    from ane_native import native

    for one in (memory, again):
        with one.locked():
            assert ctypes.string_at(native.anex_memory_data(one.handle), 17) == b"\7" * 16 + b"\0"


def test_a_number_that_no_surface_has_is_refused():
    for number in (0, 4_000_000_000):
        with pytest.raises(Failure, match=f"ARGUMENT: there is no IOSurface number {number}"):
            Memory.of_surface(number)


def footprint():
    """Resident bytes, open files, and what lies in the temporary directory."""
    resident = int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    files = len(os.listdir("/proc/self/fd"))
    temporary = sum(len(names) for _, _, names in os.walk(os.environ.get("TMPDIR", "/tmp")))
    return resident, files, temporary


@pytest.mark.memory
@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_compiling_running_and_closing_leaves_nothing_behind():
    cycles = int(os.environ.get("ANEX_CYCLES", 400))

    def cycle(i):
        with Program(scale(2 + i % 7)) as program:
            assert program.bind({"x": ROW}, {"y": ROW})(X)[0][0, 0, 0, 1] == 2 + i % 7

    for i in range(100):
        cycle(i)
    resident, files, temporary = footprint()
    for i in range(cycles):
        cycle(i)
    after = footprint()
    assert after[0] - resident < 4 << 20
    assert after[1:] == (files, temporary)
