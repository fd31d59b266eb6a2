"""torch modules to MIL, through coremltools' converter. torch is imported here and nowhere else."""

from __future__ import annotations

import contextlib
import inspect
import warnings
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from . import _coremltools
from ._coremltools import coremltools
from .errors import (
    ArgumentError,
    CompileError,
    DTypeError,
    Error,
    FormatError,
    MissingFileError,
    ShapeError,
    UnsupportedError,
)  # fmt: skip
from .spec import Spec, spec
from .torch_decomposed import decomposed, readable, taken_apart
from .torch_plain import plain_layers, plain_losses
from .torch_trainable import in_place_of_parameters, mended, parameters_of

if TYPE_CHECKING:
    from coremltools.converters.mil.mil import Program

_INPUT_DTYPES = ("float16", "float32", "int32", "bool")  # what coremltools' converter takes


def from_torch(
    module: Any, /, *, precision: str = "float16", target: Any = None, trainable: bool = False, **example: Any
) -> Program:
    """The MIL program of a torch module, traced with inputs of the shapes in ``example``.

    ``module``: an ``nn.Module`` (traced in eval mode, and left as it was), a ``ScriptModule``, or a
    ``torch.export.ExportedProgram``. Each ``example`` names an input and is one of: a shape, an
    ``anex.spec(shape, dtype)``, a tensor or an array. The names are parameters of ``forward``, or any
    others, and then stand for its parameters in order.

    ``precision`` ("float16" or "float32") is the dtype of everything floating: arithmetic, weights,
    inputs and outputs, whatever the dtype of a floating example; only a ``spec`` is taken at its word.
    Integers become int32, as always in Core ML, whose tensors know no int64: larger values do not fit.
    Outputs are named ``output``, or ``output_0``, ``output_1``, ... when there are several, or as the
    keys of the dict the module returns. ``target`` as in ``anex.graph``. What coremltools has no conversion of is taken
    apart by ``torch.export`` where torch can.

    ``trainable``: the module's parameters become inputs, behind the others, as ``anex.value_and_grad`` wants what it
    differentiates; ``anex.torch_weights(module)`` has their names and values. Buffers stay constants, and layers are
    those of eval mode: no dropout, batch norm by its running statistics.

    Raises ``CompileError`` with torch's or coremltools' reason for a module that cannot be traced or
    converted, ``ArgumentError``, ``ShapeError`` or ``DTypeError`` for examples that do not fit.

    >>> import torch
    >>> program = from_torch(torch.nn.Linear(8, 4), x=(2, 8))
    >>> [(var.name, var.shape) for var in program.functions["main"].outputs]
    [('output', (2, 4))]
    """
    try:
        import torch
    except ImportError as error:
        raise UnsupportedError(f"from_torch needs torch, which cannot be imported: {error}") from error

    if precision not in ("float16", "float32"):
        raise ArgumentError(f"precision {precision!r} is neither 'float16' nor 'float32'")
    where = f"torch module {type(module).__name__!r}"
    exported = isinstance(module, torch.export.ExportedProgram)
    if not isinstance(module, torch.nn.Module) and not exported:
        raise ArgumentError(f"{where} is no nn.Module, ScriptModule or ExportedProgram")
    if exported:
        example = _exported_inputs(module, example)
    specs = {name: _spec(name, given, precision, torch) for name, given in example.items()}
    weights = _trainable(module, specs, torch) if trainable else {}
    example = {**example, **weights}
    specs |= {name: spec(tuple(value.shape), precision) for name, value in weights.items()}
    with coremltools() as ct, warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter("ignore")  # the tracer's, about the user's own lines
        wanted = _coremltools.target(ct, target)
        _coremltools.check_input_names(specs)
        with _refused(f"{where} cannot be run and traced"):
            callee = module.module() if exported else module
            with _as_converted(callee, torch, exported=exported):
                flat = _flat(callee, list(specs), torch, exported=exported, weights=weights)
                tensors = [_tensor(specs[name], given, callee, torch) for name, given in example.items()]
                outputs = flat(*tensors)
                if not outputs:
                    raise CompileError(f"{where}: forward returns no tensor")
                source = readable(module) if exported else torch.jit.trace(flat, tuple(tensors), check_trace=False)
        convert = partial(_converted, ct, where, specs=specs, outputs=outputs, precision=precision, target=wanted)
        with mended(ct.converters.mil.Builder, trainable=trainable):
            try:
                program = convert(source)
            except CompileError as error:
                if weights or isinstance(module, torch.jit.ScriptModule):
                    raise
                with _or_else(error), _as_converted(callee, torch, exported=exported):
                    program = convert(taken_apart(module) if exported else decomposed(flat, tensors))
            _name_outputs(program, flat.names, set(specs))
        _coremltools.validate(program)
        return program


def _converted(
    ct: Any, where: str, source: Any, *, specs: Mapping[str, Spec], outputs: Sequence[Any], precision: str, target: Any
) -> Program:
    """What coremltools makes of a trace or of an ExportedProgram."""
    with _refused(f"{where} cannot be converted"):
        program: Program = ct.convert(
            source,
            convert_to="milinternal",
            inputs=[ct.TensorType(name, given.shape, given.dtype.type) for name, given in specs.items()],
            outputs=[_output_type(ct, output, precision) for output in outputs],
            compute_precision=ct.precision.FLOAT16 if precision == "float16" else ct.precision.FLOAT32,
            minimum_deployment_target=target,
        )
    return program


def read_exported(path: Path) -> Any:
    """The ``ExportedProgram`` of a ``.pt2`` file, as ``torch.export.save`` writes it."""
    try:
        import torch
    except ImportError as error:
        raise UnsupportedError(f"{path} needs torch, which cannot be imported: {error}") from error
    if not path.is_file():
        raise MissingFileError(f"{path} does not exist")
    try:
        return torch.export.load(path)
    except Exception as error:  # torch raises whatever its reader meets
        first = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise FormatError(f"{path} is no module that torch.export.save wrote: {first}") from error


def evaluate(module: Any, given: Mapping[str, np.ndarray]) -> tuple[list[np.ndarray], dict[str, np.ndarray]]:
    """What a module returns for inputs by name, in the order of ``from_torch``'s outputs, computed by torch.

    Beside it what its submodules returned, by their paths (``encoder.0.norm``): those that ran once, and returned one
    tensor. Floats are computed in the module's own dtype. Errors as ``from_torch``.
    """
    import torch

    exported = isinstance(module, torch.export.ExportedProgram)
    callee = module.module() if exported else module
    seen: dict[str, list[Any]] = {}
    hooks = []
    if isinstance(callee, torch.nn.Module) and not isinstance(callee, torch.jit.ScriptModule):
        for path, part in callee.named_modules():
            if path:
                hooks.append(part.register_forward_hook(partial(_keep, seen, path)))
    try:
        with (
            torch.no_grad(),
            _refused(f"torch module {type(module).__name__!r} cannot be run"),
            _evaluated(callee, enabled=not exported),
            _plain_attention(torch),
        ):
            flat = _flat(callee, list(given), torch, exported=exported)
            outputs = flat(*(_tensor(_spec(name, a, "float32", torch), _wide(a), callee, torch)
                             for name, a in given.items()))  # fmt: skip
    finally:
        for hook in hooks:
            hook.remove()
    once = {path: several[0] for path, several in seen.items() if len(several) == 1}
    return (
        [_array(output) for output in outputs],
        {path: _array(output) for path, output in once.items() if isinstance(output, torch.Tensor)},
    )


def _keep(seen: dict[str, list[Any]], path: str, _: Any, __: Any, returned: Any) -> None:
    seen.setdefault(path, []).append(returned)


def _wide(array: np.ndarray) -> np.ndarray:
    """Integers as torch's indices are."""
    return array.astype(np.int64) if array.dtype.kind in "iu" else array


def _array(tensor: Any) -> np.ndarray:
    import torch

    plain = tensor.detach().cpu()
    found: np.ndarray = (plain.float() if plain.dtype == torch.bfloat16 else plain).numpy()
    return found


@contextlib.contextmanager
def _refused(what: str) -> Iterator[None]:
    """torch and coremltools raise anything; the first lines of it are the reason."""
    try:
        yield
    except (Error, MemoryError):
        raise
    except Exception as error:
        raise CompileError(f"{what}: {str(error).strip() or type(error).__name__}") from error


@contextlib.contextmanager
def _or_else(first: Error) -> Iterator[None]:
    """What fails within the block fails for the ``first`` reason."""
    try:
        yield
    except MemoryError:
        raise
    except Exception:
        raise first from None


@contextlib.contextmanager
def _evaluated(module: Any, *, enabled: bool) -> Iterator[None]:
    """The module in eval mode, every submodule as before afterwards."""
    training = [part for part in module.modules() if part.training] if enabled else []
    if training:
        module.eval()
    try:
        yield
    finally:
        for part in training:
            part.training = True


@contextlib.contextmanager
def _as_converted(module: Any, torch: Any, *, exported: bool) -> Iterator[None]:
    with _evaluated(module, enabled=not exported), _plain_attention(torch), plain_losses(torch):
        yield


@contextlib.contextmanager
def _plain_attention(torch: Any) -> Iterator[None]:
    """torch's transformer layers run, in eval mode, one fused op that nobody converts; not here."""
    before = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        yield
    finally:
        torch.backends.mha.set_fastpath_enabled(before)


def _exported_inputs(module: Any, example: Mapping[str, Any]) -> dict[str, Any]:
    """The examples in the order of an ExportedProgram's inputs; those it was made with for none."""
    inputs = {node.name: node.meta.get("val") for node in module.graph.nodes if node.op == "placeholder"}
    given = example or inputs
    own = [name for name in module.graph_signature.user_inputs if name in given]
    return {name: given[name] for name in (own if len(own) == len(example) or not example else given)}


def _spec(name: str, given: Any, precision: str, torch: Any) -> Spec:
    """What the input for one example is."""
    if isinstance(given, Spec):
        found = given
    elif isinstance(given, (torch.Tensor, np.ndarray)):
        dtype = str(given.dtype).removeprefix("torch.")
        floating = given.is_floating_point() if isinstance(given, torch.Tensor) else given.dtype.kind == "f"
        found = spec(tuple(given.shape), precision if floating else "int32" if dtype == "int64" else dtype)
    else:
        found = spec(given, precision)
    if found.dtype.name not in _INPUT_DTYPES:
        raise DTypeError(f"input {name!r} is {found.dtype}; the converter takes {', '.join(_INPUT_DTYPES)}")
    if not found.shape:
        raise ShapeError(f"input {name!r} has rank 0, which Core ML does not take; make it (1,)")
    return found


def _tensor(wanted: Spec, given: Any, module: Any, torch: Any) -> Any:
    """An example tensor in dtypes the module computes in."""
    if isinstance(given, np.ndarray):
        given = torch.from_numpy(np.ascontiguousarray(given))
    if not isinstance(given, torch.Tensor) or type(given).__name__ == "FakeTensor":
        # int64, not int32: what torch's own indices are
        dtype = given.dtype if isinstance(given, torch.Tensor) else torch.int64
        given = torch.zeros(wanted.shape, dtype=torch.bool if wanted.dtype == bool else dtype)
    if wanted.dtype.kind == "f":
        floating = (p.dtype for p in [*module.parameters(), *module.buffers()] if p.is_floating_point())
        given = given.to(next(floating, torch.float32))
    return given.detach().cpu()


def _trainable(module: Any, specs: Mapping[str, Spec], torch: Any) -> dict[str, Any]:
    """The parameters by the names of their inputs."""
    if isinstance(module, (torch.jit.ScriptModule, torch.export.ExportedProgram)):
        raise ArgumentError(
            f"trainable: {type(module).__name__} has its parameters built in; give the nn.Module itself"
        )
    found = parameters_of(module)
    if not found:
        raise ArgumentError("trainable: the module has no floating parameters")
    if both := sorted(found.keys() & specs.keys()):
        raise ArgumentError(
            f"trainable: {', '.join(both)} is a parameter too; give the examples in order, under others"
        )
    for name, parameter in found.items():
        if not parameter.dim():
            raise ShapeError(f"trainable: parameter {name!r} has rank 0, which Core ML does not take; make it (1,)")
    return found


def _flat(
    module: Any, names: Sequence[str], torch: Any, *, exported: bool, weights: Mapping[str, Any] | None = None
) -> Any:
    """A module that takes positions and returns a tuple; ``names`` are its outputs' after a run.

    The last of ``names`` are those of ``weights``, which stand in the place of the module's own.
    """
    places = [id(parameter) for parameter in (weights or {}).values()]
    names = names[: len(names) - len(places)]
    keywords = not exported and _keywords(module, names, torch)

    class Flat(torch.nn.Module):  # type: ignore[misc]
        def __init__(self) -> None:
            super().__init__()
            # as a submodule its parameters would be traced as attributes
            self.inner = (module,) if places else None
            self.module = None if places else module
            self.names: list[str] = []
            self.training = False

        def run(self, tensors: Sequence[Any]) -> Any:
            given = tensors[: len(names)]
            call = partial(module, **dict(zip(names, given, strict=True))) if keywords else partial(module, *given)
            if not places:
                return call()
            stand_ins = dict(zip(places, tensors[len(names) :], strict=True))
            with in_place_of_parameters(module, stand_ins), plain_layers(torch):
                return call()

        def forward(self, *tensors: Any) -> tuple[Any, ...]:
            result = self.run(tensors)
            outputs: list[tuple[str, Any]] = []
            _collect(result, "", outputs, torch)
            self.names = [name for name, _ in outputs]
            return tuple(output for _, output in outputs)

    return Flat()


def _keywords(module: Any, names: Sequence[str], torch: Any) -> bool:
    """Whether the examples are ``forward``'s parameters by name; False: in order."""
    if isinstance(module, torch.jit.ScriptModule):
        parameters = [argument.name for argument in module.forward.schema.arguments][1:]
    else:
        found = inspect.signature(module.forward).parameters.values()
        parameters = [each.name for each in found if each.kind is not each.VAR_POSITIONAL]
    strange = [name for name in names if name not in parameters]
    if strange and len(strange) < len(names):
        raise ArgumentError(f"{', '.join(strange)}: not among forward's parameters ({', '.join(parameters)})")
    return not strange


def _collect(result: Any, name: str, outputs: list[tuple[str, Any]], torch: Any) -> None:
    """Append the tensors in ``result``, with the keys that lead to them."""
    if isinstance(result, torch.Tensor):
        outputs.append((name, result))
    elif isinstance(result, Mapping):
        for key, item in result.items():
            _collect(item, f"{name}_{key}".strip("_"), outputs, torch)
    elif isinstance(result, (tuple, list)):
        fields = getattr(result, "_fields", None) or [f"{name or 'output'}_{n}" for n in range(len(result))]
        for key, item in zip(fields, result, strict=True):
            _collect(item, key, outputs, torch)
    elif result is not None:
        raise CompileError(f"forward returns {type(result).__name__} where a tensor is needed")


def _output_type(ct: Any, output: Any, precision: str) -> Any:
    return ct.TensorType(dtype=np.dtype(precision).type if output.is_floating_point() else None)


def _name_outputs(program: Any, names: Sequence[str], inputs: set[str]) -> None:
    """Name the outputs, giving what is an input or returned twice a name through ``identity``."""
    from coremltools.converters.mil.mil import Builder

    main = program.functions["main"]
    seen = set(main.inputs.values())
    outputs = []
    for name, var in zip(names, main.outputs, strict=True):
        wanted = name or "output"
        if wanted in inputs:
            wanted += "_output"
        if var in seen:
            with main:
                var = Builder.identity(x=var, name=wanted)
        var.set_name(wanted)
        seen.add(var)
        outputs.append(var)
    main.set_outputs(outputs)
    _coremltools.legalise(program)
