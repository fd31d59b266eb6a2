"""Short versions of ``make soak``; each in a process that does nothing else."""

import os
import subprocess
import sys
import tempfile
from pathlib import Path

import lean
import pytest
from needs_ane import needs_ane

pytestmark = [
    needs_ane,
    pytest.mark.skipif(sys.platform != "linux", reason="reads /proc"),
]
TESTS = Path(__file__).parent


def soak(*arguments):
    """What it prints; nothing may stay in the temporary directory."""
    with tempfile.TemporaryDirectory() as folder:
        env = {**os.environ, "PYTHONPATH": lean.path(TESTS.parent, TESTS), "TMPDIR": folder, "TEMP": folder}
        command = [sys.executable, "-m", "soak", *arguments]
        done = subprocess.run(command, env=env, capture_output=True, text=True, timeout=280)
        assert done.returncode == 0, done.stdout + done.stderr
        assert not os.listdir(folder)
    return done.stdout


@pytest.mark.memory
def test_compiling_running_and_closing_leaves_the_process_as_it_was():
    assert "'descriptors': 0, 'threads': 0" in soak("cycles", "--n", "200", "--warm", "100", "--growth", str(4 << 20))


@pytest.mark.memory
def test_neither_does_it_in_worker_processes():
    # seven programs take turns, and anex.cache keeps a note of each
    soak("cycles", "--n", "10", "--warm", "7", "--growth", str(4 << 20), "--isolated")


@pytest.mark.parametrize("where", [[], ["--isolated"]])
def test_threads_on_one_program_and_on_their_own_get_the_right_bits(where):
    assert soak("threads", "--seconds", "2", *where).count("every result right") == 2
