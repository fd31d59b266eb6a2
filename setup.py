"""Builds `anex._native`: Cython around the C engine, whose kernels are compiled once per instruction set."""

import os
import platform
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from Cython.Build import cythonize
from setuptools import Extension, setup
from setuptools.command.build_ext import build_ext

ONCE = [
    "csrc/memory.c",
    "csrc/tensor.c",
    *(f"csrc/cpu/{name}.c" for name in ("isa", "limits", "place", "plan", "run", "step", "store", "team")),
]
ANE = sorted(str(path) for path in Path("csrc/ane").glob("*") if path.suffix in {".c", ".m"})
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
# Sanitizer and coverage builds: ANEX_CFLAGS="-fsanitize=address,undefined -g"
EXTRA = os.environ.get("ANEX_CFLAGS", "").split()
# What is built for: tools/macos_wheel.py sets "darwin-arm64" on Linux.
HERE = f"{sys.platform}-{platform.machine()}".replace("aarch64", "arm64")
TARGET = os.environ.get("ANEX_TARGET", HERE)
SYSTEM, MACHINE = TARGET.split("-")
# Each compiler that is chosen has objects of its own; flags of a sanitizer come with the one they are for.
COMPILER = [] if EXTRA else [Path(part).name for part in os.environ.get("CC", "").split()[:1]]
BUILT_FOR = "-".join([MACHINE if TARGET == HERE else TARGET, *COMPILER])
FLAVOUR = "".join(c if c.isalnum() else "-" for c in "".join(EXTRA))


def objective_c():
    """The binding of the Neural Engine: its sources, the compiler and flags of its .m files, and what it links.

    On macOS always. On Linux with ANEX_OBJC=1, for tests against a stand-in of the framework: it takes clang and
    GNUstep, and what is built that way is not for shipping.
    """
    sources = [source for source in ANE if not Path(source).stem.startswith("absent")]
    strict = ["-Wall", "-Wextra", "-Werror=incompatible-pointer-types", "-Werror=objc-method-access", "-fblocks"]
    if SYSTEM == "darwin":
        return (
            sources,
            None,
            ["-std=gnu11", "-O2", "-fobjc-exceptions", *strict],
            ["-framework", "Foundation", "-lobjc"],
        )
    if os.environ.get("ANEX_OBJC") != "1":
        return [source for source in ANE if source not in sources], None, [], []
    # libobjc's headers only: clang must not find the rest of gcc's
    headers = Path("build/objc-include/objc")
    found = subprocess.run(["gcc", "-print-file-name=include"], capture_output=True, text=True, check=True).stdout
    headers.parent.mkdir(parents=True, exist_ok=True)
    if not headers.exists():
        headers.symlink_to(Path(found.strip(), "objc"))
    flags = "-std=gnu11 -O2 -fPIC -pthread -fobjc-runtime=gcc -fobjc-exceptions -fexceptions"
    flags += " -fconstant-string-class=NSConstantString -D_NATIVE_OBJC_EXCEPTIONS -DGNUSTEP"
    flags += " -DGNUSTEP_BASE_LIBRARY=1 -DGNU_RUNTIME=1 -Icsrc/compat/linux -Ibuild/objc-include"
    flags += " -isystem /usr/include/GNUstep"
    # The blocks first: GNUstep has functions of the same names that copy nothing.
    libraries = [f"-L{Path(found.strip()).parent}", "-lBlocksRuntime", "-lgnustep-base", "-lobjc", "-ldl"]
    return sources, os.environ.get("ANEX_CLANG", "clang-19"), [*flags.split(), *strict], libraries


class BuildKernels(build_ext):
    """Compiles the engine first, each file again only when something it may depend on is newer."""

    def build_extension(self, extension):
        ane, self.clang, self.objc_flags, libraries = objective_c()
        extension.extra_objects = self.compile_engine(ane)
        extension.extra_link_args = [*extension.extra_link_args, *libraries]
        extension.depends = [*extension.depends, self.note(extension)]
        super().build_extension(extension)

    def compile_engine(self, ane):
        # The engine does not know Python: its objects serve every interpreter, and editable installs too.
        objects = Path("build", f"objects-{BUILT_FOR}{FLAVOUR}")
        jobs = [
            (source, objects / isa, [*FLAGS, *flags, *EXTRA], [("ANEX_ISA", isa)])
            for isa, flags in INSTRUCTION_SETS.get(MACHINE, {"generic": []}).items()
            for source in KERNELS
        ]
        jobs += [(source, objects / "once", [*FLAGS, *EXTRA], []) for source in [*ONCE, *ane]]
        with ThreadPoolExecutor(os.cpu_count()) as pool:
            return list(pool.map(self.compile_one, jobs))

    def note(self, extension):
        """A file that changes when other objects or libraries are to be linked than before."""
        text = repr((extension.extra_objects, extension.extra_link_args))
        latest = Path("build/latest.linked")  # of all builds: they share the extension that is made in place
        if not latest.exists() or latest.read_text() != text:
            latest.write_text(text)
        return str(latest)

    def compile_one(self, job):
        source, folder, flags, macros = job
        target = folder / Path(source).with_suffix(".o")
        folders = {Path("csrc"), Path("csrc/cpu"), Path(source).parent}
        headers = [path for place in folders for path in place.glob("*.[hi]*")]
        newest = max(path.stat().st_mtime for path in [Path(source), Path("setup.py"), *headers])
        if not self.force and target.exists() and target.stat().st_mtime >= newest:
            return str(target)
        if Path(source).suffix != ".m":
            self.compiler.compile([source], str(folder), macros, extra_postargs=flags)
            return str(target)
        compiler = [self.clang] if self.clang else self.compiler.compiler_so
        target.parent.mkdir(parents=True, exist_ok=True)
        self.spawn([*compiler, "-c", source, "-o", str(target), *self.objc_flags, *EXTRA])
        return str(target)


class BuildEngine(BuildKernels):
    """The engine without Python, one object to link a program in C with: build/engine-<what it is for>.o"""

    def build_extension(self, extension):
        objects = self.compile_engine(["csrc/ane/absent.c"])
        self.spawn([*self.compiler.compiler, "-r", "-o", f"build/engine-{BUILT_FOR}{FLAVOUR}.o", *objects])


setup(
    ext_modules=cythonize(
        Extension(
            "anex._native",
            ["anex/_native.pyx"],
            include_dirs=["csrc"],
            depends=[*map(str, Path("csrc").rglob("*.[chm]")), *map(str, Path("csrc").rglob("*.inc"))],
            extra_compile_args=["-std=c11", "-O2", *EXTRA],
            extra_link_args=["-pthread", *EXTRA],
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
