"""Quantised activations, bit for bit, and weights stored as constexpr ops, against coremltools' own decompression."""

from fractions import Fraction

import coremltools as ct
import numpy as np
import pytest
from coremltools.converters.mil.mil import Builder as mb
from coremltools.converters.mil.mil import Function, Program, types
from coremltools.converters.mil.mil.ops.defs.iOS18 import compression as defs
from harness import check, computed, rounded, run
from hypothesis import given, settings
from hypothesis import strategies as st

import anex

ONE_BIT = types.nptype_from_builtin(types.uint1)

# ---- quantize, dequantize ------------------------------------------------------------------------------


def exact(x, scale, zero, dtype):
    """clip(round(x / scale) + zero) in rational numbers; round() of a Fraction is to nearest even."""
    info = np.iinfo(dtype)
    return min(max(round(Fraction(float(x)) / Fraction(float(scale))) + int(zero), info.min), info.max)


def per_axis(values, axis, rank):
    return np.reshape(values, [-1 if i == axis % rank else 1 for i in range(rank)])


@pytest.mark.parametrize("dtype", ["int8", "uint8"])
@pytest.mark.parametrize("floating", ["float16", "float32"])
@pytest.mark.parametrize("axis", [None, 0, 1, -1])
def test_quantize_is_exact(rng, dtype, floating, axis):
    shape = (3, 4, 37)
    n = 1 if axis is None else shape[axis]
    scale = (2.0 ** rng.integers(-6, 2, n)).astype(floating)
    info = np.iinfo(dtype)
    zero = rng.integers(info.min, info.max + 1, n).astype(dtype)
    x = (rng.integers(-600, 600, shape) / 2 * per_axis(scale, axis or 0, 3)).astype(floating)  # many ties
    if axis is None:
        (found,) = run("quantize", input=x, scale=scale[0], zero_point=zero[0], output_dtype=dtype)
    else:
        (found,) = run(
            "quantize",
            input=x,
            scale=scale,
            zero_point=zero,
            axis=axis,
            output_dtype=dtype,
            constants=["scale", "zero_point"],
        )
    s, z = (np.broadcast_to(per_axis(v, axis or 0, 3), shape) for v in (scale, zero))
    expected = np.array([exact(*v, dtype) for v in zip(x.flat, s.flat, z.flat, strict=True)], dtype).reshape(shape)
    assert found.dtype == dtype
    np.testing.assert_array_equal(found, expected)


@pytest.mark.cpu_engine
@settings(deadline=None, max_examples=30)
@given(data=st.data())
def test_quantize_agrees_with_float_arithmetic_for_any_scale(data):
    scale = np.float32(data.draw(st.floats(2**-20, 2**20, width=32)))
    zero = np.int8(data.draw(st.integers(-128, 127)))
    x = np.array(data.draw(st.lists(st.floats(width=32, allow_nan=False), min_size=1, max_size=40)), "float32")
    (found,) = run("quantize", input=x, scale=scale, zero_point=zero, output_dtype="int8")
    with np.errstate(over="ignore"):
        expected = np.clip(np.rint(x / scale).astype("float64") + zero, -128, 127).astype("int8")
    np.testing.assert_array_equal(found, expected)


def test_quantize_saturates_and_makes_nan_the_zero_point():
    x = np.array([np.inf, -np.inf, np.nan, 1e38, -1e38, 0], "float32")
    (found,) = run("quantize", input=x, scale=np.float32(0.1), zero_point=np.uint8(7), output_dtype="uint8")
    assert found.tolist() == [255, 0, 7, 255, 0, 7]


@pytest.mark.parametrize("dtype", ["int8", "uint8"])
@pytest.mark.parametrize("floating", ["float16", "float32"])
@pytest.mark.parametrize("axis", [None, 0, 1, -1])
def test_dequantize_rounds_once(rng, dtype, floating, axis):
    info, shape = np.iinfo(dtype), (5, 4, 700)
    q = rng.integers(info.min, info.max + 1, shape).astype(dtype)
    n = 1 if axis is None else shape[axis]
    scale = rounded(rng.uniform(0.001, 2, n).astype(floating))
    zero = rng.integers(info.min, info.max + 1, n).astype(dtype)
    difference = q.astype("float64") - per_axis(zero, axis or 0, 3).astype("float64")
    expected = (difference * per_axis(scale, axis or 0, 3).astype("float64")).astype(computed(floating))
    if axis is None:
        (found,) = run("dequantize", input=q, scale=scale[0], zero_point=zero[0])
    else:
        (found,) = run(
            "dequantize", input=q, scale=scale, zero_point=zero, axis=axis, constants=["scale", "zero_point"]
        )
    assert found.dtype == floating
    np.testing.assert_array_equal(found, expected)


def test_dequantize_without_a_zero_point(device, rng):
    q = rng.integers(-128, 128, (3, 50)).astype("int8")
    check("dequantize", input=q, scale=np.float32(0.5), device=device, expected=q * np.float32(0.5))


def test_quantize_runs_on_many_elements(device, rng):
    x = rng.normal(size=(64, 3000)) * 40
    check(
        "quantize",
        input=x.astype("float32"),
        scale=np.float32(0.5),
        zero_point=np.int8(-3),
        output_dtype="int8",
        dtype="float32",
        device=device,
    )


# ---- constexpr -------------------------------------------------------------------------------------------


def constexpr(op, opset="iOS18", **arguments):
    """(what the engine makes of a constexpr op, what coremltools does), as tuples of arrays."""
    program = Program()
    with Function({"x": mb.placeholder((1,), dtype=types.fp32)}, ct.target[opset]) as function:
        result = getattr(mb, op)(**arguments, name="y")
        outputs = list(result) if isinstance(result, (list, tuple)) else [result]
        function.set_outputs(outputs)
    program.add_function("main", function)
    wanted = outputs[0].op.materialized_val_inference()
    found = anex.compile(program, device="cpu")(np.zeros(1, "float32"))
    found = found if isinstance(found, tuple) else (found,)
    return [np.array(v) for v in found], wanted if isinstance(wanted, tuple) else (wanted,)


def same(op, opset="iOS18", rtol=0.0, **arguments):
    found, wanted = constexpr(op, opset, **arguments)
    assert len(found) == len(wanted)
    for left, right in zip(found, wanted, strict=True):
        assert left.shape == right.shape
        np.testing.assert_allclose(left.astype("float64"), np.asarray(right).astype("float64"), rtol=rtol, atol=0)


def narrow(rng, shape, name):
    """Numbers of one of MIL's small dtypes, as coremltools wants them."""
    dtype = types.string_to_builtin(name)
    low, high = types.type_mapping.builtin_to_range(dtype).low, types.type_mapping.builtin_to_range(dtype).high
    values = rng.integers(low, high + 1, shape)
    return values.astype(types.nptype_from_builtin(dtype))


@pytest.mark.parametrize("floating", ["float16", "float32"])
@pytest.mark.parametrize("dtype", ["int8", "uint8"])
@pytest.mark.parametrize("axis", [0, 1, -1])
@pytest.mark.parametrize("vector", [True, False])
def test_constexpr_affine_dequantize(rng, floating, dtype, axis, vector):
    q = narrow(rng, (6, 3, 5), dtype)
    n = (q.shape[axis],) if vector else ()
    scale = np.asarray(rng.uniform(0.01, 1, n)).astype(floating)[()]
    zero = narrow(rng, n, dtype)[()]
    same("constexpr_affine_dequantize", "iOS16", quantized_data=q, zero_point=zero, scale=scale, axis=np.int32(axis))


@pytest.mark.parametrize("entries", [2, 4, 16, 64, 256])
@pytest.mark.parametrize("dtype", ["float16", "float32", "int8"])
def test_constexpr_lut_to_dense_of_packed_indices(rng, entries, dtype):
    shape = (3, 7, 5)
    bits = int(np.log2(entries))
    packed = np.packbits(rng.integers(0, 2, np.prod(shape) * bits).astype("uint8"), bitorder="little")
    lut = (rng.normal(size=entries) * 50).astype(dtype)
    same("constexpr_lut_to_dense", "iOS16", indices=packed, lut=lut, shape=np.array(shape, "uint32"))


@pytest.mark.parametrize("bits", [1, 2, 3, 4, 6, 8])
@pytest.mark.parametrize("groups", [(1, 1, 1), (2, 1, 1), (1, 3, 1), (2, 3, 4)])
def test_constexpr_lut_to_dense_with_groups_of_tables(rng, bits, groups):
    indices, lut = narrow(rng, (4, 6, 8), f"uint{bits}"), rng.normal(size=(*groups, 2**bits, 1)).astype("float16")
    same("constexpr_lut_to_dense", indices=indices, lut=lut)


@pytest.mark.parametrize("axis", [0, 1, 2, -1, -2])
@pytest.mark.parametrize("groups", [(1, 1, 1), (2, 3, 1), (1, 1, 4)])
@pytest.mark.parametrize("size", [2, 3, 4])
def test_constexpr_lut_to_dense_with_vectors(rng, axis, groups, size):
    indices, lut = narrow(rng, (4, 6, 8), "uint4"), rng.normal(size=(*groups, 16, size)).astype("float32")
    same("constexpr_lut_to_dense", indices=indices, lut=lut, vector_axis=np.int32(axis))


@pytest.mark.parametrize("dtype", ["float16", "float32", "int8", "uint8"])
def test_constexpr_sparse_to_dense_of_both_opsets(rng, dtype):
    mask = rng.integers(0, 2, (5, 7)).astype("uint8")
    values = (rng.normal(size=mask.sum()) * 50).astype(dtype)
    packed = np.packbits(mask.ravel(), bitorder="little")
    same("constexpr_sparse_to_dense", "iOS16", nonzero_data=values, mask=packed, shape=np.array(mask.shape, "uint32"))
    same("constexpr_sparse_to_dense", nonzero_data=values, mask=mask.astype(ONE_BIT))


@pytest.mark.parametrize("opset", ["iOS16", "iOS18"])
def test_constexpr_cast(rng, opset):
    same("constexpr_cast", opset, source_val=rng.normal(size=(3, 5)).astype("float16"), output_dtype="fp32")


@pytest.mark.parametrize("data", ["int4", "uint4", "int8", "uint8"])
@pytest.mark.parametrize("floating", ["float16", "float32"])
@pytest.mark.parametrize("groups", [(1, 1), (6, 1), (1, 32), (6, 32), (3, 4), (2, 1)])
@pytest.mark.parametrize("offset", [None, "same", "float"])
def test_constexpr_blockwise_shift_scale(rng, data, floating, groups, offset):
    scale = rng.uniform(0.01, 1, groups).astype(floating)
    offsets = {None: None, "same": narrow(rng, groups, data), "float": (scale * 4).astype(floating)}[offset]
    arguments = dict(data=narrow(rng, (6, 32), data), scale=scale, offset=offsets)
    found, _ = constexpr("constexpr_blockwise_shift_scale", **{k: v for k, v in arguments.items() if v is not None})
    wide = scale.astype("float64"), None if offsets is None else offsets.astype("float64")
    wanted = defs.constexpr_blockwise_shift_scale.decompress(
        arguments["data"], *wide
    )  # rounded once, as the engine does
    np.testing.assert_allclose(found[0], wanted.astype(floating), rtol=0 if floating == "float16" else 1e-6)


@pytest.mark.cpu_engine
def test_constexpr_lut_to_dense_with_a_quantized_table_of_rank_6(rng):
    indices, table = narrow(rng, (4, 6, 1, 1), "uint2"), narrow(rng, (2, 1, 1, 1, 4, 1), "int8")
    scale = rng.uniform(0.01, 1, (2, 1, 1, 1, 1, 1)).astype("float16")
    program = Program()
    with Function({"x": mb.placeholder((1,), dtype=types.fp32)}, ct.target.iOS18) as function:
        lut = mb.constexpr_blockwise_shift_scale(data=table, scale=scale)
        function.set_outputs([mb.constexpr_lut_to_dense(indices=indices, lut=lut)])
    program.add_function("main", function)
    floats = defs.constexpr_blockwise_shift_scale.decompress(table, scale, None).astype("float16")
    wanted = defs.constexpr_lut_to_dense.decompress(indices, floats, None)
    np.testing.assert_array_equal(anex.compile(program)(np.zeros(1, "float32")), wanted)


def dense(op, shape, **arguments):
    """The op's two outputs made dense by the next op, and what coremltools' decompression makes of it."""
    program = Program()
    with Function({"x": mb.placeholder((1,), dtype=types.fp32)}, ct.target.iOS18) as function:
        mask, values = getattr(mb, op)(**arguments, name="y")
        assert mask.shape == shape
        function.set_outputs([mb.constexpr_sparse_to_dense(nonzero_data=values, mask=mask)])
    program.add_function("main", function)
    wanted = function.outputs[0].op.materialized_val_inference()
    return np.array(anex.compile(program, device="cpu")(np.zeros(1, "float32"))), wanted


@pytest.mark.parametrize(
    ("groups", "size", "axis"), [((1, 1), 1, None), ((2, 3), 1, None), ((1, 1), 2, 0), ((2, 1), 3, 1), ((1, 2), 2, -1)]
)
def test_constexpr_lut_to_sparse(rng, groups, size, axis):
    mask, shape = rng.integers(0, 2, (4, 6)).astype(ONE_BIT), [4, 6]
    lut = rng.normal(size=(*groups, 4, size)).astype("float16")
    vector_axis = {} if axis is None else {"vector_axis": np.int32(axis)}
    shape[axis or 0] *= size
    indices = narrow(rng, int((mask != 0).sum()), "uint2")
    found, wanted = dense(
        "constexpr_lut_to_sparse", tuple(shape), indices_mask=mask, indices_nonzero_data=indices, lut=lut, **vector_axis
    )
    np.testing.assert_array_equal(found, wanted)


@pytest.mark.parametrize("groups", [(1, 1), (4, 1), (1, 8), (2, 4)])
@pytest.mark.parametrize("with_offset", [True, False])
def test_constexpr_sparse_blockwise_shift_scale(rng, groups, with_offset):
    mask = rng.integers(0, 2, (4, 8)).astype(ONE_BIT)
    data, offset = (
        narrow(rng, int((mask != 0).sum()), "int4"),
        {"offset": narrow(rng, groups, "int4")} if with_offset else {},
    )
    scale = rng.uniform(0.01, 1, groups).astype("float32")
    found, wanted = dense(
        "constexpr_sparse_blockwise_shift_scale", (4, 8), data_mask=mask, nonzero_data=data, scale=scale, **offset
    )
    np.testing.assert_allclose(found, wanted, rtol=1e-6)


@pytest.mark.cpu_engine
def test_constexpr_ops_feed_each_other_and_the_rest(rng):
    x = rng.normal(size=(2, 8)).astype("float32")
    mask = rng.integers(0, 2, (8, 8)).astype(ONE_BIT)
    values = rng.normal(size=int((mask != 0).sum())).astype("float32")

    @mb.program(input_specs=[mb.TensorSpec(x.shape)], opset_version=ct.target.iOS18)
    def program(x):
        weight = mb.constexpr_sparse_to_dense(nonzero_data=values, mask=mask)
        return mb.concat(values=[x, weight], axis=0)

    dense = np.zeros((8, 8), "float32")
    dense[mask != 0] = values
    np.testing.assert_array_equal(np.asarray(anex.compile(program, device="cpu")(x)), np.concatenate([x, dense]))
