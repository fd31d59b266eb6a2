"""What importing anex costs and does."""

import subprocess
import sys

from click.testing import CliRunner

from anex import _coremltools
from anex.cli import main


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


def test_commands_that_read_models_load_no_framework_and_leave_all_to_be_loaded(tmp_path):
    """coremltools would import torch, sklearn and scipy, where they are."""
    text = tmp_path / "m.mil"
    text.write_text("program(1.3) {}")
    frameworks = "('torch', 'sklearn', 'transformers')"
    code = (
        "import sys\nfrom anex import cli\n"
        f"sys.argv[1:] = ['mil', 'stats', {str(text)!r}]\n"
        "try:\n    cli.run()\nexcept SystemExit:\n    pass\n"
        f"print('coremltools' in sys.modules, [m for m in {frameworks} if m in sys.modules])\n"
        "import scipy\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "True []"


def test_a_program_that_calls_the_commands_itself_keeps_its_coremltools_whole(tmp_path):
    (tmp_path / "m.mil").write_text("program(1.3) {}")
    CliRunner().invoke(main, ["mil", "stats", str(tmp_path / "m.mil")])
    assert _coremltools._kept_out == ()
