"""Memory of large tensors that was given back is kept for the next one of its size."""

import os
import subprocess
import sys
import textwrap

import pytest

pytestmark = [pytest.mark.cpu_engine, pytest.mark.memory]  # a sanitizer has nothing kept
SIZES = [300_000, 2 << 20, 9 << 20]  # bytes: in small pages, and in huge ones
KEPT = """
import numpy as np
import anex

def is_kept(size):
    # Whether a tensor finds what the one before it left: fresh pages are cleared.
    old = anex.empty((size,), "uint8")
    np.asarray(old)[:] = 7
    del old
    return bool((np.asarray(anex.empty((size,), "uint8")) == 7).all())
"""


def run(code):
    """In a process of its own, without a framework: there tensors would be surfaces."""
    without = {name: value for name, value in os.environ.items() if name != "ANEX_ANE_FRAMEWORK"}
    code = KEPT + textwrap.dedent(code)
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=without)
    assert not done.returncode, done.stderr


@pytest.mark.parametrize("size", SIZES)
def test_a_size_in_use_is_kept_however_many_others_were_used_before(size):
    run(f"""
        for i in range(100):
            anex.empty((200_000 + i * 70_000,), "uint8")
        assert is_kept({size})
        assert is_kept({size})
    """)


def test_several_tensors_of_one_size_are_kept_at_once():
    run("""
        tensors = [anex.empty((1 << 20,), "uint8") for _ in range(12)]
        for tensor in tensors:
            np.asarray(tensor)[:] = 7
        del tensor, tensors
        again = [anex.empty((1 << 20,), "uint8") for _ in range(12)]
        assert all((np.asarray(each) == 7).all() for each in again)
    """)


@pytest.mark.parametrize("size", SIZES)
def test_zeros_are_zero_in_memory_that_was_kept(size):
    run(f"""
        assert is_kept({size})
        assert not np.asarray(anex.zeros(({size},), "uint8")).any()
    """)


def test_a_tensor_larger_than_all_that_is_kept_leaves_it_there():
    run("""
        assert is_kept(1 << 20)
        anex.empty((600 << 20,), "uint8")
        assert is_kept(1 << 20)
    """)


def test_threads_that_make_and_drop_tensors_have_each_its_own():
    run("""
        from concurrent.futures import ThreadPoolExecutor

        def work(seed):
            rng = np.random.default_rng(seed)
            for _ in range(300):
                tensor = anex.empty((int(rng.integers(2**17, 2**19)),), "uint8")
                values = np.asarray(tensor)
                values[:] = seed
                assert (values == seed).all()

        with ThreadPoolExecutor(4) as pool:
            list(pool.map(work, range(1, 9)))
    """)
