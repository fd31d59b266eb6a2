"""coremltools, loaded at first use, held by one thread at a time, and silent.

Importing coremltools takes seconds and logs half a dozen warnings; converting draws progress bars.
Its builder keeps the block under construction in a global, so two threads cannot build at once
either. Every use inside anex therefore stands in ``with coremltools() as ct:``, which changes
nothing that outlives the block.
"""

from __future__ import annotations

import contextlib
import functools
import importlib
import logging
import sys
import threading
import warnings
from collections.abc import Callable, Iterable, Iterator
from typing import Any

from ._late_sympy import late_sympy

_alone = threading.RLock()

# The modules that draw a progress bar, and the name under which they know tqdm.
_BARS = {
    "coremltools.converters.mil.mil.passes.pass_pipeline": "tqdm",
    "coremltools.converters.mil.frontend.torch.ops": "_tqdm",
    "coremltools.optimize.coreml._quantization_passes": "tqdm",
}


# What coremltools imports where it is installed, for converters from there: seconds, and hundreds of megabytes.
FRAMEWORKS = (
    "torch", "torchvision", "torchaudio", "torchao", "executorch", "transformers", "tensorflow", "sklearn", "libsvm",
    "xgboost", "scipy",
)  # fmt: skip
_kept_out: tuple[str, ...] = ()


def keep_frameworks_out() -> None:
    """Let coremltools, once it is loaded, be loaded as if none of ``FRAMEWORKS`` were installed that is not in use, and
    sympy only when sizes are not known.

    For a command that owns its process and converts from none of them: coremltools cannot, then, until it ends.
    """
    global _kept_out
    _kept_out = FRAMEWORKS


def _load() -> Any:
    missing = [name for name in _kept_out if name not in sys.modules] if "coremltools" not in sys.modules else []
    for name in missing:
        sys.modules[name] = None  # type: ignore[assignment]  # import says: not found
    try:
        with late_sympy() if missing else contextlib.nullcontext():  # which the frameworks need at once
            return importlib.import_module("coremltools")
    finally:
        for name in missing:
            sys.modules.pop(name, None)


# Questions about types that coremltools asks tens of thousands of times in a model, working each out anew.
_QUESTIONS = (
    "is_bool", "is_builtin", "is_complex", "is_dict", "is_float", "is_int", "is_list", "is_primitive", "is_scalar",
    "is_state", "is_str", "is_tensor",
)  # fmt: skip


def _remembering(question: Callable[[Any], bool]) -> Callable[[Any], bool]:
    """The same, asked once of each class: what kind of type that is never changes."""
    remembered = functools.lru_cache(maxsize=1 << 14)(question)

    @functools.wraps(question)
    def ask(kind: Any) -> bool:
        return remembered(kind) if isinstance(kind, type) else question(kind)

    return ask


@functools.cache
def _quick_questions() -> list[tuple[Any, str, Any]]:
    """Where each of them stands, module and name, and what remembers its answers."""
    from coremltools.converters.mil.mil import types

    package = types.__name__
    modules = [module for name, module in sys.modules.items() if name == package or name.startswith(f"{package}.")]
    found = []
    for name in _QUESTIONS:
        question = getattr(types, name, None)
        if callable(question):
            quick = _remembering(question)
            found += [(module, name, quick) for module in modules if getattr(module, name, None) is question]
    return found


def _is_not_theirs(record: logging.LogRecord) -> bool:
    """Some modules of coremltools log as nobody in particular."""
    return "coremltools" not in record.pathname.replace("\\", "/").split("/")


def _no_bar(iterable: Iterable[Any], *_: Any, **__: Any) -> Iterable[Any]:
    return iterable


@contextlib.contextmanager
def coremltools() -> Iterator[Any]:
    """The ``coremltools`` module, to this thread alone and without a word on stderr."""
    logger = logging.getLogger("coremltools")
    with _alone, contextlib.ExitStack() as restore:
        restore.callback(logger.setLevel, logger.level)
        logger.setLevel(logging.CRITICAL + 1)
        root = logging.getLogger()
        if _is_not_theirs not in root.filters:
            root.addFilter(_is_not_theirs)
            restore.callback(root.removeFilter, _is_not_theirs)
        restore.enter_context(warnings.catch_warnings())
        for module in ("coremltools", "torch"):  # a user's own warnings still reach them
            warnings.filterwarnings("ignore", module=module)
        ct = _load()
        for module_, name, quick in _quick_questions():
            restore.callback(setattr, module_, name, getattr(module_, name))
            setattr(module_, name, quick)
        for name, bar in _BARS.items():
            module_ = sys.modules.get(name)
            if hasattr(module_, bar):
                restore.callback(setattr, module_, bar, getattr(module_, bar))
                setattr(module_, bar, _no_bar)
        yield ct


@contextlib.contextmanager
def plain_bools() -> Iterator[None]:
    """Within the block, coremltools' reader makes Python's bools of MIL's: numpy 2 takes no others for ``keepdims``."""
    from coremltools.converters.mil.frontend.milproto import load

    original = load._load_value

    def load_value(context: Any, value: Any) -> Any:
        found = original(context, value)
        return found.item() if type(found).__name__ in ("bool", "bool_") else found

    load._load_value = load_value
    try:
        yield
    finally:
        load._load_value = original


def target(ct: Any, wanted: Any) -> Any:
    """The ``ct.target`` member for a member or its name; iOS18 for None.

    Raises ``ArgumentError`` for what is neither, or older than iOS15, the first to have MIL.
    """
    from .errors import ArgumentError

    if wanted is None:
        return ct.target.iOS18
    found = ct.target.__members__.get(wanted) if isinstance(wanted, str) else wanted
    if not isinstance(found, ct.target) or found < ct.target.iOS15:
        names = ", ".join(member.name for member in ct.target if member >= ct.target.iOS15)
        raise ArgumentError(f"target {wanted!r} is none of {names}")
    return found


def restart_names() -> None:
    """Let the builder's automatic names start at ``add_0`` again, so that equal programs are equal text.

    Not while a program is under construction: its names must differ.
    """
    from coremltools.converters.mil.mil import Builder, block

    if not block.BLOCK_STACK:
        Builder.name_count.clear()


def legal_name(name: str) -> str:
    """The name of a tensor that coremltools would make of ``name`` where MIL text cannot hold it."""
    from coremltools.converters.mil.mil.passes.defs.preprocess import NameSanitizer

    legal: str = NameSanitizer(prefix="var_").sanitize_name(name)
    return legal


def check_input_names(names: Iterable[str]) -> None:
    """Raise ``ArgumentError`` for a name that MIL text cannot hold: coremltools would change it."""
    from .errors import ArgumentError

    for name in names:
        legal = legal_name(name)
        if legal != name:
            raise ArgumentError(f"input {name!r}: a word of MIL, or not plain ASCII; {legal!r} would do")


def legalise(program: Any) -> None:
    """Give every var and op of ``program`` a unique name that MIL text can hold, in place.

    Raises ``CompileError`` when an input and an output would have to be told apart by a new name.
    """
    from coremltools.converters.mil.mil.passes.defs.preprocess import NameSanitizer
    from coremltools.converters.mil.mil.passes.pass_registry import PASS_REGISTRY

    from .errors import CompileError

    for function in program.functions.values():
        NameSanitizer.sanitize_block(
            function, NameSanitizer(prefix="var_"), NameSanitizer(prefix="op_"), function.input_types
        )
    try:
        PASS_REGISTRY["common::dedup_op_and_var_names"](program)
    except ValueError as error:
        raise CompileError(f"inputs and outputs must have different names: {error}") from error


def validate(program: Any) -> None:
    """Raise ``CompileError`` for a program that contradicts itself or has tensors of rank 6 or more."""
    from .errors import CompileError

    try:
        program.validate()
        if any(map(_has_high_rank, program.functions.values())):  # coremltools takes long to find none
            program._check_invalid_tensor_rank()
    except ValueError as error:
        raise CompileError(str(error)) from error


def _has_high_rank(block: Any) -> bool:
    kinds = (var.sym_type for op in block.operations for var in op.outputs)
    high = any(len(kind.get_shape()) > 5 for kind in kinds if hasattr(kind, "get_shape"))
    return high or any(_has_high_rank(inner) for op in block.operations for inner in op.blocks)


def builder() -> Any:
    """coremltools' MIL builder, ``mb``, imported without its warnings."""
    with coremltools():
        from coremltools.converters.mil import Builder

        return Builder
