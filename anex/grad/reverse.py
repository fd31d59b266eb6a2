"""Reverse mode: from the gradients of what ops make to the gradients of what they read."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from collections.abc import Set as AbstractSet
from typing import TYPE_CHECKING, Any

from ..errors import UnsupportedError
from ..ops import OPS
from ..ops.gradient import ByBlocks, ByParts, NoGradient, Use, zeros_like
from ..ops.record import dtype_name, shape
from .maker import Maker, fit
from .replay import Env, again, free, operands, replay

if TYPE_CHECKING:
    from coremltools.converters.mil.mil import Block, Operation, Var

FLOATS = ("fp16", "fp32")
NO_RULE = NoGradient("nobody has written a gradient for it", is_zero=False)
KEPT = (
    "read_state",
    "coreml_update_state",
    "random_uniform",
    "random_normal",
    "random_bernoulli",
    "random_categorical",
)

Save = Callable[["Operation"], bool]


def is_float(var: Var) -> bool:
    return var.shape is not None and dtype_name(var) in FLOATS


def vjp_of(op: Operation) -> Any:
    known = OPS.get(op.op_type)
    return NO_RULE if known is None else known.vjp


def dependents(ops: Iterable[Operation], wrt: Iterable[Var]) -> set[Var]:
    """The Vars that a gradient goes through on its way to ``wrt``."""
    wanted = set(wrt)
    for op in ops:
        if op.op_type == "const" or all(var.val is not None for var in op.outputs):
            continue
        rule = vjp_of(op)
        if isinstance(rule, NoGradient) and rule.is_zero:
            continue
        if any(var in wanted for var in operands(op)):
            wanted.update(filter(is_float, op.outputs))
            if op.op_type == "coreml_update_state":
                wanted.add(op.inputs["state"])  # what is read from it later depends on it too
    return wanted


class Adjoints:
    """The gradients collected so far, by the Var they are of; several of one Var are added when they are taken."""

    def __init__(self, mb: Maker) -> None:
        self.mb = mb
        self._parts: dict[Var, list[Var]] = {}

    def add(self, var: Var, gradient: Var) -> None:
        if 0 in shape(var):
            return  # nothing to collect
        self._parts.setdefault(var, []).append(fit(self.mb, gradient, shape(var), dtype_name(var)))

    def take(self, var: Var) -> Var | None:
        total = None
        for part in self._parts.pop(var, []):
            total = part if total is None else self.mb.add(x=total, y=part)
        return total


class Values:
    """What the ops of the program that is read gave: saved, or computed again where the way back asks for it."""

    def __init__(self, env: Env, save: Save) -> None:
        self.env, self.save = env, save
        self.renewed: dict[Var, Var] = {}

    def __call__(self, var: Var) -> Var:
        if self._is_saved(var):
            return self.env.get(var, var)
        if var not in self.renewed:
            self._renew(var.op)
        return self.renewed[var]

    def inner(self) -> Values:
        """For a block: what is computed again in it is not seen outside."""
        values = Values(self.env, self.save)
        values.renewed = dict(self.renewed)
        return values

    def _is_saved(self, var: Var) -> bool:
        op = var.op
        if op is None or var not in self.env or var.val is not None or op.op_type in KEPT or op.blocks:
            return True
        return self.save(op)

    def _renew(self, op: Operation) -> None:
        waiting = [op]  # not by recursion: programs are deeper than Python's stack
        while waiting:
            top = waiting[-1]
            reads = list(operands(top))
            missing = [var.op for var in reads if not self._is_saved(var) and var not in self.renewed]
            if missing:
                waiting.extend(missing)
                continue
            waiting.pop()
            if top.outputs[0] not in self.renewed:
                env = {var: self(var) for var in reads}
                again(top, env, named=False)
                self.renewed.update((var, env[var]) for var in top.outputs)


class Reverse:
    """The way back through ops of one program; what it makes goes to the end of the block under construction."""

    def __init__(self, mb: Maker, values: Values, wanted: AbstractSet[Var]) -> None:
        self.mb, self.values, self.wanted = mb, values, wanted

    def run(self, ops: Sequence[Operation], adjoints: Adjoints) -> None:
        """``adjoints`` of the outputs become those of the Vars that ``ops`` do not make."""
        for op in reversed(ops):
            if self.wanted.isdisjoint(op.outputs):
                continue
            with self.mb.named(f"{op.name}_grad"):
                dys = [adjoints.take(var) for var in op.outputs]
                if any(dy is not None for dy in dys):
                    for var, gradient in self.through(op, dys):
                        adjoints.add(var, gradient)

    def through(self, op: Operation, dys: list[Var | None]) -> Iterator[tuple[Var, Var]]:
        """(operand, its gradient) of one op."""
        rule = vjp_of(op)
        if isinstance(rule, NoGradient):
            raise UnsupportedError(f"no gradient through {op.op_type} {op.name!r}: {rule.reason}")
        if isinstance(rule, ByBlocks):
            yield from self.through_cond(op, dys)
        elif isinstance(rule, ByParts):
            yield from self.through_parts(op, dys, rule)
        else:
            use = Use(op, self.values)
            thunks = rule(self.mb, use, dys[0] if len(op.outputs) == 1 else dys)
            for name, given in op.inputs.items():  # rules leave out what they take for constants
                several = given if isinstance(given, (list, tuple)) else [given]
                if name not in thunks and not self.wanted.isdisjoint(several):
                    raise UnsupportedError(
                        f"no gradient through {op.op_type} {op.name!r} with respect to its {name}: the rule takes it "
                        "for a constant; make it one, or use other ops"
                    )
            for name, thunk in thunks.items():
                yield from self.asked(op.inputs.get(name), thunk)

    def asked(self, given: Any, thunk: Callable[[], Any]) -> Iterator[tuple[Var, Var]]:
        if isinstance(given, (list, tuple)):
            if not self.wanted.isdisjoint(given):
                for var, dx in zip(given, thunk(), strict=True):
                    if var in self.wanted:
                        yield var, dx() if callable(dx) else dx
        elif given is not None and given in self.wanted and (made := thunk()) is not None:
            yield given, made

    def through_parts(self, op: Operation, dys: list[Var | None], rule: ByParts) -> Iterator[tuple[Var, Var]]:
        """The op once more as others, and back through those."""
        use = Use(op, self.values)
        with self.mb.noting() as ops:
            made = rule.make(self.mb, use)
        leaves = {self.values(var): var for var in operands(op) if var in self.wanted}
        inner = Reverse(self.mb, Values({}, lambda _: True), dependents(ops, leaves))
        yield from inner.between(ops, made if isinstance(made, (list, tuple)) else [made], dys, leaves)

    def between(
        self, ops: Sequence[Operation], outputs: Sequence[Var], dys: Sequence[Var | None], leaves: dict[Var, Var]
    ) -> Iterator[tuple[Var, Var]]:
        """From the gradients of ``outputs`` to those of ``leaves``, under the Vars that these stand for."""
        adjoints = Adjoints(self.mb)
        for var, dy in zip(outputs, dys, strict=True):
            if dy is not None:
                adjoints.add(var, dy)
        self.run(ops, adjoints)
        for leaf, var in leaves.items():
            if (gradient := adjoints.take(leaf)) is not None:
                yield var, gradient

    def through_cond(self, op: Operation, dys: list[Var | None]) -> Iterator[tuple[Var, Var]]:
        """The same branch again, and back through it; the other's operands have the gradient zero."""
        leaves = list(dict.fromkeys(var for block in op.blocks for var in free(block) if var in self.wanted))
        if not leaves:
            return

        def branch(block: Block) -> Callable[[], Any]:
            return lambda: self.back_through(block, dys, leaves)

        pred = self.values(op.inputs["pred"])
        made = self.mb.cond(pred=pred, _true_fn=branch(op.blocks[0]), _false_fn=branch(op.blocks[1]))
        yield from zip(leaves, made if isinstance(made, (list, tuple)) else [made], strict=True)

    def back_through(self, block: Block, dys: list[Var | None], leaves: list[Var]) -> tuple[Var, ...]:
        """The gradients of ``leaves``, all of them, through a block that is made again inside the one being built."""
        values = self.values.inner()
        env = {var: values(var) for var in free(block)}
        replay(block.operations, env, named=False)
        wanted = dependents(block.operations, leaves)
        inner = Reverse(self.mb, Values(env, lambda _: True), wanted)
        found = dict(inner.between(block.operations, block.outputs, dys, {var: var for var in leaves}))
        return tuple(
            self.mb.identity(x=found[var]) if var in found else zeros_like(self.mb, values(var)) for var in leaves
        )
