"""The source itself: layers, sizes, linters, types, the header, and the joins between tables."""

import ast
import re
import subprocess
import sys
from pathlib import Path

import pytest

from anex import _native, errors

ROOT = Path(__file__).parent.parent
PYTHON = sorted(
    path for folder in ("anex", "tests", "examples", "benchmarks") for path in (ROOT / folder).rglob("*.py")
)
NATIVE = sorted(path for pattern in ("*.c", "*.h", "*.inc") for path in (ROOT / "csrc").rglob(pattern))

# Imports point one way: a module may import from its own layer and those after it.
LAYERS = [
    {"__main__"},
    {"cli"},
    {"suite", "dash"},
    {"examples"},
    {"probe"},
    {"bench"},
    {"selftest", "calibration"},
    {"doctor"},
    {"__init__"},
    {"verification"},
    {"quantization"},
    {"report"},
    {"miltools"},
    {"placement", "comparison"},
    {"grad", "dynamic", "attention"},
    {"program", "build"},
    {"profiling"},
    {"answers"},
    {"devices"},
    {"passes"},
    {"cost"},
    {"store"},
    {"load", "torch_frontend", "cache", "submit"},
    {"torch_trainable"},
    {"mil", "ops", "tidy", "agree", "state", "bounds", "torch_plain", "torch_mended", "torch_decomposed"},
    {"optim"},
    {"distributed"},
    {"creation"},
    {
        "_native",
        "_coremltools",
        "_late_sympy",
        "spec",
        "published",
        "power",
        "commands",
        "files",
        "processes",
        "requirements",
    },
    {"errors"},
]


def run(*command: str) -> None:
    done = subprocess.run([sys.executable, "-m", *command], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr


def imported_by(path: Path):
    """The top-level names inside anex that a module imports."""
    package = path.relative_to(ROOT / "anex").parts[:-1]
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and node.level:
            base = package[: len(package) - node.level + 1]
            target = [*base, *(node.module or "").split(".")] if node.module else list(base)
            if target and target[0]:
                yield target[0]
            else:
                yield from (alias.name for alias in node.names)


@pytest.mark.parametrize("path", sorted((ROOT / "anex").rglob("*.py")), ids=lambda p: str(p.relative_to(ROOT)))
def test_imports_point_one_way(path):
    module = path.relative_to(ROOT / "anex").parts[0].removesuffix(".py")
    depth = {name: i for i, layer in enumerate(LAYERS) for name in layer}
    assert module in depth, f"{module} stands in no layer"
    wrong = [name for name in imported_by(path) if name in depth and depth[name] < depth[module]]
    assert not wrong


def test_files_are_small():
    for path in PYTHON:
        assert len(path.read_text().splitlines()) <= 400, path
    for path in [*NATIVE, *ROOT.glob("anex/*.p[xy][xid]")]:
        assert len(path.read_text().splitlines()) <= (600 if path.parent != ROOT / "anex" else 400), path


def test_no_merge_was_left_half_done():
    texts = [*PYTHON, *NATIVE, *ROOT.glob("*.md"), *(ROOT / "anex").glob("_*.p*")]
    marks = re.compile(r"^(<{7} |={7}$|>{7} )", re.MULTILINE)
    assert not [path for path in texts if marks.search(path.read_text())]


def test_the_header_is_plain_c11_without_python(tmp_path):
    source = tmp_path / "header.c"
    source.write_text(
        '#include "anex.h"\nint main(void) { return (int)anex_get_num_threads; }\n'.replace(
            "(int)anex_get_num_threads", "0"
        )
    )
    subprocess.run(
        [
            "gcc",
            "-x",
            "c",
            "-std=c11",
            "-Wall",
            "-Wextra",
            "-Wpedantic",
            "-Werror",
            "-fsyntax-only",
            "-I",
            str(ROOT / "csrc"),
            str(source),
        ],
        check=True,
    )


def test_ruff_is_content():
    run("ruff", "check")


def test_the_package_is_strictly_typed():
    run("mypy")


def test_the_stubs_are_true():
    run("mypy.stubtest", "anex._native", "--mypy-config-file", "pyproject.toml")


def test_every_status_names_an_exception_of_ours_that_is_also_a_builtin():
    rows = re.findall(r'^ANEX_STATUS\((\w+), "(\w+)"', (ROOT / "csrc/status.inc").read_text(), re.MULTILINE)
    assert len(rows) >= 7
    for _, name in rows:
        exception = getattr(errors, name)
        assert issubclass(exception, errors.Error)
        assert len(exception.__bases__) == 2


def test_every_kernel_is_an_op_of_coremltools_and_knows_all_its_inputs_in_every_opset():
    import coremltools  # noqa: F401
    from coremltools.converters.mil.mil.input_type import TupleInputType
    from coremltools.converters.mil.mil.ops.registry import SSAOpRegistry

    for op, (inputs, dtypes) in _native.kernels().items():
        if op.startswith("anex_"):  # the engine's own
            continue
        assert dtypes, op
        versions = SSAOpRegistry.core_ops.get(op) or {None: SSAOpRegistry.dialect_ops[op]}
        names = set()
        for cls in versions.values():
            kinds = cls.input_spec.input_types.items()  # names with _ are the builder's own, never in a file
            known = {name for name, kind in kinds if not isinstance(kind, TupleInputType) and name[0] != "_"}
            assert known <= set(inputs), op
            names |= known
        assert set(inputs) <= names, f"{op}: {set(inputs) - names} are no inputs of it"


def test_each_kernel_stands_in_one_row_and_one_function():
    rows = re.findall(r"^ANEX_KERNEL_ROW\((\w+)", (ROOT / "csrc/cpu/kernels.inc").read_text(), re.MULTILINE)
    assert len(rows) == len(set(rows)) == len(_native.kernels())
