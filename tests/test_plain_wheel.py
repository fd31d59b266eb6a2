"""The wheel and the source archive as they are shipped from Linux: no Objective-C, no clang, nothing of the tests."""

import os
import re
import shutil
import subprocess
import sys
import sysconfig
import tarfile
import zipfile
from pathlib import Path

import numpy
import pytest
from fake_ane.build import alone

ROOT = Path(__file__).parent.parent
BUILD = "from setuptools import build_meta; print(build_meta.build_{kind}(r'{folder}'))"
PROGRAM = """
import numpy as np
import anex
from anex import mb

@anex.graph(x=(1, 4, 1, 2))
def triple(x):
    return mb.mul(x=x, y=np.float16(3), name="y")

print(anex.__file__)
print(np.asarray(anex.compile(triple, device="cpu")(np.ones((1, 4, 1, 2), np.float16))).sum())
try:
    anex.compile(triple, device="ane")
except anex.UnsupportedError as error:
    print(error)
"""


def build(kind, folder, tree=ROOT):
    """Without isolation and with this tree's objects, so that it takes seconds."""
    environment = {key: value for key, value in os.environ.items() if not key.startswith("ANEX_")}
    done = subprocess.run(
        [sys.executable, "-c", BUILD.format(kind=kind, folder=folder)],
        cwd=tree, env={**environment, "ANEX_OBJC": "0"}, capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    return folder / done.stdout.splitlines()[-1]


@pytest.fixture(scope="module")
def archive(tmp_path_factory):
    """The source archive."""
    return build("sdist", tmp_path_factory.mktemp("sdist"))


@pytest.fixture(scope="module")
def wheel(tmp_path_factory, archive):
    """The wheel, made of what the source archive holds."""
    folder = tmp_path_factory.mktemp("wheel")
    with tarfile.open(archive) as tar:
        tar.extractall(folder, filter="data")
    (tree,) = folder.iterdir()
    objects = f"build/objects-{sysconfig.get_platform().split('-')[-1].replace('aarch64', 'arm64')}"
    with alone():
        shutil.copytree(ROOT / objects, tree / objects)  # the archive keeps the times of the sources: these are newer
    return build("wheel", folder, tree)


@pytest.fixture(scope="module")
def installed(tmp_path_factory, wheel):
    """A folder with nothing but the wheel's contents."""
    folder = tmp_path_factory.mktemp("installed")
    pip = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--no-index", "--target"]
    subprocess.run([*pip, folder, wheel], check=True)
    return folder


def needed(library):
    """The libraries that the loader will look for."""
    text = subprocess.run(["readelf", "--dynamic", library], check=True, capture_output=True, text=True).stdout
    return set(re.findall(r"\(NEEDED\).*\[(.*)\]", text))


def test_the_source_archive_has_what_a_mac_needs_and_no_generated_code(archive):
    with tarfile.open(archive) as tar:
        names = {name.partition("/")[2] for name in tar.getnames()}
    here = {str(path.relative_to(ROOT)) for path in (ROOT / "csrc").rglob("*") if path.is_file()}
    assert here <= names
    assert {path for path in here if path.endswith(".m")}
    assert {"setup.py", "anex/_native.pyx", "LICENSE", "README.md"} <= names
    assert "anex/_native.c" not in names


def test_the_wheel_holds_the_package_and_nothing_else(wheel):
    with zipfile.ZipFile(wheel) as archive:
        names = archive.namelist()
    assert not [name for name in names if not re.match(r"anex(-[\d.]+\.dist-info)?/", name)]
    assert len([name for name in names if name.endswith(".so")]) == 1
    kinds = {Path(name).suffix for name in names if name.startswith("anex/")}
    assert kinds == {".py", ".pyi", ".so", ".typed", ".json", ".csv", ".tcss"}  # the last three: data, and dash's style
    assert not [name for name in names if "fake" in name or "test" in Path(name).stem.split("_")]


def test_the_extension_needs_libc_and_nothing_of_gnustep(installed):
    (extension,) = (installed / "anex").glob("_native*.so")
    assert needed(extension) <= {"libc.so.6", "libm.so.6", "libpthread.so.0", "libdl.so.2", "ld-linux-x86-64.so.2"}
    content = extension.read_bytes()
    for trace in (b"objc_msg", b"GNUstep", b"NSString", b"fake_ane", b"_Block_copy"):
        assert trace not in content, trace


def test_the_installed_wheel_runs_on_the_cpu_and_says_why_not_on_the_ane(installed, tmp_path):
    import coremltools

    dependencies = {str(Path(module.__file__).parents[1]) for module in (numpy, coremltools)}
    environment = {key: value for key, value in os.environ.items() if not key.startswith("ANEX_")}
    environment["PYTHONPATH"] = os.pathsep.join([str(installed), *dependencies])
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM], cwd=tmp_path, env=environment, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    place, total, *reason = done.stdout.splitlines()
    assert Path(place).is_relative_to(installed)
    assert float(total) == 24
    assert len(reason) == 1
    assert "Neural Engine is part of Apple silicon" in reason[0]
