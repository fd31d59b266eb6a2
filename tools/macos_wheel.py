"""Builds the wheel for macOS on Apple silicon on this Linux machine, to see that it compiles and links: a check,
never a release. ``python tools/macos_wheel.py [folder]`` prints the path of the wheel.

clang and lld are Debian's. libc's and the Objective-C runtime's headers, and the list of what libSystem exports,
come from the PyPI package ``ziglang``, read where it is installed. Foundation is csrc/compat/macos: our own text,
without classes, which therefore stay to be found by name when the extension is loaded.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
import sysconfig
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
COMPAT = ROOT / "csrc/compat/macos"
WORK = ROOT / "build/macos"
CLANG = "clang-19"
MINIMUM_OS = "14.0"
TARGET = f"-target arm64-apple-macos{MINIMUM_OS} -isysroot {COMPAT}"


def zig_libc() -> Path:
    import ziglang

    return Path(ziglang.__file__).parent / "lib/libc"


def write_libsystem() -> None:
    """What libSystem exports, without the newest of its targets, whose name lld does not know."""
    text = (zig_libc() / "darwin/libSystem.tbd").read_text()
    WORK.mkdir(parents=True, exist_ok=True)
    (WORK / "libSystem.tbd").write_text(re.sub(r",?\s*arm64e\.x1-\w+", "", text))


def environment() -> dict[str, str]:
    """For a setup.py that is to compile for another system than the one it runs on."""
    resources = subprocess.check_output([CLANG, "-print-resource-dir"], text=True).strip()
    headers = f"-nostdinc -isystem {resources}/include -isystem {zig_libc()}/include/any-darwin-any -F {COMPAT}"
    paths = f"-L{WORK} -L{COMPAT} -F{COMPAT}"
    abi = f"cpython-{sys.version_info.major}{sys.version_info.minor}{getattr(sys, 'abiflags', '')}"
    return {
        **os.environ,
        "ANEX_TARGET": "darwin-arm64",
        "CC": f"{CLANG} {TARGET} {headers} -Werror -Wno-unused-command-line-argument",
        "LDSHARED": f"{CLANG} {TARGET} -fuse-ld=lld -bundle -Wl,-undefined,dynamic_lookup {paths}",
        "SETUPTOOLS_EXT_SUFFIX": f".{abi}-darwin.so",
        "MACOSX_DEPLOYMENT_TARGET": MINIMUM_OS,
    }


def build(folder: Path, flags: str = "") -> Path:
    """The wheel, in ``folder``; ``flags`` go to the compiler after those of a release."""
    write_libsystem()
    platform = f"macosx_{MINIMUM_OS.replace('.', '_')}_arm64"
    command = ["setup.py", "--quiet", "build", "--build-base", str(WORK)]
    command += ["bdist_wheel", "--plat-name", platform, "--dist-dir", str(folder)]
    subprocess.run([sys.executable, *command], cwd=ROOT, env={**environment(), "ANEX_CFLAGS": flags}, check=True)
    tag = f"cp{sysconfig.get_config_var('py_version_nodot')}"
    return max(folder.glob(f"anex-*-{tag}-*-{platform}.whl"), key=lambda path: path.stat().st_mtime)


if __name__ == "__main__":
    print(build(Path(sys.argv[1] if len(sys.argv) > 1 else WORK).resolve()))
