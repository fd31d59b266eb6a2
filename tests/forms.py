"""Which argument forms of MIL's ops no test has tried: a pytest plugin.

    PYTHONPATH=tests python -m pytest -p forms tests/ops tests/test_fuzz.py -k "not ane"

Notes every op that is lowered for the CPU engine, and at the end lists, of coremltools' signatures, the
versions, dtypes, ranks and arguments that were never among them. Arguments whose form coremltools
refuses cannot be tried; they are listed too.
"""

from __future__ import annotations

import inspect
import json
import os
import re
from collections import defaultdict
from pathlib import Path
from typing import Any

from anex.devices import cpu, stepwise
from anex.ops import dtype_name

SEEN: dict[str, set[str]] = defaultdict(set)


def note(op: Any) -> None:
    if not hasattr(op, "input_spec"):
        return  # the engine's own
    version = type(op).__module__.split(".")[-2]
    key = f"{op.op_type} {version}"
    for name in op.input_spec.input_types:
        given = op.inputs.get(name)
        if given is None:
            SEEN[key].add(f"{name}: left out")
            continue
        several = given if isinstance(given, (list, tuple)) else [given]
        for var in several:
            if not hasattr(var, "sym_type"):
                continue
            SEEN[key].add(f"{name}: {dtype_name(var)}")
            SEEN[key].add(f"{name}: {'constant' if var.val is not None else 'computed'}")
            if var.val is None:
                SEEN[key].add(f"rank {len(var.shape or ())}")
            if isinstance(var.val, (str, bool)):
                SEEN[key].add(f"{name} = {var.val!r}")


def pytest_configure(config: Any) -> None:
    original = cpu.Lowering.add_kernel

    def add_kernel(self: Any, op: Any, before: Any = None) -> None:
        note(op)
        original(self, op, before)

    cpu.Lowering.add_kernel = add_kernel
    emit = stepwise._emit

    def emitted(builder: Any, op: Any, arguments: Any) -> Any:
        note(op)
        return emit(builder, op, arguments)

    stepwise._emit = emitted


def defaults(cls: Any) -> str:
    """The text of what fills in for arguments that are left out: those are never missing."""
    return "".join(inspect.getsource(each.default_inputs) for each in cls.__mro__ if "default_inputs" in vars(each))


def wanted() -> dict[str, set[str]]:
    """The forms of coremltools' signatures."""
    from coremltools.converters.mil.mil import types
    from coremltools.converters.mil.mil.input_type import TensorInputType, TupleInputType
    from coremltools.converters.mil.mil.ops.registry import SSAOpRegistry

    found: dict[str, set[str]] = {}
    for name, versions in SSAOpRegistry.core_ops.items():
        if name not in cpu.kernels() and name not in stepwise.FOUND:
            continue
        for cls in dict.fromkeys(versions.values()):
            forms = found.setdefault(f"{name} {cls.__module__.split('.')[-2]}", set())
            for argument, kind in cls.input_spec.input_types.items():
                if argument[0] == "_" or not isinstance(kind, (TensorInputType, TupleInputType)):
                    continue
                if kind.optional and not re.search(rf"\b{argument}=(?!None)", defaults(cls)):
                    forms.add(f"{argument}: left out")
                domain = getattr(kind, "type_domain_id", None)
                for dtype in cls.type_domains.get(domain, ()) if domain else ():
                    forms.add(f"{argument}: {types.builtin_to_string(dtype)}")
                if not kind.const and not name.startswith("constexpr"):
                    forms.add(f"{argument}: computed")
    return found


def pytest_sessionfinish(session: Any) -> None:
    if folder := os.environ.get("FORMS"):  # each worker's own
        Path(folder).mkdir(exist_ok=True)
        Path(folder, f"{os.getpid()}.json").write_text(json.dumps({key: sorted(forms) for key, forms in SEEN.items()}))


def pytest_terminal_summary(terminalreporter: Any) -> None:
    for file in Path(os.environ.get("FORMS", "/nonexistent")).glob("*.json"):
        for key, forms in json.loads(file.read_text()).items():
            SEEN[key] |= set(forms)
    terminalreporter.section("forms of ops that nothing tried")
    for key, forms in sorted(wanted().items()):
        if missing := sorted(forms - SEEN[key]):
            what = "never" if not SEEN[key] else ", ".join(missing)
            terminalreporter.write_line(f"{key}: {what}")
    terminalreporter.section("ranks and texts tried")
    for key, forms in sorted(SEEN.items()):
        some = sorted(form for form in forms if form.startswith("rank") or " = " in form)
        terminalreporter.write_line(f"{key}: {', '.join(some)}")
