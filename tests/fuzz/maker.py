"""Random programs: which op, on which values, with which arguments. Every choice comes from one generator."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import coremltools as ct
import numpy as np
from coremltools.converters.mil.mil import Function

from anex.ops import dtype_name

from .graph import DTYPES, MIL_NAMES, Graph, Ref, Step, add, build, placeholders, resolve
from .reference import evaluate

SIZES, WEIGHTS = (1, 2, 3, 4, 5, 7, 8, 9, 16, 17, 33, 40), (6, 6, 6, 5, 4, 3, 3, 2, 2, 2, 1, 1)
LIMITS = {"fp16": 2e3, "fp32": 1e6, "int32": 2**20}  # larger values are not made: their products overflow
KINDS = {"f": ("fp16", "fp32"), "i": ("int32",), "b": ("bool",), "s": ("int8", "uint8", "int16", "uint16")}

Bound = float | None

STRANGE = np.array([np.inf, -np.inf, np.nan, 0.0, -0.0, 1.0, -1.0, 65504.0, 2.0**-24, -3.0 * 2**-24, 2.0**-14, 100.0])


class Refused(Exception):
    """Nothing came of this op: what it gives is too large, or not finite, or not defined."""


FAMILIES: dict[str, Callable[[Maker, str], None]] = {}


def family(*ops: str) -> Callable[[Callable[[Maker, str], None]], Callable[[Maker, str], None]]:
    """These ops are made by this function."""

    def register(function: Callable[[Maker, str], None]) -> Callable[[Maker, str], None]:
        FAMILIES.update(dict.fromkeys(ops, function))
        return function

    return register


class Maker:
    def __init__(self, seed: int) -> None:
        self.rng = np.random.default_rng(seed)
        self.graph = Graph()
        self.values: dict[str, np.ndarray] = {}  # by the reference, unrounded
        self.dtypes: dict[str, str] = {}
        self.weights: list[Step] = []  # whose values coremltools wants to see made
        self.states: dict[str, np.ndarray] = {}  # by the reference, as they are now
        self.depth = self.made = 0  # blocks that are open; steps made
        self.floating = str(self.rng.choice(["fp16", "fp32"]))  # of new inputs
        self.graph.opset = self.one("iOS18", "iOS17", "iOS16", "iOS15")
        self.wild = self.graph.wild = self.chance(
            0.1
        )  # with infinities, NaN, subnormals: only ops that say what these become
        self.most = 200_000 if self.rng.random() < 0.15 else 4_000  # elements: now and then enough for two threads
        self.refused = 0
        self.broken: list[str] = []  # what coremltools would not build or evaluate: older opsets know fewer forms

    # ---- choices

    def chance(self, p: float) -> bool:
        return bool(self.rng.random() < p)

    def int(self, low: int, high: int) -> int:
        """low .. high, both included"""
        return int(self.rng.integers(low, high + 1))

    def one(self, *choices: Any) -> Any:
        return choices[int(self.rng.integers(len(choices)))]

    def shape(self, low: int, high: int | None = None) -> tuple[int, ...]:
        rank = self.int(low, high or low)
        p = np.array(WEIGHTS) / sum(WEIGHTS)
        while True:
            shape = tuple(int(n) for n in self.rng.choice(SIZES, rank, p=p))
            if self.most > 4000 and rank > 1 and self.chance(0.7):
                shape = (*shape[:-2], shape[-2] * self.int(1, 16), shape[-1] * self.int(1, 16))
            if np.prod(shape) <= self.most / 2:
                return shape

    def array(
        self, shape: Iterable[int], dtype: str | None = None, low: Bound = None, high: Bound = None
    ) -> np.ndarray:
        """Normal floats, or uniform ones between low and high when given; integers from low to high."""
        dtype, shape = dtype or self.floating, tuple(shape)
        if dtype == "bool":
            return self.rng.random(shape) < 0.5
        if DTYPES[dtype] in (np.float16, np.float32):
            drawn = self.rng.normal(size=shape) if low is None else self.rng.uniform(low, high, shape)
            drawn = np.asarray(drawn).astype(DTYPES[dtype])
            if self.wild and low is None and shape:
                strange = self.rng.choice(STRANGE, shape).astype(DTYPES[dtype])
                drawn = np.where(self.rng.random(shape) < 0.1, strange, drawn)
            return drawn
        if low is None or high is None:
            low, high = 0 if dtype.startswith("u") else -9, 9
        return np.asarray(self.rng.integers(int(np.ceil(low)), int(high) + 1, shape)).astype(DTYPES[dtype])

    def scalar(self, dtype: str, low: float, high: float) -> Any:
        return self.array((), dtype, low, high)[()]

    # ---- values

    def fresh(self, shape: Iterable[int], dtype: str | None = None, low: Bound = None, high: Bound = None) -> Ref:
        """A new input of the program."""
        name = f"x{len(self.graph.inputs)}"
        array = self.array(shape, dtype, low, high)
        self.graph.inputs[name] = array
        self._know(name, array, MIL_NAMES[array.dtype])
        return Ref(name)

    def keep(self, shape: Iterable[int], dtype: str) -> str:
        """A new state of the program."""
        name = f"s{len(self.graph.states)}"
        self.graph.states[name] = array = self.array(shape, dtype)
        self.states[name] = array.astype(np.float64)
        return name

    def pick(self, kinds: str = "f", low: int = 1, high: int = 5, test: Any = None, fresh: float = 0.1) -> Ref:
        """A value that is there, the newer the likelier, or a new one."""
        dtypes = [dtype for kind in kinds for dtype in KINDS[kind]]
        names = [
            name
            for name, value in self.values.items()
            if self.dtypes[name] in dtypes and low <= value.ndim <= high and (test is None or test(value))
        ]
        if not names or self.chance(fresh):
            dtype = self.floating if "f" in kinds and self.chance(0.8) else self.one(*dtypes)
            for _ in range(50):
                shape = self.shape(max(low, 1), max(high, 1))
                if test is None or test(np.zeros(shape)):
                    return self.fresh(shape, dtype)
            raise Refused
        p = np.arange(1.0, len(names) + 1) ** 2
        return Ref(str(self.rng.choice(names, p=p / p.sum())))

    def value(self, ref: Ref) -> np.ndarray:
        return self.values[ref.name]

    def dtype(self, ref: Ref) -> str:
        return self.dtypes[ref.name]

    def rank(self, ref: Ref) -> int:
        return self.values[ref.name].ndim

    def dims(self, ref: Ref) -> tuple[int, ...]:
        return self.values[ref.name].shape

    def axis(self, rank: int) -> int:
        return self.int(-rank, rank - 1)

    def axes(self, rank: int) -> list[int]:
        chosen = self.rng.permutation(rank)[: self.int(1, rank)]
        return [int(a) - rank * self.chance(0.3) for a in chosen]

    def broadcastable(self, shape: tuple[int, ...]) -> tuple[int, ...]:
        """A shape that broadcasts with this one, and does not grow it much."""
        kept = [n if self.chance(0.65) else 1 for n in shape]
        return tuple(kept[self.int(0, len(kept)) if self.chance(0.3) else 0 :])

    def mate(self, ref: Ref, low: Bound = None, high: Bound = None) -> Any:
        """Another operand of an elementwise op: a value, a weight or a scalar of the same dtype."""
        shape, dtype = self.dims(ref), self.dtype(ref)
        if low is None and self.chance(0.5):
            same = [n for n, v in self.values.items() if self.dtypes[n] == dtype and joins(v.shape, shape, self.most)]
            if same:
                return Ref(str(self.rng.choice(same)))
        chosen = self.broadcastable(shape)
        if self.chance(0.2) or not chosen:
            return self.array((), dtype, low, high)[()]
        if self.chance(0.4):
            return self.fresh(chosen, dtype, low, high)
        return self.array(chosen, dtype, low, high)

    def positive(self) -> Ref:
        """A float value of at least 0.1."""
        x = self.emit("abs", x=self.pick("f", 0))[0]
        return self.emit("add", x=x, y=self.scalar(self.dtype(x), 0.1, 1))[0]

    def between(self, low: float, high: float) -> Ref:
        x = self.pick("f", 0)
        alpha, beta = (self.scalar(self.dtype(x), n, n) for n in (low, high))
        return self.emit("clip", x=x, alpha=alpha, beta=beta)[0]

    # ---- steps

    @contextlib.contextmanager
    def block(self, **parameters: Ref) -> Iterator[list[Step]]:
        """Steps that are emitted here are a block's; its parameters are like these values, and nobody sees them after.

        Yields the list of steps.
        """
        steps, values, dtypes = self.graph.steps, dict(self.values), dict(self.dtypes)
        self.graph.steps, self.depth = [], self.depth + 1
        for name, ref in parameters.items():
            self.values[name], self.dtypes[name] = values[ref.name], dtypes[ref.name]
        try:
            yield self.graph.steps
        finally:
            kept = {name: name in values or name in self.graph.inputs for name in self.values}
            self.values = {name: value for name, value in self.values.items() if kept[name]}
            self.dtypes = {name: dtype for name, dtype in self.dtypes.items() if kept[name]}
            self.graph.steps, self.depth = steps, self.depth - 1

    def emit(self, op: str, **arguments: Any) -> list[Ref]:
        """Add an op; Refused when its values would be useless."""
        step = Step(op, f"v{self.made}", {n: v for n, v in arguments.items() if v is not None})
        weights = Graph({}, self.weights).needed(step.reads()).steps
        stored = {weight.name for weight in weights}
        inputs = {n: self._typed(n) for n in step.reads() if n not in stored and n not in self.states}
        states = {n: self.graph.states[n] for n in step.reads() if n in self.states}
        try:
            with Function(placeholders(inputs, states), ct.target[self.graph.opset]) as function:
                known = dict(function.inputs)
                for weight in weights:
                    known[weight.name] = add(weight, known.__getitem__)[0]
                made = add(step, known.__getitem__)
            values = evaluate(op, self.graph.opset, resolve(step.arguments, self._known))
        except Exception as error:
            self.broken.append(f"{op} in {self.graph.opset}: {error}")
            raise Refused from error
        step.results = (step.name,) if len(made) == 1 else tuple(f"{step.name}_{i}" for i in range(len(made)))
        dtypes = [dtype_name(var) for var in made]
        for value, dtype in zip(values, dtypes, strict=True):
            if value.size > self.most or value.size == 0 or value.ndim > 5:
                raise Refused(f"{op}: {value.shape}")
            if dtype in LIMITS and not self.wild and not (np.abs(value) <= LIMITS[dtype]).all():
                raise Refused(f"{op}: too large")
        self.graph.steps.append(step)
        self.made += 1
        if op.startswith("constexpr_"):
            self.weights.append(step)
        for name, value, dtype in zip(step.results, values, dtypes, strict=True):
            self._know(name, value, dtype)
        return [Ref(name) for name in step.results]

    def emit_update(self, state: str, value: Ref) -> None:
        self.emit("coreml_update_state", state=Ref(state), value=value)
        self.states[state] = self.values[value.name]

    def _know(self, name: str, value: np.ndarray, dtype: str) -> None:
        self.values[name] = value.astype(np.float64) if value.dtype.kind == "f" else value
        self.dtypes[name] = dtype

    def _typed(self, name: str) -> np.ndarray:
        return np.empty(self.values[name].shape, DTYPES[self.dtypes[name]])

    def _known(self, name: str) -> np.ndarray:
        return self.states[name] if name in self.states else self.values[name]


def joins(a: tuple[int, ...], b: tuple[int, ...], most: int) -> bool:
    try:
        return int(np.prod(np.broadcast_shapes(a, b))) <= most
    except ValueError:
        return False


# what these make of an infinity or a NaN is what numpy does
TAME = {
    "abs", "add", "sub", "mul", "maximum", "minimum", "exp", "tanh", "sigmoid", "relu", "relu6", "floor", "ceil",
    "round", "sign", "square", "sin", "cos", "atan", "erf", "softsign", "silu", "greater", "less", "equal", "not_equal",
    "greater_equal", "less_equal", "logical_not", "logical_and", "select", "transpose", "reshape", "concat", "stack",
    "split", "tile", "pad", "slice_by_index", "slice_by_size", "slice_update", "gather", "gather_along_axis", "reverse",
    "expand_dims", "reduce_max", "reduce_min", "reduce_sum", "max_pool", "upsample_nearest_neighbor", "space_to_depth",
    "identity", "crop", "sliding_windows", "matmul", "cumsum",
}  # fmt: skip


def random_graph(seed: int, ops: Iterable[str] = ()) -> tuple[Graph, Maker]:
    """A program of 2 to 10 ops: each chosen evenly from the table (or from ``ops``), or from a few of them.

    The few make programs that the whole table makes too seldom: chains of elementwise ops behind a product, one op
    upon itself.
    """
    # they fill the tables
    from . import families, families_control, families_data, families_images, families_weights, reference_data  # noqa: F401

    maker = Maker(seed)
    if not TAME.issuperset(ops):
        maker.wild = maker.graph.wild = False
    choice = sorted(ops) or sorted(TAME if maker.wild else FAMILIES)
    if maker.chance(0.5) and not ops:
        choice = [str(op) for op in maker.rng.choice(choice, maker.int(2, 12))]
    wanted = maker.int(2, 10)
    for _ in range(60):
        if len(maker.graph.steps) >= wanted:
            break
        op = str(maker.rng.choice(choice))
        try:
            FAMILIES[op](maker, op)
        except Refused:
            maker.refused += 1
    while maker.graph.steps:  # coremltools evaluates what is constant, and now and then cannot
        try:
            build(maker.graph, maker.graph.sinks())
            break
        except Exception as error:
            maker.broken.append(f"{maker.graph.steps.pop().op} of constants: {error}")
    return maker.graph, maker
