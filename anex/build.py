"""MIL programs from Python: coremltools' builder as a decorator, and torch modules.

Every function here and in ``load`` gives a coremltools ``mil.Program`` with the function ``main``,
whose input and output names are legal in MIL text and unique.
"""

from __future__ import annotations

import contextlib
import inspect
import re
import traceback
from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING, Any

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
            return _build(ct, function, specs, _coremltools.target(ct, target), where)

    return build


def _build(ct: Any, function: Callable[..., Any], specs: Mapping[str, Spec], target: Any, where: str) -> Program:
    from coremltools.converters.mil.mil import Builder as mb
    from coremltools.converters.mil.mil import Function, Program, types

    _coremltools.check_input_names(specs)
    _coremltools.restart_names()
    placeholders = {
        name: mb.placeholder(given.shape, dtype=types.type_mapping.numpy_type_to_builtin_type(given.dtype))
        for name, given in specs.items()
    }
    program = Program()
    with _explained(where, mb):
        with Function(placeholders, target) as main, _constants_follow(mb, types):
            returned = function(**main.inputs)
            main.set_outputs(_outputs(returned, main.inputs, where))
        program.add_function("main", main)
        program.validate()
        _coremltools.legalise(program)
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
            raise CompileError(f"{where}: output {output.name!r} is {what} too; pass mb.identity(x=..., name=...) on")
        seen.add(output.name)
    return outputs


@contextlib.contextmanager
def _explained(where: str, mb: Any) -> Iterator[None]:
    """Errors of the builder become ``CompileError``; those of the caller's own code stay."""
    try:
        yield
    except Error:
        raise
    except Exception as error:
        if isinstance(error, AttributeError) and error.obj is mb:
            raise UnsupportedError(f"{where}: nobody knows the op {error.name!r}") from error
        if not _raised_by_coremltools(error):
            raise
        message = str(error.args[0]) if error.args else type(error).__name__
        hint = "; make the constant fp16: value.astype(np.float16)" if _MIXED.search(message) else ""
        raise CompileError(f"{where}: {message}{hint}") from error


_MIXED = re.compile("fp16.*fp32|fp32.*fp16|share the same data type", re.DOTALL)


def _raised_by_coremltools(error: BaseException) -> bool:
    """Whether the innermost frame that is no library's of coremltools' own is coremltools'."""
    modules = [frame.f_globals.get("__name__", "") for frame, _ in traceback.walk_tb(error.__traceback__)]
    return next(name for name in reversed(modules) if not name.startswith(("numpy", "sympy"))).startswith("coremltools")


@contextlib.contextmanager
def _constants_follow(mb: Any, types: Any) -> Iterator[None]:
    """Within the block, the builder gives constants the dtype of the tensors beside them.

    All ops go through the builder's ``_add_op``, which is wrapped for the time of the block; only
    calls change that coremltools would refuse, or that would mix fp16 tensors with fp32 weights.
    Should a later coremltools have no ``_add_op``, its own rule is back: fp32, and an error.
    """
    original = mb.__dict__.get("_add_op")
    if original is None:
        yield
        return

    def add_op(cls: Any, op: Any, **arguments: Any) -> Any:
        return original.__get__(None, cls)(op, **_follow(types, op, arguments))

    mb._add_op = classmethod(add_op)
    try:
        yield
    finally:
        mb._add_op = original


def _follow(types: Any, op: Any, arguments: Mapping[str, Any]) -> dict[str, Any]:
    """``arguments`` with the constants in the dtype of the tensors, where the op allows it."""
    from coremltools.converters.mil.mil import Var
    from coremltools.converters.mil.mil.input_type import TensorInputType, TupleInputType

    floats = {types.fp16: np.float16, types.fp32: np.float32}
    domains = {name: getattr(kind, "type_domain_id", None) for name, kind in op.input_spec.input_types.items()}
    tensors = {  # type domain -> dtype of the first floating tensor in it; None: in any
        domain: given.dtype
        for name in reversed(domains)
        if isinstance(given := arguments.get(name), Var) and getattr(given, "dtype", None) in floats
        for domain in (domains[name], None)
    }
    result = dict(arguments)
    for name, given in arguments.items():
        kind, domain = op.input_spec.input_types.get(name), domains.get(name)
        where = f"{op.__name__} {arguments.get('name', '')!r}: constant {name}"
        if isinstance(kind, TupleInputType) and isinstance(given, (tuple, list)):
            beside = [item.dtype for item in given if isinstance(item, Var) and item.dtype in floats]
            if beside:
                result[name] = [_cast(item, floats[beside[0]], where, ints=False) for item in given]
        elif isinstance(kind, TensorInputType) and domain is not None:
            beside = tensors.get(domain, tensors.get(None))
            if beside in op.type_domains[domain]:
                result[name] = _cast(given, floats[beside], where, ints=domain in tensors)
    return result


def _cast(given: Any, dtype: type[np.floating[Any]], where: str, *, ints: bool) -> Any:
    """A floating constant in ``dtype``; of Python ints and lists of them too with ``ints``.

    Everything else comes back as it is.
    """
    if isinstance(given, (np.ndarray, np.generic)):
        ints = False  # numpy ints were made ints on purpose
    elif not isinstance(given, (float, int, list, tuple)) or isinstance(given, bool):
        return given
    try:
        value = np.asarray(given)
    except (TypeError, ValueError):  # a ragged list, or one with Vars: the builder says what it thinks
        return given
    if value.dtype.kind != "f" and not (ints and value.dtype.kind == "i") or value.dtype == dtype:
        return given
    with np.errstate(over="ignore"):
        cast = value.astype(dtype)
    lost = np.isinf(cast) & ~np.isinf(value) | (cast == 0) & (value != 0) & (value.ndim == 0)
    if lost.any():
        number, becomes = value[lost][0], cast[lost][0]
        raise CompileError(f"{where} is {number:g}, which {dtype.__name__} makes {becomes:g}; its limits are"
            f" {np.finfo(dtype).smallest_subnormal:g} and {np.finfo(dtype).max:g}")
    return cast if cast.ndim else dtype(cast)
