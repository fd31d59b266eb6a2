"""Which ops run as one: elementwise chains, those that follow a matrix product, and convs around a depthwise one.

Pure functions over coremltools' ops. They say what may become one node; the engine (csrc/cpu/chain.c, conv_expand.c)
still decides op by op, by shapes and dtypes, and makes a node of its own for one that cannot join.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import TYPE_CHECKING

from . import quantized

if TYPE_CHECKING:
    from coremltools.converters.mil.mil import Operation, Var

# The ops whose kernels describe themselves as a function on blocks of lanes (csrc/cpu/map.h).
ELEMENTWISE = frozenset({
    "abs", "acos", "add", "asin", "atan", "atanh", "cast", "ceil", "clamped_relu", "clip", "cos", "cosh", "elu",
    "equal", "erf", "exp", "exp2", "floor", "floor_div", "gelu", "greater", "greater_equal", "inverse", "leaky_relu",
    "less", "less_equal", "linear_activation", "log", "logical_and", "logical_not", "logical_or", "logical_xor",
    "maximum", "minimum", "mod", "mul", "not_equal", "pow", "prelu", "real_div", "relu", "relu6", "round", "rsqrt",
    "scaled_tanh", "select", "sigmoid", "sigmoid_hard", "sign", "silu", "sin", "sinh", "softplus",
    "softplus_parametric", "softsign", "sqrt", "square", "sub", "tan", "tanh", "threshold", "thresholded_relu",
})  # fmt: skip
# Those that hand each piece of their result to what follows before it is rounded.
PRODUCTS = frozenset({"conv", "einsum", "linear", "matmul", "anex_conv_int8", "anex_linear_codes", "anex_linear_int8"})


def groups(
    ops: Sequence[Operation], outputs: Iterable[Var], reads: Callable[[Operation], Iterable[Var]] | None = None
) -> list[list[Operation]]:
    """``ops`` as chains, in an order they can run in: in a chain each op reads what the one before it makes.

    A value stays inside a chain when one op reads it and the program does not return it. A chain stands where
    its last op stood: by then everything that its ops read beside the chain has been computed. ``reads``
    tells the values an op and its blocks use; its arguments without.
    """
    readers = Counter(var for op in ops for var in {*(reads or arguments)(op)})
    readers.update(outputs)
    chains: dict[int, list[Operation]] = {}  # by id, in the order of their last ops
    chain_that_makes: dict[Var, list[Operation]] = {}
    for op in ops:
        chain = _chain_to_follow(op, readers, chain_that_makes)
        if chain is None:
            chain = []
        else:
            del chain_that_makes[through(chain[-1], op)], chains[id(chain)]
        chain.append(op)
        chains[id(chain)] = chain
        if len(op.outputs) == 1:
            chain_that_makes[op.outputs[0]] = chain
    return list(chains.values())


def _chain_to_follow(
    op: Operation, readers: Counter[Var], made_by: dict[Var, list[Operation]]
) -> list[Operation] | None:
    """A product's, if there is one, for what it saves; else the first argument's."""
    if op.op_type == "conv":
        return _convs_to_follow(op, readers, made_by)
    if op.op_type not in ELEMENTWISE and op.op_type != "quantize":
        return None
    found = [made_by[var] for var in dict.fromkeys(arguments(op)) if readers[var] == 1 and var in made_by]
    found = [chain for chain in found if _may_be_followed(chain[-1]) and _same_size(chain[-1], op)]
    if op.op_type == "quantize":  # the end of a product's only
        found = [chain for chain in found if chain[0].op_type in PRODUCTS]
    return max(found, key=lambda chain: chain[0].op_type in PRODUCTS, default=None)


def _convs_to_follow(
    op: Operation, readers: Counter[Var], made_by: dict[Var, list[Operation]]
) -> list[Operation] | None:
    """Of a depthwise conv the one that makes what it filters, and of a pointwise one these two."""
    x = op.inputs["x"]
    chain = made_by.get(x) if readers[x] == 1 else None
    if chain is None or not _may_be_followed(chain[-1]):
        return None
    convs = [each for each in chain if each.op_type == "conv"]
    if chain[0] not in convs:
        return None
    follows = _is_depthwise(op) if len(convs) == 1 else len(convs) == 2 and quantized.is_pointwise(op)
    return chain if follows else None


def _is_depthwise(op: Operation) -> bool:
    groups = op.inputs.get("groups")
    return groups is not None and groups.val == op.inputs["x"].shape[1] == op.outputs[0].shape[1]


def _may_be_followed(op: Operation) -> bool:
    """Not a cast: its rounding, or cutting to a width, is what the program asks for."""
    return op.op_type in PRODUCTS or (op.op_type in ELEMENTWISE and op.op_type != "cast")


def _same_size(before: Operation, op: Operation) -> bool:
    """Nothing is computed once for each time it is broadcast; shapes may differ by leading axes of 1."""
    x, y = (_without_leading_ones(each.outputs[0].shape) for each in (before, op))
    return x == y


def _without_leading_ones(shape: Sequence[int]) -> tuple[int, ...]:
    dims = tuple(shape)
    while dims and dims[0] == 1:
        dims = dims[1:]
    return dims


def through(before: Operation, op: Operation) -> Var:
    """The value that ``op`` reads of ``before``."""
    return next(var for var in arguments(op) if var in before.outputs)


def arguments(op: Operation) -> Iterator[Var]:
    """The values an op reads, lists of them included."""
    for argument in op.inputs.values():
        several = argument if isinstance(argument, (list, tuple)) else (argument,)
        yield from (var for var in several if hasattr(var, "sym_type"))  # not the functions that made its blocks
