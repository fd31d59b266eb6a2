"""Builds `anex._native`: Cython around the C engine, whose kernels are compiled once per instruction set."""

import os
import platform
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from Cython.Build import cythonize
from setuptools import Extension, setup
from setuptools.command.build_ext import build_ext

ONCE = ["csrc/tensor.c", *(f"csrc/cpu/{name}.c" for name in ("isa", "limits", "place", "plan", "run", "team"))]
KERNELS = sorted(str(path) for path in Path("csrc/cpu").glob("*.c") if str(path) not in ONCE)
INSTRUCTION_SETS = {
    "x86_64": {
        "generic": [],
        "avx2": ["-mavx2", "-mfma", "-mf16c"],
        "avx512": [
            "-mavx512f",
            "-mavx512bw",
            "-mavx512dq",
            "-mavx512vl",
            "-mfma",
            "-mf16c",
            "-mprefer-vector-width=512",
        ],
    },
    "arm64": {"generic": [], "neon": ["-march=armv8.2-a+fp16"]},
}
FLAGS = ["-std=c11", "-O3", "-g0", "-Wall", "-Wextra", "-fno-math-errno", "-fno-trapping-math", "-ffp-contract=off"]
# What is built for: tools/macos_wheel.py sets "darwin-arm64" on Linux.
TARGET = os.environ.get("ANEX_TARGET", f"{sys.platform}-{platform.machine()}").replace("aarch64", "arm64")
SYSTEM, MACHINE = TARGET.split("-")
OBJC = sorted(map(str, Path("csrc/ane").glob("*.m"))) if SYSTEM == "darwin" else []
FRAMEWORKS = ["-framework", "Foundation", "-lobjc"] if SYSTEM == "darwin" else []
# Sanitizer and coverage builds: ANEX_CFLAGS="-fsanitize=address,undefined -g"
EXTRA = os.environ.get("ANEX_CFLAGS", "").split()


class BuildKernels(build_ext):
    """Compiles the engine first, each file again only when something it may depend on is newer."""

    def build_extension(self, extension):
        extension.extra_objects = self.compile_engine()
        super().build_extension(extension)

    def compile_engine(self):
        # The engine does not know Python: its objects serve every interpreter, and editable installs too.
        built_for = "-".join([TARGET, os.environ.get("CC", "cc").split()[0], *EXTRA])
        objects = Path("build", "objects-" + "".join(c if c.isalnum() else "-" for c in built_for))
        jobs = [
            (source, objects / isa, [*FLAGS, *flags, *EXTRA], [("ANEX_ISA", isa)])
            for isa, flags in INSTRUCTION_SETS.get(MACHINE, {"generic": []}).items()
            for source in KERNELS
        ]
        jobs += [(source, objects / "once", [*FLAGS, *EXTRA], []) for source in ONCE + OBJC]
        with ThreadPoolExecutor(os.cpu_count()) as pool:
            return list(pool.map(self.compile_one, jobs))

    def compile_one(self, job):
        source, folder, flags, macros = job
        target = folder / Path(source).with_suffix(".o")
        headers = [path for pattern in ("*.h", "*.inc") for path in Path("csrc").rglob(pattern)]
        newest = max(path.stat().st_mtime for path in [Path(source), Path("setup.py"), *headers])
        if self.force or not target.exists() or target.stat().st_mtime < newest:
            self.compiler.compile([source], str(folder), macros, extra_postargs=flags)
        return str(target)


class BuildEngine(BuildKernels):
    """The engine without Python, one object to link a program in C with: build/engine-<system>-<machine>.o"""

    def build_extension(self, extension):
        self.spawn([*self.compiler.compiler, "-r", "-o", f"build/engine-{TARGET}.o", *self.compile_engine()])


setup(
    ext_modules=cythonize(
        Extension(
            "anex._native",
            ["anex/_native.pyx"],
            include_dirs=["csrc"],
            depends=[*map(str, Path("csrc").rglob("*.[ch]")), *map(str, Path("csrc").rglob("*.inc"))],
            extra_compile_args=["-std=c11", "-O2", *EXTRA],
            extra_link_args=["-pthread", *FRAMEWORKS, *EXTRA],
            libraries=[] if SYSTEM == "darwin" else ["m"],
        ),
        compiler_directives={
            "language_level": 3,
            "auto_pickle": False,
            "autotestdict": False,
        },
    ),
    cmdclass={"build_ext": BuildKernels, "build_engine": BuildEngine},
)
