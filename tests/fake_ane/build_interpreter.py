"""The evaluator as a library of its own, for its tests: the C files here and the objects of the engine.

``python tests/fake_ane/build_interpreter.py`` prints the path.
"""

from __future__ import annotations

import platform
import subprocess
from collections.abc import Sequence
from pathlib import Path

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
SANITIZE = ("-fsanitize=address,undefined", "-fno-sanitize-recover=undefined", "-fno-omit-frame-pointer")


def sources() -> list[Path]:
    return [*sorted(HERE.glob("mil_*.c")), ROOT / "csrc/ane/absent.c"]  # tensors need not be surfaces here


def engine_objects() -> list[Path]:
    """What ``setup.py build_ext`` compiled of the CPU engine, for every instruction set."""
    machine = platform.machine().replace("AMD64", "x86_64").replace("aarch64", "arm64")
    objects = ROOT / "build" / f"objects-{machine}"
    found = sorted((*objects.glob("*/csrc/tensor.o"), *objects.glob("*/csrc/cpu/*.o")))
    if not found:
        raise FileNotFoundError(f"{objects} holds no engine; run `python setup.py build_ext --inplace` first")
    return found


def build(flags: Sequence[str] = (), compiler: str = "gcc") -> Path:
    """The library, linked again when anything it is made of is newer."""
    made_of = [*sources(), *engine_objects()]
    headers = [*HERE.glob("*.h"), *HERE.glob("*.inc"), ROOT / "csrc/anex.h", ROOT / "csrc/half.h"]
    depends = [*made_of, *headers, Path(__file__)]
    kind = "-sanitized" if flags else ""
    target = ROOT / "build" / "fake_ane" / f"libinterpreter-{compiler}{kind}.so"
    if not target.exists() or target.stat().st_mtime < max(path.stat().st_mtime for path in depends):
        target.parent.mkdir(parents=True, exist_ok=True)
        warnings = ("-Wall", "-Wextra", "-Werror")
        command = [compiler, "-std=c11", "-O1", "-g", "-fPIC", "-shared", *warnings, *flags, *map(str, made_of)]
        subprocess.run([*command, "-o", str(target), "-pthread", "-lm"], check=True)
    return target


if __name__ == "__main__":
    print(build())
