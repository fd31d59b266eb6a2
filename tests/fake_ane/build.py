"""Builds the stand-in: ``python tests/fake_ane/build.py`` prints the library's path. Only what changed is compiled."""

from __future__ import annotations

import os
import platform
import re
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
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


def newest(paths: list[Path]) -> float:
    return max(path.stat().st_mtime for path in paths)


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


def engine() -> list[Path]:
    """The CPU engine's objects as setup.py makes them, made now where they are missing or old."""
    machine = os.environ.get("ANEX_MACHINE", platform.machine()).replace("AMD64", "x86_64").replace("aarch64", "arm64")
    folder = ROOT / "build" / f"objects-{machine}{SUFFIX}"
    made_of = [path for part in ("csrc", "csrc/cpu") for path in (ROOT / part).glob("*.[chi]*")]
    names = {path.stem for path in made_of if path.suffix == ".c"}

    def objects() -> list[Path]:
        found = [path for part in ("csrc", "csrc/cpu") for path in folder.glob(f"*/{part}/*.o")]
        return [path for path in found if path.stem in names]

    def is_stale(found: list[Path]) -> bool:
        return {path.stem for path in found} != names or min(p.stat().st_mtime for p in found) < newest(made_of)

    if is_stale(objects()):
        # The extension that comes with them is nobody's: the one in place may have been built otherwise.
        aside = [f"--build-temp={OUT / 'temp'}", f"--build-lib={OUT / 'lib'}"]
        subprocess.run([sys.executable, "setup.py", "--quiet", "build_ext", *aside], cwd=ROOT, check=True)
    return objects()


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
    include = write_headers()
    # absent.c: the engine's tensors ask whether there are surfaces, and for this copy of it there are none
    sources = [*sorted([*HERE.glob("*.m"), *HERE.glob("*.c")]), ROOT / "csrc/ane/absent.c"]
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        objects = list(pool.map(lambda source: compile_one(source, include), sources))
    objects += engine()
    # The engine in here must never be the one in anex._native, nor the other way round.
    write(OUT / "exports", "{ global: fake_ane_*; IOSurface*; kIOSurface*; kANEF*; CF*; local: *; };\n")
    if not LIBRARY.exists() or LIBRARY.stat().st_mtime < newest([*objects, OUT / "exports"]):
        folder = Path(run("gcc", "-print-file-name=libobjc.so")).parent
        part = OUT / f"part-{os.getpid()}.so"  # renamed when whole: another process may be loading the old one
        flags = ["-shared", "-pthread", "-Wl,-Bsymbolic", "-Wl,-z,defs", f"-Wl,--version-script={OUT / 'exports'}"]
        if "-fsanitize" in " ".join(EXTRA):
            flags.remove("-Wl,-z,defs")  # the runtime is in the process, by LD_PRELOAD
        # The blocks first: GNUstep has functions of the same names that copy nothing.
        libraries = [f"-L{folder}", "-lBlocksRuntime", "-lgnustep-base", "-lobjc", "-lm"]
        run(COMPILER, *flags, *EXTRA, *objects, *libraries, "-o", part)
        part.replace(LIBRARY)
    return LIBRARY


if __name__ == "__main__":
    print(build())
