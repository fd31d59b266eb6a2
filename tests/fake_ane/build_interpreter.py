"""The evaluator as a library of its own, for its tests: the C files here and the CPU engine.

``python -m fake_ane.build_interpreter``, with ``tests`` on the path, prints the library's.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from . import build as framework

HERE = Path(__file__).parent
SANITIZE = ("-fsanitize=address,undefined", "-fno-sanitize-recover=undefined", "-fno-omit-frame-pointer")


def sources() -> list[Path]:
    return sorted(HERE.glob("mil_*.c"))


def build(flags: Sequence[str] = ()) -> Path:
    """The library, linked again when anything it is made of is newer.

    In a sanitizer's build of the tree it has that one's flags and compiler, as the engine in it does.
    """
    extra, compiler = (framework.EXTRA, framework.COMPILER) if framework.EXTRA else (flags, "gcc")
    name = f"libinterpreter{'-sanitized' if extra else ''}.so"
    with framework.alone():
        made_of = [*sources(), framework.engine()]
        headers = [path for place in (HERE, framework.ROOT / "csrc") for path in place.glob("*.[hi]*")]
        target = framework.OUT / name
        if not target.exists() or target.stat().st_mtime < framework.newest([*made_of, *headers, Path(__file__)]):
            warnings = ("-Wall", "-Wextra", "-Werror")
            command = [compiler, "-std=c11", "-O1", "-g", "-fPIC", "-shared", *warnings, *extra, *made_of]
            with framework.replaced(target) as part:
                framework.run(*command, "-o", part, "-pthread", "-lm")
    return target


if __name__ == "__main__":
    print(build())
