"""Strict plans give the same bits on every instruction set and number of threads: products, which sum most."""

from __future__ import annotations

from typing import Any

import pytest
from harness import build
from strict_case import same_everywhere


def cell(op: str, gates: int, s: int, b: int, inputs: int, hidden: int) -> tuple[str, dict[str, Any], tuple[str, ...]]:
    shapes = {"weight_ih": (gates * hidden, inputs), "weight_hh": (gates * hidden, hidden), "bias": (gates * hidden,)}
    shapes |= {"x": (s, b, inputs), "initial_h": (b, hidden)} | ({"initial_c": (b, hidden)} if op == "lstm" else {})
    return op, shapes | {"output_sequence": True}, ("weight_ih", "weight_hh", "bias")


def attention(length: int, keys: int, e: int, ev: int) -> tuple[str, dict[str, Any], tuple[str, ...]]:
    shapes = {"query": (2, length, e), "key": (2, keys, e), "value": (2, keys, ev)}
    return "scaled_dot_product_attention", shapes, ()


def conv(
    op: str, x: tuple[int, ...], weight: tuple[int, ...], **more: Any
) -> tuple[str, dict[str, Any], tuple[str, ...]]:
    return op, {"x": x, "weight": weight, **more}, ("weight",)


CASES = {
    "linear": ("linear", {"x": (3, 700), "weight": (45, 700), "bias": (45,)}, ("weight", "bias")),
    "linear of few": ("linear", {"x": (2, 9), "weight": (2, 9)}, ("weight",)),
    "matmul": ("matmul", {"x": (2, 40, 300), "y": (2, 300, 70)}, ()),
    "matmul of few": ("matmul", {"x": (3, 36), "y": (50, 36), "transpose_y": True}, ()),
    "matmul of one, 85 long": ("matmul", {"x": (1, 85), "y": (50, 85), "transpose_y": True}, ()),
    "conv": conv("conv", (2, 5, 13, 17), (9, 5, 3, 3)),
    "conv of many small images": conv("conv", (5, 7, 4, 5), (30, 7, 3, 2)),
    "conv of each channel": conv("conv", (1, 6, 11, 23), (6, 1, 3, 3), groups=6),
    "conv_transpose": conv("conv_transpose", (1, 6, 5, 7), (6, 4, 3, 3), strides=[2, 2]),
    **{f"attention of {n} queries": attention(n, 300, 40, 21) for n in (1, 2, 3, 4, 5, 40)},
    "lstm": cell("lstm", 4, 5, 3, 17, 21),
    "gru": cell("gru", 3, 4, 2, 9, 13),
    "rnn": cell("rnn", 1, 6, 5, 33, 8),
}


@pytest.mark.cpu_engine
@pytest.mark.parametrize("dtype", ["float16", "float32"])
@pytest.mark.parametrize("case", CASES)
def test_a_strict_product_is_the_same_bits_on_every_instruction_set(rng, case, dtype):
    op, given, constants = CASES[case]
    arrays = {name: (rng.normal(size=v) / 3).astype(dtype) if isinstance(v, tuple) else v for name, v in given.items()}
    program = build(op, arrays, constants)
    same_everywhere(program, program.test_inputs)
