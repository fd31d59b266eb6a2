"""MIL programs from Python: coremltools' builder as a decorator, and torch modules.

Every function here and in ``load`` gives a coremltools ``mil.Program`` with the function ``main``,
whose input and output names are legal in MIL text and unique.
"""

from __future__ import annotations

import contextlib
import functools
import inspect
import re
import traceback
from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from . import _coremltools
from ._coremltools import coremltools
from .errors import ArgumentError, CompileError, Error, ShapeError, UnsupportedError
from .load import from_mil, from_mlpackage
from .spec import Spec, spec
from .torch_frontend import from_torch

if TYPE_CHECKING:
    from coremltools.converters.mil.mil import Program, Var

__all__ = ["Spec", "from_mil", "from_mlpackage", "from_torch", "graph", "spec"]


def graph(target: Any = None, /, **inputs: Any) -> Callable[[Callable[..., Any]], Program]:
    """Decorator that makes a function of coremltools' builder ops a MIL program.

    Each keyword is an input: a shape for fp16, or ``anex.spec(shape, dtype)``. The function is
    called with coremltools ``Var``s by these names and returns the outputs: one ``Var`` or a tuple;
    an output is named as its op (``name="y"``). ``target`` is the opset: ``ct.target.iOS18`` unless
    another member, or its name, is given.

    Floating constants follow the tensors they meet: a Python number, a list, or a numpy float array
    beside an fp16 tensor becomes fp16 (``mb.const`` says a dtype outright). One that would turn
    infinite, or a single number that would turn zero, is refused.

    Raises ``ShapeError`` and ``DTypeError`` for an input, ``ArgumentError`` when the inputs are not
    the function's parameters, ``CompileError`` with coremltools' reason for ops that do not fit,
    ``UnsupportedError`` for an op it does not have. Errors of the function's own are left as they are.

    >>> import numpy as np
    >>> from coremltools.converters.mil.mil import Builder as mb
    >>> @graph(x=(1, 4, 1, 8))
    ... def double(x):
    ...     return mb.mul(x=x, y=2.0, name="y")
    >>> [(var.name, var.shape) for var in double.functions["main"].outputs]
    [('y', (1, 4, 1, 8))]
    """
    specs = {name: given if isinstance(given, Spec) else spec(given) for name, given in inputs.items()}
    for name, given in specs.items():
        if not given.shape:
            raise ShapeError(f"input {name!r} has rank 0, which Core ML does not take; make it (1,)")

    def build(function: Callable[..., Any]) -> Program:
        where = f"graph {getattr(function, '__name__', 'function')!r}"
        try:
            inspect.signature(function).bind(**specs)
        except TypeError as error:
            raise ArgumentError(f"{where}: {error}; the inputs given are ({', '.join(specs)})") from error
        with coremltools() as ct:
            return _build(function, specs, _coremltools.target(ct, target), where)

    return build


def _build(function: Callable[..., Any], specs: Mapping[str, Spec], target: Any, where: str) -> Program:
    from coremltools.converters.mil.mil import Builder, Function, Program, types

    _coremltools.check_input_names(specs)
    _coremltools.restart_names()
    placeholders = {
        name: Builder.placeholder(given.shape, dtype=types.type_mapping.numpy_type_to_builtin_type(given.dtype))
        for name, given in specs.items()
    }
    program = Program()
    with _explained(where, Builder):
        with Function(placeholders, target) as main, constants_follow(Builder, types):
            returned = function(**main.inputs)
            main.set_outputs(_outputs(returned, main.inputs, where))
        program.add_function("main", main)
        _coremltools.legalise(program)
        _coremltools.validate(program)
    return program


def _outputs(returned: Any, inputs: Mapping[str, Var], where: str) -> list[Var]:
    from coremltools.converters.mil.mil import Var

    outputs = list(returned) if isinstance(returned, (tuple, list)) else [returned]
    if not outputs:
        raise CompileError(f"{where} returns no output")
    seen = set(inputs)
    for output in outputs:
        if not isinstance(output, Var):
            raise CompileError(f"{where} returns {type(output).__name__}, not what an op of the builder gave")
        if output.name in seen:
            what = "an input" if output.name in inputs else "another output"
            raise CompileError(f"{where}: output {output.name!r} is {what} too; return an mb.identity of it")
        seen.add(output.name)
    return outputs


@contextlib.contextmanager
def _explained(where: str, builder: Any) -> Iterator[None]:
    """Errors of the builder become ``CompileError``; those of the caller's own code stay."""
    try:
        yield
    except _Unfit as error:
        raise CompileError(f"{where}, {error}") from None
    except Error:
        raise
    except Exception as error:
        if isinstance(error, AttributeError) and error.obj is builder:
            raise UnsupportedError(f"{where}: nobody knows the op {error.name!r}") from error
        frames = [frame for frame, _ in traceback.walk_tb(error.__traceback__)]
        while frames[-1].f_globals.get("__name__", "").startswith(("numpy", "sympy")):
            frames.pop()  # called by coremltools or by the function: that is the question
        if not frames[-1].f_globals.get("__name__", "").startswith("coremltools"):
            raise
        message = str(error.args[0]) if error.args else type(error).__name__
        ops = [frame.f_locals for frame in frames if frame.f_code.co_name == "_add_op"]
        if ops:  # coremltools names the op in some of its messages only
            name = ops[-1]["kwargs"].get("name", "")
            if not re.search(rf"\b{re.escape(name)}\b", message):
                where += f", {ops[-1]['op_cls'].__name__} {name!r}"
        hint = "; make the constant fp16: value.astype(np.float16)" if _MIXED.search(message) else ""
        raise CompileError(f"{where}: {message}{hint}") from error


class _Unfit(Exception):
    """A constant that the dtype it should take cannot hold."""


_MIXED = re.compile("fp16.*fp32|fp32.*fp16|share the same data type", re.DOTALL)


@contextlib.contextmanager
def constants_follow(builder: Any, types: Any) -> Iterator[None]:
    """Within the block, the builder gives constants the dtype of the tensors beside them.

    All ops go through the builder's ``_add_op``, which is wrapped for the time of the block; only
    calls change that coremltools would refuse, or that would mix fp16 tensors with fp32 weights.
    Should a later coremltools have no ``_add_op``, its own rule is back: fp32, and an error.
    """
    original = builder.__dict__.get("_add_op")
    if original is None:
        yield
        return

    def add_op(cls: Any, op: Any, /, **arguments: Any) -> Any:
        return original.__get__(None, cls)(op, **_follow(types, op, arguments))

    builder._add_op = classmethod(add_op)
    try:
        yield
    finally:
        builder._add_op = original


class _Places(NamedTuple):
    """Where an op's constants may stand: its inputs of tensors, each with its type domain, and of tuples of them."""

    domains: dict[str, Any]
    tensors: frozenset[str]
    tuples: frozenset[str]


@functools.lru_cache(maxsize=1 << 12)
def _places(op: Any) -> _Places:
    from coremltools.converters.mil.mil.input_type import TensorInputType, TupleInputType

    inputs = op.input_spec.input_types
    domains = {name: getattr(kind, "type_domain_id", None) for name, kind in inputs.items()}
    tensors = {name for name, kind in inputs.items() if isinstance(kind, TensorInputType) and domains[name] is not None}
    tuples = {name for name, kind in inputs.items() if isinstance(kind, TupleInputType)}
    return _Places(domains if tensors or tuples else {}, frozenset(tensors), frozenset(tuples))


def _follow(types: Any, op: Any, arguments: dict[str, Any]) -> dict[str, Any]:
    """``arguments`` with the constants in the dtype of the tensors, where the op allows it."""
    places = _places(op)
    if not places.domains:  # most ops: every constant is an op
        return arguments
    from coremltools.converters.mil.mil import ListVar, Var

    def dtype_of(given: Any) -> Any:
        """fp16, fp32, or None for whatever is no floating tensor."""
        dtype = given.dtype if isinstance(given, Var) and not isinstance(given, ListVar) else None
        return dtype if dtype in (types.fp16, types.fp32) else None

    numpy = {types.fp16: np.float16, types.fp32: np.float32}
    beside: dict[Any, Any] = {}  # type domain -> dtype of the first floating tensor in it; None: in any
    for name, domain in places.domains.items():
        if dtype := dtype_of(arguments.get(name)):
            beside.setdefault(domain, dtype)
            beside.setdefault(None, dtype)

    result = dict(arguments)
    for name in places.domains.keys() & arguments.keys():
        given, domain = arguments[name], places.domains[name]
        if isinstance(given, Var):
            continue
        where = f"{op.__name__} {arguments.get('name', '')!r}".replace(" ''", "") + f": constant {name}"
        if name in places.tuples and isinstance(given, (tuple, list)):
            if dtype := next(filter(None, map(dtype_of, given)), None):
                result[name] = [_cast(item, numpy[dtype], where, ints=False) for item in given]
        elif name in places.tensors:
            dtype = beside.get(domain, beside.get(None))
            if dtype in op.type_domains[domain]:
                result[name] = _cast(given, numpy[dtype], where, ints=domain in beside)
    return result


def _cast(given: Any, dtype: type[np.floating[Any]], where: str, *, ints: bool) -> Any:
    """A floating constant in ``dtype``; with ``ints`` Python's ints and lists of them too.

    Everything else comes back as it is.
    """
    if isinstance(given, (np.ndarray, np.generic)):
        ints = False  # numpy's ints were made ints on purpose
    elif not isinstance(given, (float, int, list, tuple)) or isinstance(given, bool):
        return given
    try:
        value = np.asarray(given)
    except (TypeError, ValueError):  # a ragged list, or one with Vars: the builder says what it thinks
        return given
    if value.dtype == dtype or value.dtype.kind not in ("fi" if ints else "f"):
        return given
    with np.errstate(over="ignore"):
        cast = value.astype(dtype)
    lost = np.isinf(cast) & ~np.isinf(value)
    if value.ndim == 0:  # an epsilon, say; a weight among many may well vanish
        lost |= (cast == 0) & (value != 0)
    if lost.any():
        limits = f"{np.finfo(dtype).smallest_subnormal:g} to {np.finfo(dtype).max:g}"
        raise _Unfit(f"{where} is {value[lost][0]:g}; {dtype.__name__} holds {limits}")
    return cast if cast.ndim else dtype(cast)
