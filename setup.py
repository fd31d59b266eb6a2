"""Builds `anex._native`: Cython around the C engine, whose kernels are compiled once per instruction set."""

import os
import platform
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from Cython.Build import cythonize
from setuptools import Extension, setup
from setuptools.command.build_ext import build_ext

ONCE = ["csrc/tensor.c", *(f"csrc/cpu/{name}.c" for name in ("isa", "place", "plan", "run", "team"))]
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
    "arm64": {"generic": []},
}
FLAGS = ["-std=c11", "-O3", "-Wall", "-Wextra", "-fno-math-errno", "-fno-trapping-math", "-ffp-contract=off"]
# Sanitizer and coverage builds: ANEX_CFLAGS="-fsanitize=address,undefined -g"
EXTRA = os.environ.get("ANEX_CFLAGS", "").split()


class BuildKernels(build_ext):
    def build_extension(self, extension):
        machine = (
            os.environ.get("ANEX_MACHINE", platform.machine()).replace("AMD64", "x86_64").replace("aarch64", "arm64")
        )
        jobs = [
            (source, Path(self.build_temp, isa), [*FLAGS, *flags, *EXTRA], [("ANEX_ISA", isa)])
            for isa, flags in INSTRUCTION_SETS.get(machine, {"generic": []}).items()
            for source in KERNELS
        ]
        jobs += [(source, Path(self.build_temp, "once"), [*FLAGS, *EXTRA], []) for source in ONCE]
        with ThreadPoolExecutor(os.cpu_count()) as pool:
            extension.extra_objects = [name for names in pool.map(self.compile_one, jobs) for name in names]
        super().build_extension(extension)

    def compile_one(self, job):
        source, folder, flags, macros = job
        target = folder / Path(source).with_suffix(".o")
        depends = [source, *map(str, Path("csrc").rglob("*.h")), *map(str, Path("csrc").rglob("*.inc"))]
        if not self.force and target.exists() and all(os.stat(d).st_mtime < target.stat().st_mtime for d in depends):
            return [str(target)]
        return self.compiler.compile([source], str(folder), macros, extra_postargs=flags)


setup(
    ext_modules=cythonize(
        Extension(
            "anex._native",
            ["anex/_native.pyx"],
            include_dirs=["csrc"],
            depends=[*map(str, Path("csrc").rglob("*.[ch]")), *map(str, Path("csrc").rglob("*.inc"))],
            extra_compile_args=["-std=c11", "-O2", *EXTRA],
            extra_link_args=["-pthread", *EXTRA],
            libraries=["m"],
        ),
        compiler_directives={
            "language_level": 3,
            "freethreading_compatible": True,
            "auto_pickle": False,
            "autotestdict": False,
        },
    ),
    cmdclass={"build_ext": BuildKernels},
)
