"""The ops of one program, made again in another."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, MutableMapping
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from coremltools.converters.mil.mil import Block, Function, Operation, Var

Env = MutableMapping["Var", "Var"]  # a Var of the program that is read -> the same in the program being built


def operands(op: Operation) -> Iterator[Var]:
    """The Vars that an op reads, those that its blocks read from outside among them."""
    for name, given in op.inputs.items():
        if name[0] != "_":  # the builder's own: functions that made the blocks
            yield from given if isinstance(given, (list, tuple)) else [given] if given is not None else []
    for block in op.blocks:
        yield from free(block)


def free(block: Block) -> list[Var]:
    """The Vars that a block reads and does not make."""
    made = set(block.inputs)
    found: dict[Var, None] = {}
    for op in block.operations:
        found.update(dict.fromkeys(operands(op)))
        made.update(op.outputs)
    found.update(dict.fromkeys(block.outputs))
    return [var for var in found if var not in made]


def placeholders(function: Function) -> dict[str, Any]:
    """Placeholders like the function's inputs, states among them."""
    from coremltools.converters.mil.mil import Builder, types

    made = {}
    for name, var in function.inputs.items():
        if types.is_state(var.sym_type):
            tensor = var.sym_type.wrapped_type()
            made[name] = Builder.state_tensor_placeholder(tensor.get_shape(), tensor.get_primitive())
        else:
            made[name] = Builder.placeholder(tuple(map(int, var.shape)), dtype=var.dtype)
    return made


def replay(ops: Iterable[Operation], env: Env, *, named: bool = True) -> None:
    """Make ``ops`` again, in order; ``env`` learns what they give. ``named``: under the names they have."""
    for op in ops:
        again(op, env, named=named)


def again(op: Operation, env: Env, *, named: bool = True) -> None:
    """Make one op again from what ``env`` has of its operands."""
    from coremltools.converters.mil.mil import Builder

    if op.op_type == "const":
        made = Builder.const(val=op.outputs[0].val, **({"name": op.name} if named else {}))
    else:
        arguments: dict[str, Any] = {"name": op.name} if named else {}
        for name, given in op.inputs.items():
            if isinstance(given, (list, tuple)):
                arguments[name] = [env[var] for var in given]
            elif given is not None and name[0] != "_":
                arguments[name] = env[given]
        if op.op_type == "cond":
            true, false = (_body(block, env, named) for block in op.blocks)
            arguments |= {"_true_fn": true, "_false_fn": false}
        elif op.op_type == "while_loop":
            test, body = (_body(block, env, named) for block in op.blocks)
            arguments |= {"_cond": test, "_body": body}
        made = getattr(Builder, op.op_type)(**arguments)
    several = made if isinstance(made, (list, tuple)) else [made]
    for old, new in zip(op.outputs, several, strict=True):
        env[old] = new
        if named:
            new.name = old.name


def _body(block: Block, env: Env, named: bool) -> Any:
    """A function that makes the ops of a block, as the builder wants it for control flow."""

    def make(*given: Var) -> Any:
        inner = dict(env)
        inner.update(zip(block.inputs, given, strict=True))
        replay(block.operations, inner, named=named)
        outputs = [inner[var] for var in block.outputs]
        return outputs[0] if len(outputs) == 1 else tuple(outputs)

    return make
