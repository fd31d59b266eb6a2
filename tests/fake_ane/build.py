"""Builds the stand-in: ``python tests/fake_ane/build.py`` prints the library's path. Only what changed is compiled.

Any number of processes may build at once, as the workers of a test run do: one does, the others wait and find it done.
"""

from __future__ import annotations

import fcntl
import os
import platform
import re
import subprocess
import sys
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent.parent
# Sanitizer builds have their own objects, as in setup.py; their engine must come from the same compiler.
EXTRA = os.environ.get("ANEX_CFLAGS", "").split()
SUFFIX = "".join(c if c.isalnum() else "-" for c in "".join(EXTRA))
OUT = ROOT / "build" / f"fake_ane{SUFFIX}"
LIBRARY = OUT / "libfake_ane.so"
COMPILER = os.environ.get("ANEX_CLANG", "clang-19")
FLAGS = ["-O2", "-g1", "-fPIC", "-fvisibility=hidden", "-D_GNU_SOURCE", "-Wall", "-Wextra", "-pthread"]
# Where private.h and the stand-in drift apart, these say so.
STRICT = [
    "incompatible-pointer-types",
    "objc-method-access",
    "protocol",
    "objc-protocol-method-implementation",
    "incomplete-implementation",
    "method-signatures",
    "mismatched-return-types",
    "mismatched-parameter-types",
    "undeclared-selector",
]
OBJC = [
    "-fobjc-runtime=gcc",
    "-fobjc-exceptions",
    "-fexceptions",
    "-fblocks",
    "-fconstant-string-class=NSConstantString",
    *("-D_NATIVE_OBJC_EXCEPTIONS", "-DGNUSTEP", "-DGNUSTEP_BASE_LIBRARY=1", "-DGNU_RUNTIME=1"),
    *(f"-Werror={name}" for name in STRICT),
]


def run(*command: str | Path) -> str:
    done = subprocess.run([str(part) for part in command], capture_output=True, text=True)
    if done.returncode or done.stderr:
        sys.stderr.write(done.stderr)
    if done.returncode:
        raise RuntimeError(f"{' '.join(map(str, command))}\n{done.stderr}")
    return done.stdout.strip()


def newest(paths: Iterable[Path]) -> float:
    return max(path.stat().st_mtime for path in paths)


@contextmanager
def alone() -> Iterator[None]:
    """One process at a time writes below build/; the lock goes with the process that holds it."""
    (ROOT / "build").mkdir(exist_ok=True)
    with open(ROOT / "build" / "tests.lock", "w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


@contextmanager
def replaced(target: Path) -> Iterator[Path]:
    """Where to write ``target``, which appears when it is whole: another process may be loading the old one."""
    target.parent.mkdir(parents=True, exist_ok=True)
    part = target.with_name(f"{target.stem}-part-{os.getpid()}{target.suffix}")
    try:
        yield part
        part.replace(target)
    finally:
        part.unlink(missing_ok=True)


def write(path: Path, text: str) -> None:
    """Leaves a file that is already so alone, and with it what was built from it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    if not path.exists() or path.read_text() != text:
        path.write_text(text)


def write_headers() -> Path:
    """Where ``private_plus.h`` is: private.h with the methods of class protocols as class methods."""
    include = OUT / "include"
    text = (ROOT / "csrc/ane/private.h").read_text()
    classes = re.compile(r"^@protocol \w+Class\b.*?^@end", re.MULTILINE | re.DOTALL)
    write(include / "private_plus.h", classes.sub(lambda found: re.sub(r"(?m)^- ?\(", "+ (", found[0]), text))
    write(include / "blocks/objc/blocks_runtime.h", "#include <Block.h>\n")  # GNUstep asks for it; apt has none
    link = include / "runtime/objc"  # gcc's objc folder alone: the rest of its headers does not suit clang
    if not link.exists():
        link.parent.mkdir(parents=True, exist_ok=True)
        link.symlink_to(Path(run("gcc", "-print-file-name=include")) / "objc")
    return include


def engine() -> Path:
    """The CPU engine as setup.py links it for C, made now where it is missing or old. To be called ``alone``."""
    machine = platform.machine().replace("aarch64", "arm64")
    compiler = [] if EXTRA else [Path(part).name for part in os.environ.get("CC", "").split()[:1]]
    target = ROOT / "build" / f"engine-{'-'.join([machine, *compiler])}{SUFFIX}.o"
    sources = [path for pattern in ("*.[ch]", "*.inc") for path in (ROOT / "csrc").rglob(pattern)]
    sources.append(ROOT / "setup.py")
    if not target.exists() or target.stat().st_mtime < newest(sources):
        subprocess.run([sys.executable, "setup.py", "--quiet", "build_engine"], cwd=ROOT, check=True)
        target.touch()
    return target


def compile_one(source: Path, include: Path, objects: Path = OUT / "objects") -> Path:
    target = objects / f"{source.stem}.o"
    depends = [path for pattern in ("*.h", "*.inc") for path in [*HERE.glob(pattern), *include.glob(pattern)]]
    depends += [*(ROOT / "csrc").glob("*.h"), *(ROOT / "csrc").glob("*.inc"), Path(__file__), source]
    if target.exists() and target.stat().st_mtime >= newest(depends):
        return target
    target.parent.mkdir(parents=True, exist_ok=True)
    language = [*OBJC, *(f"-I{include / name}" for name in ("blocks", "runtime")), "-isystem", "/usr/include/GNUstep"]
    flags = [*FLAGS, *(language if source.suffix == ".m" else ["-std=c11", "-ffp-contract=off"]), *EXTRA]
    run(COMPILER, *flags, f"-I{include}", f"-I{HERE}", f"-I{ROOT / 'csrc'}", "-c", source, "-o", target)
    return target


def build() -> Path:
    """The library, up to date."""
    with alone():
        return link(write_headers())


def link(include: Path) -> Path:
    sources = sorted([*HERE.glob("*.m"), *HERE.glob("*.c")])
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        objects = list(pool.map(lambda source: compile_one(source, include), sources))
    objects.append(engine())
    # The engine in here must never be the one in anex._native, nor the other way round.
    write(OUT / "exports", "{ global: fake_ane_*; IOSurface*; kIOSurface*; kANEF*; CF*; local: *; };\n")
    if not LIBRARY.exists() or LIBRARY.stat().st_mtime < newest([*objects, OUT / "exports"]):
        folder = Path(run("gcc", "-print-file-name=libobjc.so")).parent
        flags = ["-shared", "-pthread", "-Wl,-Bsymbolic", "-Wl,-z,defs", f"-Wl,--version-script={OUT / 'exports'}"]
        if "-fsanitize" in " ".join(EXTRA):
            flags.remove("-Wl,-z,defs")  # the runtime is in the process, by LD_PRELOAD
        # The blocks first: GNUstep has functions of the same names that copy nothing.
        libraries = [f"-L{folder}", "-lBlocksRuntime", "-lgnustep-base", "-lobjc", "-lm"]
        with replaced(LIBRARY) as part:
            run(COMPILER, *flags, *EXTRA, *objects, *libraries, "-o", part)
    return LIBRARY


if __name__ == "__main__":
    print(build())
