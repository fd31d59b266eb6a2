"""What importing anex costs and does."""

import subprocess
import sys


def run(code: str) -> str:
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stderr == ""
    return done.stdout.strip()


def test_importing_anex_loads_neither_coremltools_nor_torch_and_prints_nothing():
    loaded = run(
        "import sys, anex; print([m for m in ('coremltools', 'torch', 'google.protobuf') if m in sys.modules])"
    )
    assert loaded == "[]"


def test_tensors_work_without_coremltools():
    code = "import sys, anex; t = anex.zeros((2, 2)); t[0, 0] = 1; print(t[0, 0], 'coremltools' in sys.modules)"
    assert run(code) == "1.0 False"


def test_importing_anex_alone_loads_no_numpy_and_starts_no_thread():
    code = "import os, sys, anex; print('numpy' in sys.modules, len(os.listdir('/proc/self/task')))"
    assert run(code) == "False 1"
