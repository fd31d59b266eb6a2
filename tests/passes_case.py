"""A program before and after its preparation, run side by side on the CPU engine."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

import anex
from anex import store
from anex.passes import PASSES, Prepared, carrier, prepare


def only(*names: str) -> dict[str, bool]:
    """Switches that leave these passes on and no others."""
    return {name: name in names for name in PASSES}


def op_types(program: Any) -> list[str]:
    ops = [op.op_type for f in program.functions.values() for op in f.operations]
    return [name for name in ops if name != "const"]


def texts(program: Any) -> tuple[str, bytes]:
    return store.to_text(program)


def random_inputs(program: anex.Program, rng: np.random.Generator) -> list[np.ndarray]:
    made = []
    for spec in program.inputs.values():
        if spec.dtype == bool:
            made.append(rng.random(spec.shape) < 0.5)
        elif spec.dtype.kind in "iu":
            made.append(rng.integers(0, 2, spec.shape).astype(spec.dtype))
        else:
            made.append(rng.normal(size=spec.shape).astype(spec.dtype))
    return made


def run(program: Any, arguments: list[np.ndarray]) -> list[np.ndarray]:
    with anex.compile(program, device="cpu") as compiled:
        given = [
            np.asarray(a).reshape(s.shape).astype(s.dtype)
            for a, s in zip(arguments, compiled.inputs.values(), strict=True)
        ]
        result = compiled(*given)
        return [np.array(y) for y in (result if isinstance(result, tuple) else (result,))]


def same(
    program: Any,
    rng: np.random.Generator,
    switches: Mapping[str, bool] | None = None,
    *,
    arguments: list[np.ndarray] | None = None,
    atol: float = 4e-3,
    chip: str = "h16g",
) -> Prepared:
    """Prepare, check that the values and the program are what they were, and return what was made.

    ``atol`` is in units of the largest value, 1 at least.
    """
    before = texts(program)
    prepared = prepare(program, switches, chip)
    assert texts(program) == before, "prepare changed the program it was given"
    assert texts(prepare(program, switches, chip).program) == texts(prepared.program)
    if arguments is None:
        with anex.compile(program, device="cpu") as compiled:
            arguments = random_inputs(compiled, rng)
    wanted, found = run(program, arguments), run(prepared.program, arguments)
    assert len(found) == len(wanted) == len(prepared.outputs)
    for x, y in zip(found, wanted, strict=True):
        assert x.shape in (y.shape, carrier(y.shape))
        finite = np.abs(y[np.isfinite(y)].astype(np.float64))
        scale = max(1.0, float(finite.max(initial=0)))
        np.testing.assert_allclose(
            x.reshape(y.shape).astype(np.float64), y.astype(np.float64), rtol=atol, atol=atol * scale
        )
    return prepared
