"""Programs in which data decide shapes: planned step by step, each step when the values it waits for are known.

``non_zero`` gives as many rows as there are elements that are not 0, and ``reshape``, ``tile``, ``range_1d``,
``slice_by_index``, ... take shapes that the program computes. A step is the program from its start up to
the first such op, with what is known by now put in: results of ``non_zero`` as inputs of the step, computed
shapes as constants. Steps are kept by what they were made for, so that the next call with the same
shapes plans nothing.
"""

from __future__ import annotations

import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from .._coremltools import coremltools
from ..creation import empty as empty_tensor
from ..errors import ClosedError, CompileError, UnsupportedError
from ..ops import dtype_name
from ..spec import Spec, spec_of_result
from . import empty

if TYPE_CHECKING:
    from coremltools.converters.mil.mil import Function, Operation, Var

    from . import Executable, Pending, Signature

FOUND: Mapping[str, tuple[str, ...]] = {  # computed here, between steps; and the dtypes they take
    "non_zero": ("float16", "float32", "int32", "bool")
}
DATA = frozenset({"x", "value", "data", "values"})  # arguments that decide no shape, though they may be small
KEPT = 32  # steps

Find = Callable[["Operation", "np.ndarray[Any, Any]"], "np.ndarray[Any, Any]"]
Make = Callable[["Function", Mapping[str, Spec], Mapping[str, Spec]], "Executable"]


def is_static(var: Var) -> bool:
    return all(isinstance(dim, (int, np.integer)) for dim in var.shape or ())


def is_needed(function: Function) -> bool:
    """Whether some op's result has a shape that only data decide."""
    return not all(is_static(var) for op in function.operations for var in op.outputs)


@dataclass(frozen=True)
class Step:
    """It gives the arguments ``names`` of the op ``waits_for``; or, None, the program's outputs."""

    executable: Executable
    function: Function  # that it was planned from
    outputs: Mapping[str, Spec]
    waits_for: Operation | None = None
    names: tuple[str, ...] = ()


@dataclass(frozen=True)
class Ran:
    """A step of one call, and the op of ``FOUND`` that was computed after it: None, or it and the bytes it touched."""

    step: Step
    found: Operation | None
    found_bytes: int


@dataclass(frozen=True)
class Known:
    """Of an op that was waited for: what it found, or what decides its shape; steps are kept by ``key``."""

    arrays: Mapping[str, np.ndarray[Any, Any]]
    key: tuple[Any, ...]

    @property
    def constants(self) -> Mapping[str, Any]:
        """As the builder takes them: numbers, not arrays of rank 0."""
        return {name: array[()] for name, array in self.arrays.items()}


RESULT = "result"  # of an op of FOUND, in Known


class Stepwise:
    """An executable that makes its plans, by ``make``, as calls need them."""

    def __init__(self, function: Function, signature: Signature, make: Make) -> None:
        if any(op.blocks for op in function.operations) or signature.states:
            raise UnsupportedError(
                "data decide shapes in this program, which the CPU engine takes without control flow and states only"
            )
        self.function, self.signature, self.make = function, signature, make
        self.steps: OrderedDict[tuple[Any, ...], Step] = OrderedDict()
        self.lock = threading.Lock()
        self.is_closed = False
        with coremltools():
            self._step([])  # what cannot be planned is refused now

    def run(self, arguments: tuple[Any, ...], out: Any = None) -> Any:
        return self._call(arguments, lambda step, given: step.executable.run(given, out if _is_last(step) else None))

    def _call(
        self, arguments: tuple[Any, ...], run: Callable[[Step, tuple[Any, ...]], Any], find: Find | None = None
    ) -> Any:
        """``run`` gives the results of a step, ``find`` those of an op of ``FOUND``."""
        known: list[Known] = []
        given = arguments
        while True:
            step = self._step(known)
            results = run(step, given)
            op = step.waits_for
            if op is None:
                return results
            several = results if isinstance(results, tuple) else (results,)
            arrays = {name: np.array(y) for name, y in zip(step.names, several, strict=True)}
            if op.op_type in FOUND:
                result = (find or _non_zero)(op, arrays["x"])
                given += (result,)
                known.append(Known({RESULT: result}, result.shape))
            else:
                known.append(Known(arrays, tuple((a.shape, a.tobytes()) for a in arrays.values())))

    def _step(self, known: Sequence[Known]) -> Step:
        key = tuple(each.key for each in known)
        with self.lock:
            if self.is_closed:
                raise ClosedError("this program is closed")
            if key not in self.steps:
                with coremltools():
                    self.steps[key] = self._make_step(known)
                if len(self.steps) > KEPT:
                    self.steps.popitem(last=False)
            self.steps.move_to_end(key)
            return self.steps[key]

    def _make_step(self, known: Sequence[Known]) -> Step:
        """The ops again, in a function of their own, for as far as their shapes are known."""
        from coremltools.converters.mil.mil import Builder, Function

        specs = dict(self.signature.inputs)
        found = [spec_of_result(each.arrays[RESULT].shape, "int32") for each in known if RESULT in each.arrays]
        specs |= {f"found {i}": each for i, each in enumerate(found)}
        with Function({name: _placeholder(each) for name, each in specs.items()}, self.function.opset_version) as step:
            made = {old: step.inputs[name] for name, old in self.function.inputs.items()}
            results = iter([step.inputs[f"found {i}"] for i in range(len(found))])
            waited = iter(known)
            for op in self.function.operations:
                if all(var.val is not None for var in op.outputs):
                    continue  # a constant, or what coremltools has computed
                arguments = {name: _follow(v, made) for name, v in op.inputs.items() if v is not None}
                new = _emit(Builder, op, arguments)
                if not all(map(is_static, new)):
                    there = next(waited, None)
                    if there is None:
                        names = ("x",) if op.op_type in FOUND else _deciding(arguments)
                        if not names:
                            raise UnsupportedError(f"{op.op_type} {op.name!r}: nothing says what shape it gives")
                        step.set_outputs([arguments[name] for name in names])
                        outputs = {name: _spec_of(arguments[name]) for name in names}
                        return Step(self.make(step, specs, outputs), step, outputs, op, names)
                    new = (
                        [next(results)] if op.op_type in FOUND else _emit(Builder, op, {**arguments, **there.constants})
                    )
                made.update(zip(op.outputs, new, strict=True))
            step.set_outputs([_follow(var, made) for var in self.function.outputs])
        return Step(self.make(step, specs, self.signature.outputs), step, self.signature.outputs)

    # ---- what devices ask of every executable

    def begin(self, arguments: tuple[Any, ...], out: Any = None) -> Pending:
        return _Pending(self, arguments, out)

    def nodes(self) -> Sequence[tuple[str, str, int]]:
        raise UnsupportedError("data decide shapes in this program: what runs differs between calls, see trace()")

    def trace(self, arguments: tuple[Any, ...]) -> list[Ran]:
        """The steps of a call with these arguments."""
        ran: list[Ran] = []

        def run(step: Step, given: tuple[Any, ...]) -> Any:
            ran.append(Ran(step, None, 0))
            return step.executable.run(given)

        def find(op: Operation, x: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
            result = _non_zero(op, x)
            ran[-1] = Ran(ran[-1].step, op, x.nbytes + result.nbytes)
            return result

        self._call(arguments, run, find)
        return ran

    def profile(self, arguments: tuple[Any, ...], out: Any) -> Sequence[float]:
        """The wall seconds of the nodes of each step, and of what is found after it."""
        seconds: list[float] = []

        def run(step: Step, given: tuple[Any, ...]) -> Any:
            made = [] if _is_last(step) else [_room(each) for each in step.outputs.values()]
            results = out if _is_last(step) else made[0] if len(made) == 1 else tuple(made)
            seconds.extend(step.executable.profile(given, results))
            return results

        def find(op: Operation, x: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
            begin = time.perf_counter()
            result = _non_zero(op, x)
            seconds.append(time.perf_counter() - begin)
            return result

        self._call(arguments, run, find)
        return seconds

    def stats(self) -> Mapping[str, Any]:
        """``steps``, and of them all the counts and bytes of their plans."""
        with self.lock:
            each = [step.executable.stats() for step in self.steps.values()]
        names = {name for stats in each for name, value in stats.items() if isinstance(value, int)}
        return {"steps": len(each)} | {name: sum(stats[name] for stats in each) for name in sorted(names)}

    def close(self) -> None:
        with self.lock:
            self.is_closed = True
            for step in self.steps.values():
                step.executable.close()
            self.steps.clear()


@dataclass(frozen=True)
class _Pending:
    program: Stepwise
    arguments: tuple[Any, ...]
    out: Any

    def run(self) -> Any:
        return self.program.run(self.arguments, self.out)


def _is_last(step: Step) -> bool:
    return step.waits_for is None


def _non_zero(op: Operation, x: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """[n, rank of x]: where x is not 0, in order."""
    return np.argwhere(x).astype(np.int32)


def _room(spec: Spec) -> Any:
    return empty_tensor(spec.shape, dtype=spec.dtype) if 0 not in spec.shape else np.empty(spec.shape, spec.dtype)


def _placeholder(given: Spec) -> Any:
    from coremltools.converters.mil.mil import Builder, types

    dtype = types.type_mapping.numpy_type_to_builtin_type(given.dtype)
    return Builder.placeholder(given.shape, dtype=dtype, allow_rank0_input=True)


def _follow(var: Any, made: Mapping[Var, Var]) -> Any:
    """The variable of the step, or the value of a constant."""
    if isinstance(var, (list, tuple)):
        return [_follow(each, made) for each in var]
    return made.get(var, var.val)


def _emit(builder: Any, op: Operation, arguments: Mapping[str, Any]) -> list[Var]:
    try:
        if (nothing := empty.refused_by_builder(op.op_type, arguments)) is not None:
            return [builder.const(val=nothing, name=op.name)]
        result = getattr(builder, op.op_type)(**arguments, name=op.name)
    except Exception as error:
        raise CompileError(f"with what was computed in this call, {op.op_type} {op.name!r}: {error}") from error
    return list(result) if isinstance(result, (list, tuple)) else [result]


def _deciding(arguments: Mapping[str, Any]) -> tuple[str, ...]:
    """Computed arguments that say how large, or where: numbers, and lists of integers."""

    def decides(name: str, var: Any) -> bool:
        if name in DATA or not hasattr(var, "sym_type") or var.val is not None:
            return False
        return var.rank == 0 or (var.rank == 1 and "int" in dtype_name(var))

    return tuple(name for name, var in arguments.items() if decides(name, var))


def _spec_of(var: Var) -> Spec:
    return spec_of_result(tuple(map(int, var.shape)), dtype_name(var).replace("fp", "float"))
