"""One-op programs, compared with somebody else's arithmetic.

``check("softmax", x=values, axis=-1, device=device)`` builds a MIL program of that one op, runs it on
the device in float16 and in float32, and compares each output with ``expected``: a function of the
float64 arrays, an array, or, when left out, coremltools' own ``value_inference``.
"""

from __future__ import annotations

import functools
import warnings
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import coremltools as ct
import numpy as np
from coremltools.converters.mil.mil import Builder as mb
from coremltools.converters.mil.mil import Function, Program, types
from strict_case import same_everywhere

import anex
from anex.devices.cpu import lower

EVERYWHERE = True  # run strict plans on every instruction set too
RTOL = {"float16": 1e-2, "float32": 1e-4}
DEVICE = "cpu"  # of what names no other; conftest.py sets it for each test


def computed(dtype: str, device: str | None = None) -> str:
    """The floating dtype that the device computes in, whatever goes in and out."""
    return "float16" if (device or DEVICE) == "ane" else dtype


def rounded(x: np.ndarray) -> np.ndarray:
    """``x`` as this test's device holds it: what it only moves comes back as it is."""
    return x.astype(computed(x.dtype.name)).astype(x.dtype)


def tolerance(rtol: float) -> float:
    """``rtol``, or half precision's where this test's device knows nothing else."""
    return max(rtol, RTOL["float16"]) if computed("float32") == "float16" else rtol


def is_floating(value: Any) -> bool:
    return isinstance(value, np.ndarray) and value.dtype.kind == "f"


def is_tensor(value: Any) -> bool:
    return isinstance(value, np.ndarray) and value.ndim > 0 and value.dtype.kind in "fiub"


def build(op: str, arguments: Mapping[str, Any], constants: Sequence[str] = (), opset: str = "iOS18") -> Program:
    """A program of one op. Arrays (rank >= 1) are inputs unless named in ``constants``; so are arrays in lists."""
    inputs: dict[str, np.ndarray] = {}

    def replace(name: str, value: Any) -> Any:
        if isinstance(value, (list, tuple)) and value and all(is_tensor(item) for item in value):
            return [replace(f"{name}_{i}", item) for i, item in enumerate(value)]
        if name.rsplit("_", 1)[0] in constants or name in constants or not is_tensor(value):
            return value
        inputs[name] = value
        return functools.partial(lambda name, function: function.inputs[name], name)

    replaced = {name: replace(name, value) for name, value in arguments.items()}
    placeholders = {
        name: mb.placeholder(value.shape, dtype=types.type_mapping.numpy_type_to_builtin_type(value.dtype))
        for name, value in inputs.items()
    }
    program = Program()
    with Function(placeholders, ct.target[opset]) as function:

        def resolve(value: Any) -> Any:
            if isinstance(value, functools.partial):
                return value(function)
            return [resolve(item) for item in value] if isinstance(value, list) else value

        result = getattr(mb, op)(**{name: resolve(value) for name, value in replaced.items()}, name="y")
        outputs = list(result) if isinstance(result, (list, tuple)) else [result]
        if not inputs:  # everything is a constant: still one op to run, so it needs an input to be legal
            raise ValueError(f"{op}: no argument is an input")
        function.set_outputs(outputs)
    program.add_function("main", function)
    program.test_inputs = tuple(inputs.values())
    return program


def run(
    op: str,
    *,
    device: str | None = None,
    constants: Sequence[str] = (),
    opset: str = "iOS18",
    isa: str | None = None,
    **arguments: Any,
) -> tuple[np.ndarray, ...]:
    """The outputs of one op as arrays; ``isa`` forces an instruction set of the CPU engine.

    On the CPU engine without ``isa`` it is run strictly too, every way there is, which must be one.
    """
    program = build(op, arguments, constants, opset)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", anex.AneWarning)  # contested rules, which the comparison answers
        compiled = anex.compile(program, device=device or DEVICE)
    if isa is None:
        result = compiled(*program.test_inputs)
        if EVERYWHERE and device == "cpu" and not op.startswith("random_"):
            same_everywhere(program, program.test_inputs)
    else:
        plan = lower(program.functions["main"], compiled.inputs, compiled.outputs, isa)
        result = plan.run(program.test_inputs)
    outputs = result if isinstance(result, tuple) else (result,)
    return tuple(np.array(output) for output in outputs)


def inferred(op: str, opset: str, arguments: Mapping[str, Any]) -> tuple[np.ndarray, ...]:
    """What coremltools computes when every argument is a constant."""
    with Function({"unused": mb.placeholder((1,), dtype=types.fp32)}, ct.target[opset]) as function:
        result = getattr(mb, op)(**arguments, name="y")
        outputs = list(result) if isinstance(result, (list, tuple)) else [result]
        function.set_outputs(outputs)
    values = [output.val for output in outputs]
    if any(value is None for value in values):
        raise ValueError(f"coremltools infers no value for {op}: pass expected=")
    return tuple(np.asarray(value) for value in values)


def check(
    op: str,
    *,
    device: str | None = None,
    expected: Callable[..., Any] | np.ndarray | tuple[np.ndarray, ...] | None = None,
    dtype: str | Sequence[str] = ("float16", "float32"),
    rtol: float | None = None,
    atol: float | None = None,
    constants: Sequence[str] = (),
    opset: str = "iOS18",
    isa: str | None = None,
    **arguments: Any,
) -> None:
    """Run ``op`` on ``device`` in each ``dtype`` (of its floating arrays) and compare.

    ``expected``: called with the arguments by name as float64 (floating arrays rounded to the dtype
    first, so that only the arithmetic is compared), or the arrays themselves. Integer and bool
    results must be equal. ``atol`` is in units of the largest expected magnitude, 1 at least.
    """
    floating = any(
        is_floating(v) or (isinstance(v, (list, tuple)) and any(map(is_floating, v))) for v in arguments.values()
    )
    for name in [dtype] if isinstance(dtype, str) else dtype[: None if floating else 1]:
        given = {key: _cast(_cast(value, computed(name, device)), name) for key, value in arguments.items()}
        found = run(op, device=device, constants=constants, opset=opset, isa=isa, **given)
        if expected is None:
            wanted = inferred(op, opset, given)
        elif callable(expected):
            wanted = expected(**{key: _cast(value, "float64") for key, value in given.items()})
        else:
            wanted = expected
        wanted = wanted if isinstance(wanted, (tuple, list)) else (wanted,)
        assert len(found) == len(wanted), f"{op}: {len(found)} outputs, {len(wanted)} expected"
        for i, (left, right) in enumerate(zip(found, wanted, strict=True)):
            _compare(f"{op} output {i} in {name}", left, np.asarray(right), rtol, atol, computed(name, device))


def _cast(value: Any, dtype: str) -> Any:
    if isinstance(value, (list, tuple)) and any(map(is_floating, value)):
        return [_cast(item, dtype) for item in value]
    if is_floating(value):
        return value.astype(dtype)
    return value


def _compare(
    what: str, found: np.ndarray, wanted: np.ndarray, rtol: float | None, atol: float | None, arithmetic: str
) -> None:
    assert found.shape == wanted.shape, f"{what}: shape {found.shape}, expected {wanted.shape}"
    if found.dtype.kind != "f":
        np.testing.assert_array_equal(found, wanted, err_msg=what)
        return
    narrow = min(arithmetic, found.dtype.name)
    relative = RTOL[narrow] if rtol is None else rtol
    if narrow != found.dtype.name:
        relative = max(relative, RTOL[narrow])
        atol = None if atol is None else max(atol, RTOL[narrow])
    with np.errstate(over="ignore"):
        wanted = wanted.astype(narrow).astype(np.float64)  # infinite where the dtype overflows
    finite = np.abs(wanted[np.isfinite(wanted)])
    absolute = (relative if atol is None else atol) * max(1.0, float(finite.max(initial=0.0)))
    np.testing.assert_allclose(found.astype(np.float64), wanted, rtol=relative, atol=absolute, err_msg=what)
