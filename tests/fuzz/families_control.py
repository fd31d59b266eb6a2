"""Blocks, states and random numbers."""

from __future__ import annotations

import numpy as np

from .graph import Block, Ref, Step
from .maker import FAMILIES, Maker, Refused, family

# what blocks hold, next to products and further blocks
INNER = ("add", "sub", "mul", "maximum", "minimum", "abs", "square", "relu", "tanh", "sigmoid", "silu", "gelu", "clip",
         "softmax", "layer_norm", "reduce_sum", "reduce_max", "transpose", "select", "linear", "matmul",
         "slice_by_index", "reverse", "cast")  # fmt: skip
DEEPEST = 2

# ---- blocks ---------------------------------------------------------------------------------


def inner(g: Maker, x: Ref) -> None:
    """A few steps that may read ``x``, in the block that is open."""
    for _ in range(g.int(0, 4)):
        try:
            if g.dtype(x) != "int32" and g.rank(x) and g.chance(0.2):
                square_product(g, x)
            elif g.depth < DEEPEST and g.chance(0.1):
                FAMILIES[g.one("cond", "while_loop")](g, "")
            else:
                op = g.one(*INNER)
                FAMILIES[op](g, op)
        except Refused:
            g.refused += 1


def square_product(g: Maker, x: Ref) -> None:
    n = g.dims(x)[-1]
    weight = g.array((n, n), g.dtype(x)) / np.sqrt(n)
    g.emit("linear", x=x, weight=weight.astype(weight.dtype))


def last_like(g: Maker, steps: list[Step], x: Ref) -> Ref:
    """The last value made in the block that can stand for ``x``; one made for the purpose if there is none."""
    for step in reversed(steps):
        for name in step.results:
            if g.value(Ref(name)).shape == g.dims(x) and g.dtypes[name] == g.dtype(x):
                return Ref(name)
    if g.dtype(x) == "int32":
        return g.emit("minimum", x=x, y=np.int32(7))[0]
    return g.emit(g.one("tanh", "relu", "identity"), x=x)[0]


def is_half(g: Maker, steps: list[Step]) -> bool:
    nested = [block for step in steps for block in step.arguments.values() if isinstance(block, Block)]
    return any(block.half for block in nested) or any(g.dtypes[n] == "fp16" for step in steps for n in step.results)


def flag(g: Maker) -> Ref:
    """A bool that only the run can know."""
    (positive,) = g.emit("greater", x=g.fresh((1,), "int32"), y=np.int32(0))
    return g.emit("squeeze", x=positive)[0]


@family("cond")
def cond(g: Maker, op: str) -> None:
    pred, wanted = flag(g), [g.pick("fi", 0, 4) for _ in range(g.int(1, 2))]
    blocks = []
    for _ in range(2):
        with g.block() as steps:
            results = []
            for x in wanted:
                begin = len(steps)
                inner(g, x)
                results.append(last_like(g, steps[begin:], x))
            blocks.append(Block((), steps, results, is_half(g, steps)))
    g.emit("cond", pred=pred, _true_fn=blocks[0], _false_fn=blocks[1])


@family("while_loop")
def while_loop(g: Maker, op: str) -> None:
    """Some rounds, or none: the number comes from outside."""
    start, x = g.fresh((1,), "int32", 0, 3), g.pick("fi", 0, 4)
    most = g.one(np.int32(4), g.fresh((1,), "int32", 1, 6))
    count, value = (f"{name}{g.made}_{g.depth}" for name in ("i", "y"))
    with g.block(**{count: start, value: x}) as steps:
        (less,) = g.emit("less", x=Ref(count), y=most)
        going = Block((count, value), steps, g.emit("squeeze", x=less))
    with g.block(**{count: start, value: x}) as steps:
        (after,) = g.emit("add", x=Ref(count), y=np.int32(1))
        inner(g, Ref(value))
        body = Block((count, value), steps, [after, last_like(g, steps[1:], Ref(value))], is_half(g, steps))
    g.emit("while_loop", loop_vars=[start, x], _cond=going, _body=body)


# ---- states ---------------------------------------------------------------------------------


@family("read_state", "coreml_update_state")
def state(g: Maker, op: str) -> None:
    if g.graph.opset != "iOS18" or g.depth:
        raise Refused
    if op == "read_state":
        kept = g.one(*g.states) if g.states and g.chance(0.7) else g.keep(g.shape(1, 4), g.one("fp16", "fp32"))
        (before,) = g.emit("read_state", input=Ref(kept))
        if g.chance(0.5) and g.dtype(before) != "bool":  # and changed in place, as a cache of keys and values is
            FAMILIES["slice_update"](g, "slice_update")
        return
    x = g.pick("f", 1, 4)
    like = [n for n, v in g.graph.states.items() if v.shape == g.dims(x) and v.dtype == g.array((), g.dtype(x)).dtype]
    g.emit_update(g.one(*like) if like else g.keep(g.dims(x), g.dtype(x)), x)


# ---- random numbers -------------------------------------------------------------------------


@family("random_uniform", "random_normal", "random_bernoulli", "random_categorical")
def random(g: Maker, op: str) -> None:
    seed = np.int32(g.int(0, 2**31 - 1))
    if op == "random_categorical":
        shape = g.shape(1, 2)
        x = g.array(shape, g.floating, 0.1, 1)
        mode = g.one("logits", "probs")
        x = x if mode == "logits" else x / x.sum(-1, keepdims=True, dtype=x.dtype)
        made = g.fresh(shape, g.floating)
        g.graph.inputs[made.name] = x
        g.values[made.name] = x.astype(np.float64)
        g.emit(op, x=made, mode=mode, size=g.int(1, 200), seed=seed)
        return
    low, high = (g.scalar(g.floating, *limits) for limits in ((-2, 0), (0.1, 3)))
    arguments = {
        "random_uniform": {"low": low, "high": high},
        "random_normal": {"mean": low, "stddev": high},
        "random_bernoulli": {"prob": g.scalar(g.floating, 0, 1)},
    }[op]
    g.emit(op, shape=list(g.shape(1, 4)), seed=seed, **arguments)
