"""Random chains of elementwise ops behind a product, and what the grouping of ops decides."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from coremltools.converters.mil.mil import Builder as mb
from coremltools.converters.mil.mil import Function, types
from fusion_case import Case, each_dtype, erf, sigmoid, silu

from anex import _native
from anex.devices import fuse
from anex.devices.cpu import is_folded, needed

UNARY: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "relu": lambda x: np.maximum(x, 0), "tanh": np.tanh, "sigmoid": sigmoid, "abs": np.abs, "silu": silu,
    "sin": np.sin, "square": np.square, "softsign": lambda x: x / (1 + abs(x)), "atan": np.arctan, "erf": erf,
}  # fmt: skip
BINARY = {"add": np.add, "sub": np.subtract, "mul": np.multiply, "maximum": np.maximum, "minimum": np.minimum}


def random_case(rng: np.random.Generator, dtype: str, isa: str | None = None) -> Case:
    """An elementwise DAG behind a product or an input; `expected` is its value in float64."""
    rank = int(rng.integers(2, 5))
    shape = tuple(int(n) for n in rng.choice([1, 2, 3, 9, 40], rank))
    depth = int(rng.integers(1, 40))
    inputs = {"x": rng.normal(size=(*shape[:-1], depth)), "w": rng.normal(size=(depth, shape[-1])) / np.sqrt(depth)}
    for name in ("a", "b", "c"):
        keep = rng.random(rank) < 0.6
        inputs[name] = rng.normal(
            size=tuple(n if k else 1 for n, k in zip(shape, keep, strict=True))[rng.integers(rank) :]
        )
    plan = []
    for i in range(int(rng.integers(2, 9))):
        source = i if rng.random() < 0.85 else int(rng.integers(i + 1))  # now and then a value is read twice
        if rng.random() < 0.5:
            plan.append((str(rng.choice(list(UNARY))), source, None, False))
        else:
            other = rng.choice(["a", "b", "c", "scalar", str(int(rng.integers(i + 1)))])
            plan.append((str(rng.choice(list(BINARY))), source, str(other), bool(rng.random() < 0.5)))
    extra = int(rng.integers(len(plan))) if rng.random() < 0.3 else None

    def walk(first: Any, values: dict[str, Any], do: Callable[..., Any]) -> Any:
        made = [first]
        for i, (op, source, other, turned) in enumerate(plan):
            arguments = [made[source]]
            if other is not None:
                arguments.append(made[int(other)] if other.isdigit() else values[other])
            made.append(do(op, arguments[::-1] if turned else arguments, f"y{i}"))
        return made[-1] if extra is None else (made[1 + extra], made[-1])

    def build(x, w, a, b, c):
        def do(op, arguments, name):
            return getattr(mb, op)(**dict(zip("xy", arguments, strict=False)), name=name)

        result = walk(mb.matmul(x=x, y=w), {"a": a, "b": b, "c": c, "scalar": np.dtype(dtype).type(0.75)}, do)
        return tuple(dict.fromkeys(result)) if isinstance(result, tuple) else result

    case = Case(build, dtype=dtype, isa=isa, **inputs)
    values = {n: v.astype(np.float64) for n, v in case.inputs.items()}
    result = walk(values["x"] @ values["w"], {**values, "scalar": 0.75}, lambda op, v, _: {**UNARY, **BINARY}[op](*v))
    if extra is not None and extra == len(plan) - 1:
        result = result[0]
    case.expected = result
    return case


@each_dtype
@pytest.mark.parametrize("seed", range(60))
def test_random_chains_equal_numpy(seed, dtype):
    rng = np.random.default_rng(seed)
    case = random_case(rng, dtype, str(rng.choice(_native.instruction_sets())))
    case.check(case.expected)
    assert case.nodes <= case.strict.stats()["nodes"]


@pytest.mark.parametrize("seed", range(3))
def test_strict_runs_every_op_alone(seed):
    case = random_case(np.random.default_rng(seed), "float16")
    assert case.strict.stats()["nodes"] == len(needed(case.function))


# ---- groups ---------------------------------------------------------------------------------


def grouped(build: Callable[..., Any], **shapes: tuple[int, ...]) -> list[list[str]]:
    inputs = {n: mb.placeholder(s, dtype=types.fp32) for n, s in shapes.items()}
    with Function(inputs) as function:
        result = build(**dict(function.inputs))
        function.set_outputs(list(result) if isinstance(result, tuple) else [result])
    ops = [op for op in function.operations if not is_folded(op)]
    return [[op.op_type for op in chain] for chain in fuse.groups(ops, function.outputs)]


def test_a_chain_stands_where_its_last_op_stood():
    def build(x, w):
        product = mb.matmul(x=x, y=w)
        side = mb.softmax(x=x, axis=-1)
        return mb.add(x=mb.relu(x=product), y=side)

    assert grouped(build, x=(4, 4), w=(4, 4)) == [["softmax"], ["matmul", "relu", "add"]]


def test_an_op_follows_a_product_rather_than_another_chain():
    def build(x, w):
        return mb.add(x=mb.relu(x=x), y=mb.matmul(x=x, y=w))

    assert grouped(build, x=(4, 4), w=(4, 4)) == [["relu"], ["matmul", "add"]]


def test_outputs_stand_at_the_end_of_chains():
    def build(x):
        y = mb.relu(x=x)
        return y, mb.exp(x=y)

    assert grouped(build, x=(4, 4)) == [["relu"], ["exp"]]
