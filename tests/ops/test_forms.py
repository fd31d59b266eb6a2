"""Every dtype of every version of the ops that move elements, and of the places that they are told."""

from __future__ import annotations

import numpy as np
import pytest
from coremltools.converters.mil.mil import types
from coremltools.converters.mil.mil.ops.registry import SSAOpRegistry
from harness import run

OPSETS = ("iOS15", "iOS16", "iOS17", "iOS18")
SHAPE = (2, 4, 6)


# op: (its first argument, the others for x of SHAPE, numpy's result)
MOVES = {
    "expand_dims": ("x", lambda x: {"axes": [1, -1]}, lambda x: x[:, None, :, :, None]),
    "squeeze": ("x", lambda x: {"axes": [0]}, lambda x: x[0]),
    "reshape": ("x", lambda x: {"shape": [4, -1, 3]}, lambda x: x.reshape(4, -1, 3)),
    "reshape_like": (
        "x",
        lambda x: {"ref_tensors": [np.zeros((8, 2), "float32"), np.zeros((7, 6), "float32")], "begins": [0, 1],
                   "ends": [1, 2], "end_masks": [False, True]},
        lambda x: x.reshape(8, 6),
    ),
    "reverse": ("x", lambda x: {"axes": [1]}, lambda x: x[:, ::-1]),
    "reverse_sequence": (
        "x",
        lambda x: {"lengths": np.array([2, 4], "int32"), "seq_axis": 1, "batch_axis": 0},
        lambda x: np.stack([np.concatenate([x[0, 1::-1], x[0, 2:]]), x[1, ::-1]]),
    ),
    "transpose": ("x", lambda x: {"perm": [2, 0, 1]}, lambda x: x.transpose(2, 0, 1)),
    "tile": ("x", lambda x: {"reps": [1, 2, 3]}, lambda x: np.tile(x, (1, 2, 3))),
    "split": ("x", lambda x: {"split_sizes": [1, 3], "axis": 1}, lambda x: (x[:, :1], x[:, 1:])),
    "slice_by_index": (
        "x",
        lambda x: {"begin": [0, 3, 5], "end": [2, 0, 0], "stride": [1, -1, -2], "end_mask": [True, False, True],
                   "squeeze_mask": [False, False, False]},
        lambda x: x[:, 3:0:-1, 5::-2],
    ),
    "slice_by_size": ("x", lambda x: {"begin": [0, 1, 2], "size": [2, 2, -1]}, lambda x: x[:, 1:3, 2:]),
    "slice_update": (
        "x",
        lambda x: {"update": x[:, :2, :3], "begin": [0, 1, 0], "end": [2, 3, 6], "stride": [1, 1, 2]},
        lambda x: _updated(x, np.s_[:, 1:3, ::2], x[:, :2, :3]),
    ),
    "sliding_windows": (
        "x",
        lambda x: {"axis": 1, "size": 3},
        lambda x: np.moveaxis(np.lib.stride_tricks.sliding_window_view(x, 3, 1), -1, 2),
    ),
    "gather": ("x", lambda x: {"indices": np.array([3, 0, 1], "int32"), "axis": 1}, lambda x: x[:, [3, 0, 1]]),
    "gather_along_axis": (
        "x",
        lambda x: {"indices": np.arange(48).reshape(SHAPE).astype("int32") % 4, "axis": 1},
        lambda x: np.take_along_axis(x, np.arange(48).reshape(SHAPE) % 4, 1),
    ),
    "gather_nd": ("x", lambda x: {"indices": np.array([[1, 3], [0, 2]], "int32")}, lambda x: x[[1, 0], [3, 2]]),
    "concat": ("values", lambda x: {"axis": 1}, lambda x: np.concatenate([x, x], 1)),
    "stack": ("values", lambda x: {"axis": 1}, lambda x: np.stack([x, x], 1)),
    "identity": ("x", lambda x: {}, lambda x: x),
    "shape": ("x", lambda x: {}, lambda x: np.array(x.shape)),
    "flatten2d": ("x", lambda x: {"axis": 2}, lambda x: x.reshape(8, 6)),
    "band_part": ("x", lambda x: {"lower": 1, "upper": 0}, lambda x: np.tril(np.triu(x, -1))),
}  # fmt: skip
INDICES = {
    "gather": "indices", "gather_along_axis": "indices", "gather_nd": "indices", "slice_by_index": "begin",
    "slice_by_size": "begin", "slice_update": "begin", "reverse_sequence": "lengths", "reshape": "shape",
}  # fmt: skip
TOGETHER = ("begin", "end", "stride", "size", "shape")  # share a dtype
UNSIGNED = {  # forms that do not count backwards
    "slice_by_index": lambda x: (
        {"begin": [0, 1, 2], "end": [2, 4, 5], "stride": [1, 2, 1]},
        lambda x: x[:, 1::2, 2:5],
    ),
    "slice_by_size": lambda x: ({"begin": [0, 1, 2], "size": [2, 2, 4]}, lambda x: x[:, 1:3, 2:]),
    "reshape": lambda x: ({"shape": [4, 4, 3]}, lambda x: x.reshape(4, 4, 3)),
}


def _updated(x, where, update):
    y = x.copy()
    y[where] = update
    return y


def versions(op):
    """{class: the first opset that has it}"""
    found = {}
    for opset, cls in sorted(SSAOpRegistry.core_ops[op].items(), key=lambda item: int(item[0])):
        found.setdefault(cls, "iOS15" if int(opset) <= 6 else opset.name)
    return found


def dtypes(cls, argument):
    domain = cls.input_spec.input_types[argument].type_domain_id
    return [types.nptype_from_builtin(dtype) for dtype in cls.type_domains[domain]]


def forms(argument_of):
    for op, argument in argument_of.items():
        for cls, opset in versions(op).items():
            kind = cls.input_spec.input_types[argument]
            if getattr(kind, "type_domain_id", None):
                for dtype in dtypes(cls, argument):
                    yield op, opset, np.dtype(dtype).name


def numbers(dtype):
    x = np.arange(48).reshape(SHAPE) * 5 % 101
    return x % 2 > 0 if dtype == "bool" else x.astype(dtype)


def same(found, wanted):
    for left, right in zip(found, wanted if isinstance(wanted, tuple) else (wanted,), strict=True):
        np.testing.assert_array_equal(left, right)


@pytest.mark.cpu_engine
@pytest.mark.parametrize(
    ("op", "opset", "dtype"), forms({op: first for op, (first, _, _) in MOVES.items() if first == "x"})
)
def test_moves_carry_every_dtype_of_every_version(op, opset, dtype):
    _, others, expected = MOVES[op]
    x = numbers(dtype)[:1] if op == "squeeze" else numbers(dtype)
    constants = ("lengths", "indices", "ref_tensors")
    same(run(op, x=x, **others(x), opset=opset, constants=constants), expected(x))


@pytest.mark.cpu_engine
@pytest.mark.parametrize("op", ["concat", "stack"])
@pytest.mark.parametrize("dtype", ["float16", "float32", "int32", "bool", "int8", "uint8", "int16", "uint16"])
def test_lists_carry_every_dtype(op, dtype):
    _, others, expected = MOVES[op]
    x = numbers(dtype)
    small = dtype not in ("float16", "float32", "int32", "bool")
    for opset in ("iOS17", "iOS18") if small else OPSETS:
        same(run(op, values=[x, x], **others(x), opset=opset), expected(x))


@pytest.mark.cpu_engine
@pytest.mark.parametrize(("op", "opset", "dtype"), forms(INDICES))
@pytest.mark.parametrize("is_constant", [True, False])
def test_places_of_every_dtype(op, opset, dtype, is_constant):
    _, others, expected = MOVES[op]
    x, name = numbers("float32"), INDICES[op]
    arguments = others(x)
    together = [name] if name in ("indices", "lengths") else [n for n in arguments if n in TOGETHER]
    if np.dtype(dtype).kind == "u" and min(np.min(arguments[each]) for each in together) < 0:
        arguments, expected = UNSIGNED[op](x)
    arguments |= {each: np.array(arguments[each]).astype(dtype) for each in together}
    computed = not is_constant and name in ("indices", "lengths")
    same(run(op, x=x, **arguments, opset=opset, constants=() if computed else tuple(arguments)), expected(x))
