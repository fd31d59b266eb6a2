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
    frameworks = "('torch', 'sklearn', 'transformers', 'sympy')"
    code = (
        "import sys\nfrom anex import cli\n"
        f"sys.argv[1:] = ['mil', 'stats', {str(text)!r}]\n"
        "try:\n    cli.run()\nexcept SystemExit:\n    pass\n"
        f"print('coremltools' in sys.modules, [m for m in {frameworks} if m in sys.modules])\n"
        "import scipy\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "True []"


LEAN = "import sys\nfrom anex._coremltools import coremltools, keep_frameworks_out\nkeep_frameworks_out()\n"


def test_symbols_are_those_of_sympy_once_somebody_reckons_with_them():
    code = LEAN + (
        "with coremltools():\n"
        "    from coremltools.converters.mil.mil import get_new_symbol\n"
        "    from coremltools.converters.mil.mil.types.symbolic import any_symbolic, is_symbolic, is_variadic\n"
        "    s = get_new_symbol()\n"
        "    first = [is_symbolic(3), any_symbolic([1, 'a']), is_symbolic(s), any_symbolic((2, s)), is_variadic(s),\n"
        "             s == 2]\n"
        "    early, more = 'sympy' in sys.modules, s + 1\n"
        "    import sympy\n"
        "    real = sympy.Symbol(s.name)\n"
        "    then = [is_symbolic(more), is_symbolic(real), more == real + 1, s == real, {s} == {real}]\n"
        "    then += [2 * s - s == real, isinstance(more, sympy.Expr), str(s) == s.name, sympy.sympify(s) is real]\n"
        "print(first, early, then)\n"
    )
    assert run(code) == f"{[False, False, True, True, False, False]} False {[True] * 9}"


def test_sizes_that_only_the_run_shows_are_reckoned_with_as_ever():
    code = LEAN + (
        "import anex, numpy as np\nfrom anex import mb\n"
        "@anex.graph(x=anex.spec((4, 5), 'float32'))\n"
        "def graph(x):\n"
        "    found = mb.non_zero(x=x)\n"
        "    return mb.reshape(x=mb.concat(values=[found, found], axis=0), shape=(-1,))\n"
        "x = np.eye(4, 5, dtype='float32')\n"
        "y = np.asarray(anex.compile(graph)(x))\n"
        "print((y == np.tile(np.argwhere(x), (2, 1)).ravel()).all(), 'sympy' in sys.modules)\n"
    )
    assert run(code) == "True True"


def test_a_program_that_calls_the_commands_itself_keeps_its_coremltools_whole(tmp_path):
    (tmp_path / "m.mil").write_text("program(1.3) {}")
    CliRunner().invoke(main, ["mil", "stats", str(tmp_path / "m.mil")])
    assert _coremltools._kept_out == ()
