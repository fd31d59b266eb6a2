"""One case of the op suite on the Neural Engine, against the CPU engine."""

from __future__ import annotations

import statistics
import time
import warnings
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from ..errors import CompileError, Error, UnsupportedError
from .cases import Case
from .compare import compare

if TYPE_CHECKING:
    import numpy as np
    from coremltools.converters.mil.mil import Program

REPEAT = 5  # runs that are timed; the median counts


def run(case: Case, *, force: bool = False, device: str = "ane") -> dict[str, Any]:
    """The case's record in the report; ``status`` is one of STATUSES.

    ``force``: where the rules refuse it, or the passes might hide what happens, the program is handed to the
    framework as it is, and ``forced`` holds what came of that.
    """
    from ..program import compile

    record: dict[str, Any] = {"id": case.id, "op": case.op, "inputs": case.label}
    try:
        program = case.build()
        if _is_known_before(program, case):
            return {
                **record,
                "status": "folded",
                "reason": "the result is known when the program is built; nothing runs",
            }
        values = case.values()
        reference = compile(program, device="cpu")
        wanted = _outputs(reference, values)
    except Error as error:
        return {**record, "status": "no reference", "reason": f"the CPU engine: {error}"}
    record["cpu_seconds"] = _time(lambda: _outputs(reference, values))
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        record |= _on_device(case, program, values, wanted, device)
    if caught:
        record["warnings"] = [str(each.message) for each in caught]
    if force:
        record["forced"] = _forced(case, program, values, wanted)
    return record


STATUSES = ("ok", "wrong", "refused", "folded", "compile error", "eval error", "no reference", "crash", "timeout")
FAILURES = ("wrong", "compile error", "eval error", "no reference", "crash", "timeout")


def _is_known_before(program: Program, case: Case) -> bool:
    from ..devices.cpu import is_folded

    uses = [op for op in program.functions["main"].operations if op.op_type == case.op]
    return bool(uses) and all(is_folded(op) for op in uses) and not case.op.startswith("constexpr_")


def _on_device(
    case: Case, program: Program, values: dict[str, np.ndarray], wanted: list[np.ndarray], device: str
) -> dict[str, Any]:
    from ..program import compile

    start = time.perf_counter()
    try:
        compiled = compile(program, device=device)
    except UnsupportedError as error:
        return {"status": "refused", "reason": str(error)}
    except CompileError as error:
        return {"status": "compile error", "reason": str(error)}
    except Error as error:
        return {"status": "compile error", "reason": f"{type(error).__name__}: {error}"}
    compile_seconds = time.perf_counter() - start
    with compiled:
        try:
            found = _outputs(compiled, values)
            seconds = _time(lambda: _outputs(compiled, values))
        except Error as error:
            return {"status": "eval error", "reason": f"{type(error).__name__}: {error}"}
    return {"compile_seconds": compile_seconds, "seconds": seconds, **_verdict(case, found, wanted)}


def _verdict(case: Case, found: list[np.ndarray], wanted: list[np.ndarray]) -> dict[str, Any]:
    import numpy as np

    if case.is_random:
        sane = all(
            np.isfinite(left).all() and left.shape == right.shape for left, right in zip(found, wanted, strict=True)
        )
        return {"status": "ok" if sane else "wrong", "reason": "random: only finiteness and shape are compared"}
    errors = [compare(left, right) for left, right in zip(found, wanted, strict=True)]
    worst = max(errors, key=lambda each: each["relative"])
    record: dict[str, Any] = {"status": "ok" if worst["relative"] <= case.tolerance else "wrong", **worst}
    if record["status"] == "wrong":
        record["reason"] = f"error {worst['relative']:.3g} of the largest value, {case.tolerance:g} is tolerated"
    return record


def _outputs(program: Any, values: dict[str, np.ndarray]) -> list[np.ndarray]:
    import numpy as np

    state = {"state": program.make_state()} if program.states else {}
    result = program(**{name: values[name] for name in program.inputs}, **state)
    return [np.array(each) for each in (result if isinstance(result, tuple) else (result,))]


def _time(call: Callable[[], Any]) -> float:
    times = []
    for _ in range(REPEAT):
        start = time.perf_counter()
        call()
        times.append(time.perf_counter() - start)
    return statistics.median(times)


class _AsItIs:
    """A program as MIL text, with neither rules nor passes: what ``raw.Model`` takes."""

    def __init__(self, program: Program) -> None:
        from .. import store
        from ..ops import dtype_name
        from .text import WEIGHTS

        function = program.functions["main"]
        text, weights = store.to_text(program)
        self.mil = text.encode()
        self.blobs: dict[str, bytes] = {WEIGHTS: weights} if weights else {}
        variables = [*function.inputs.values(), *function.outputs]
        self.shapes = {var.name: tuple(map(int, var.shape)) for var in variables}
        self.dtypes = {var.name: dtype_name(var) for var in variables}
        self.outputs = [var.name for var in function.outputs]

    def render(self, *_: str) -> bytes:
        return self.mil


def _forced(case: Case, program: Program, values: dict[str, np.ndarray], wanted: list[np.ndarray]) -> dict[str, Any]:
    from .raw import Model, Refused, said

    if case.state is not None:
        return {"status": "not tried", "reason": "a state is no input of an in-memory program"}
    try:
        text = _AsItIs(program)
        with Model(text) as model:
            found = model.start().run(values)
            return _verdict(case, [found[name] for name in text.outputs], wanted)
    except Refused as refused:
        kind = "eval error" if refused.stage == "evaluate" else "compile error"
        return {"status": kind, "reason": f"{refused.stage}: {said(refused.reply)}"}
    except (Error, KeyError) as error:
        return {"status": "compile error", "reason": f"{type(error).__name__}: {error}"}
