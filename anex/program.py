"""Compiling a MIL program for a device, and calling what comes out."""

from __future__ import annotations

import os
from collections.abc import Mapping
from types import MappingProxyType, TracebackType
from typing import TYPE_CHECKING, Any, TypeAlias

from . import devices
from ._coremltools import coremltools
from ._native import Caller
from .errors import ArgumentError, CompileError, ShapeError, UnsupportedError
from .spec import Spec, spec, spec_of_result
from .state import State, tensors_of

if TYPE_CHECKING:
    from concurrent.futures import Future

    from coremltools.converters.mil import mil

    from ._native import Tensor
    from .profiling import Profile


# A device, its options as given, and as it takes them.
_Candidate: TypeAlias = "tuple[devices.Device, dict[str, Any], Any]"


def compile(program: mil.Program, *, device: str | None = None, fallback: str | None = None, **options: Any) -> Program:
    """Compile a MIL program in memory for ``device``: ``"cpu"`` (what None means) or ``"ane"``.

    ``program``: what ``anex.graph``, ``from_torch``, ``from_mlpackage``, ``from_mil`` or coremltools'
    ``mb.program`` make. It is read, never changed. Where the device is missing or refuses an op,
    the whole program goes to ``fallback``; without one that is an ``UnsupportedError`` with every
    reason. Programs whose inputs have no fixed shape are refused likewise; one that contradicts itself is a
    ``CompileError``. Of several functions each is compiled: see ``Program.functions``.

    ``options`` are those of ``device``, and dropped where ``fallback`` takes over: for ``"cpu"`` ``strict``,
    ``ane_numerics`` and ``chip`` (``anex.devices.cpu.CpuOptions``); for ``"ane"`` ``qos``, ``isolate``,
    ``way``, ``passes``, ``keep``, ``perf_stats``, ``recompile``, ``timeout`` and ``unchecked``
    (``anex.devices.ane.AneOptions``).

    >>> @anex.graph(x=(1, 2))
    ... def twice(x):
    ...     return mb.add(x=x, y=x, name="y")
    >>> anex.compile(twice)(np.ones((1, 2), np.float16)).tolist()
    [[2.0, 2.0]]
    """
    first = devices.get(device)
    candidates = [(first, options, devices.options_of(first, options))]
    if fallback is not None:
        second = devices.get(fallback)
        candidates.append((second, {}, devices.options_of(second, {})))
    with coremltools():
        functions = _functions(program)
        signatures = {name: _signature(function) for name, function in functions.items()}
        target, options, chosen = _choose(functions, candidates)
        executables = target.compile(program, signatures, chosen)
        parts = {
            name: Program(program, target, name, signatures[name], executables[name], options) for name in functions
        }
        return next(iter(parts.values())) if len(parts) == 1 else _Several(program, target, parts, options)


def _functions(program: Any) -> dict[str, Any]:
    functions = getattr(program, "functions", None)
    if not isinstance(functions, dict) or not functions:
        raise ArgumentError(
            f"compile() takes a MIL program, got a {type(program).__name__}; "
            "anex.graph, from_torch, from_mlpackage and from_mil make one"
        )
    return functions


def _signature(function: Any) -> devices.Signature:
    specs = {name: _spec(name, var) for name, var in function.inputs.items()}
    states = {name: specs.pop(name) for name, var in function.inputs.items() if is_state(var)}
    outputs = {var.name: _spec(var.name, var, is_output=True) for var in function.outputs}
    if len(outputs) != len(function.outputs):
        raise CompileError("two outputs have one name; name them apart with name= in the builder")
    return devices.Signature(specs, outputs, states)


def _spec(name: str, var: Any, *, is_output: bool = False) -> Spec:
    """A dimension of an output that only data decide is -1."""
    from .devices.cpu import DTYPES
    from .ops import dtype_name

    dims = tuple(map(_plain, var.shape or ()))
    is_static = all(isinstance(dim, int) for dim in dims)
    if var.shape is None or not (is_static or is_output):
        raise UnsupportedError(
            f"{name!r} has the dynamic shape {tuple(map(str, var.shape or ()))}; anex compiles static shapes, "
            "as the Neural Engine runs them: convert the model with fixed input shapes, one program per size"
        )
    found = dtype_name(var)
    if found not in DTYPES or DTYPES[found] != _numpy_name(found):
        raise UnsupportedError(f"{name!r} is {found}, which is not a dtype of inputs and outputs")
    try:
        fixed = (spec_of_result if is_output else spec)(
            tuple(dim if isinstance(dim, int) else 1 for dim in dims), DTYPES[found]
        )
        return fixed if is_static else Spec(tuple(dim if isinstance(dim, int) else -1 for dim in dims), fixed.dtype)
    except ShapeError as error:
        raise ShapeError(f"{name!r}: {error}") from None


def is_state(var: Any) -> bool:
    from coremltools.converters.mil.mil import types

    return bool(types.is_state(var.sym_type))


def _plain(dim: Any) -> Any:
    """coremltools mixes Python's and numpy's ints; symbols stay what they are."""
    return int(dim) if hasattr(dim, "__index__") else dim


def _numpy_name(mil_dtype: str) -> str:
    return mil_dtype.replace("fp", "float")


def _choose(functions: Mapping[str, Any], candidates: list[_Candidate]) -> _Candidate:
    """The first that can run the program."""
    *earlier, last = candidates
    for candidate in earlier:
        try:
            _refuse_objections(functions, candidate)
        except UnsupportedError:
            continue
        return candidate
    _refuse_objections(functions, last)
    return last


def _refuse_objections(functions: Mapping[str, Any], candidate: _Candidate) -> None:
    device, _, options = candidate
    devices.require(device)
    objections = device.objections(options)
    reasons = [
        (f"{name}: " if len(functions) > 1 else "") + f"{op.op_type} {op.name!r}: {reason}"
        for name, function in functions.items()
        for op in function.operations
        for reason in objections(op)
    ]
    if reasons:
        shown = "\n  ".join(reasons[:20]) + (f"\n  and {len(reasons) - 20} more" if len(reasons) > 20 else "")
        raise UnsupportedError(f"device={device.name!r} cannot run {len(reasons)} op(s):\n  {shown}")


class Program(Caller):
    """A MIL program compiled for one device; made by ``anex.compile``.

    ``program(x, y)`` or ``program(x=x, y=y)`` takes one Tensor or array per input, of exactly the
    shapes and dtypes in ``inputs``, and returns a Tensor, or a tuple of them when there are several
    outputs. A program with ``states`` keeps them in what ``make_state()`` gives, passed as ``state=``.
    ``out=`` (one, or a tuple) is written instead and returned; such a call allocates
    nothing. Calls may come from any number of threads at once. Arrays of any strides are accepted;
    those that are not packed are packed on the way in, which takes time.
    """

    def __init__(
        self,
        source: mil.Program,
        device: devices.Device,
        name: str,
        signature: devices.Signature,
        executable: devices.Executable,
        options: Mapping[str, Any],
    ) -> None:
        super().__init__(executable, signature.inputs, bool(signature.states))
        self._device = device
        self._name = name
        self._executable = executable
        self._options = dict(options)
        self.source = source  # the MIL program as it was given; read it, change nothing
        self.inputs: Mapping[str, Spec] = MappingProxyType(dict(signature.inputs))
        self.outputs: Mapping[str, Spec] = MappingProxyType(dict(signature.outputs))
        self.states: Mapping[str, Spec] = MappingProxyType(dict(signature.states))

    @property
    def functions(self) -> Mapping[str, Program]:
        """The program's functions by name, each a ``Program``; calling the whole program calls ``"main"``.

        They share what was compiled, and on the Neural Engine one place among the loaded programs.
        """
        return MappingProxyType({self._name: self})

    @property
    def device(self) -> str:
        """The name of the device it was compiled for."""
        return self._device.name

    def make_state(self) -> State:
        """What the program keeps between calls, zero at first; pass it as ``state=`` to each call."""
        return State(self.states)

    def state_tensors(self, state: State | None) -> tuple[Tensor, ...]:
        """What a call binds after its inputs. ``ArgumentError`` without the state the program needs."""
        return tensors_of(state, self.states)

    @property
    def mil(self) -> str:
        """The program as MIL text, as Core ML's compiler would print it."""
        from . import store

        return store.text(self.source)

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the program: to a ``.mlpackage``, or else to a folder of ``model.mil`` and its weights."""
        from . import store

        store.save(self.source, path)

    def profile(self, *arguments: Any, repeat: int | None = 100, state: State | None = None, **named: Any) -> Profile:
        """Call the program ``repeat`` times and measure what each op takes, after a short warm-up.

        ``repeat=None``: 10 times, 3 where a call takes more than 0.1 s, once from 1 s on.

        Inputs as in a call. Results go to outputs made once, so that only the program is timed, and
        are dropped. The device and the machine's limits stand on every output of the ``Profile``.

        >>> @anex.graph(x=(1, 2))
        ... def twice(x):
        ...     return mb.add(x=x, y=x, name="y")
        >>> profile = anex.compile(twice).profile(np.ones((1, 2), np.float16), repeat=10)
        >>> [(row.op, row.name, row.flops, row.bytes) for row in profile.rows]
        [('add', 'y', 2, 12)]
        """
        from .profiling.measuring import measure

        bound = self.bind(arguments, named, state)
        return measure(self.source.functions[self._name], self.device, self._executable, bound, repeat)

    def submit(self, *arguments: Any, out: Any = None, state: State | None = None, **named: Any) -> Future[Any]:
        """Call the program without waiting for it: a future of what the call would return or raise.

        The tensors stay pinned until it is done; do not write to them before. The Neural Engine takes
        127 calls at once, other devices as many; the next ``submit`` waits for one to be done. What runs
        already cannot be cancelled. Should the Neural Engine never answer, the future stays pending, and
        neither ``close()`` nor the end of the process waits for it for long; ``isolate=True`` with a
        ``timeout`` ends such calls.

        >>> @anex.graph(x=(1, 2))
        ... def twice(x):
        ...     return mb.add(x=x, y=x, name="y")
        >>> anex.compile(twice).submit(np.ones((1, 2), np.float16)).result().tolist()
        [[2.0, 2.0]]
        """
        from .submit import submit

        return submit(self._executable, lambda: self.bind(arguments, named, state), out)

    def stats(self) -> Mapping[str, Any]:
        """What is known of the compiled program, such as ``arena_bytes``: the intermediate tensors.

        On the Neural Engine: ``identifier`` in the cache, ``staged`` copies of operands that were not on
        surfaces of its layout, ``evaluations``, ``loads``, ``compile_seconds`` and so on.
        """
        return self._executable.stats()

    def close(self) -> None:
        """Free what the device holds, once calls under way are done, which it does not wait for. Twice is harmless."""
        self._executable.close()

    def __enter__(self) -> Program:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def __reduce__(self) -> tuple[Any, ...]:
        from . import store

        return _recompile, (store.dumps(self.source), self.device, self._options, self._name)

    def __repr__(self) -> str:
        def listed(specs: Mapping[str, Spec]) -> str:
            return ", ".join(f"{name}: {s.shape} {s.dtype.name}" for name, s in specs.items())

        return f"anex.Program({listed(self.inputs)} -> {listed(self.outputs)}; device={self.device!r})"


class _Several(Program):
    """A program of several functions; calling it calls ``main``, if there is one."""

    def __init__(
        self, source: mil.Program, device: devices.Device, parts: Mapping[str, Program], options: Mapping[str, Any]
    ) -> None:
        main = parts.get("main", next(iter(parts.values())))
        signature = devices.Signature(main.inputs, main.outputs, main.states)
        super().__init__(source, device, "", signature, main._executable, options)
        self._parts = MappingProxyType(dict(parts))
        self._name = main._name
        if "main" not in parts:
            self.inputs = self.outputs = self.states = MappingProxyType({})

    @property
    def functions(self) -> Mapping[str, Program]:
        return self._parts

    def __call__(self, *arguments: Any, out: Any = None, state: State | None = None, **named: Any) -> Any:
        return self._main()(*arguments, out=out, state=state, **named)

    def bind(self, arguments: tuple[Any, ...], named: dict[str, Any], state: State | None) -> tuple[Any, ...]:
        return self._main().bind(arguments, named, state)

    def _main(self) -> Program:
        if "main" not in self._parts:
            raise ArgumentError(
                f"the program has the functions {', '.join(self._parts)} and no main; "
                f"call one of them: program.functions[{next(iter(self._parts))!r}](...)"
            )
        return self._parts["main"]

    def close(self) -> None:
        for part in self._parts.values():
            part.close()

    def __reduce__(self) -> tuple[Any, ...]:
        make, (data, device, options, _) = super().__reduce__()
        return make, (data, device, options, None)

    def __repr__(self) -> str:
        return f"anex.Program(functions {', '.join(self._parts)}; device={self.device!r})"


def _recompile(data: bytes, device: str, options: Mapping[str, Any], function: str | None) -> Program:
    from . import store

    whole = compile(store.loads(data), device=device, **options)
    return whole if function is None else whole.functions[function]
