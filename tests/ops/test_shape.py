"""Ops that move elements about: transposes, joins, splits, padding, block shuffles, views."""

import itertools

import numpy as np
import pytest
import torch
from harness import build, check, rounded, run
from hypothesis import given, settings
from hypothesis import strategies as st

import anex
from anex import _native

SIZES = [1, 2, 3, 17, 33]
DTYPES = ["float16", "float32", "int32", "int16", "uint16", "int8", "uint8"]


def numbers(rng, shape, dtype="float32"):
    """Values that are exact in every dtype, so that moved data must be equal."""
    return rng.integers(0, 100, shape).astype(dtype)


def same(op, expected, *, opset="iOS18", isa=None, **arguments):
    """The one output is exactly ``expected``."""
    (found,) = run(op, opset=opset, isa=isa, **arguments)
    assert found.dtype == expected.dtype
    np.testing.assert_array_equal(found, expected)


# ---- transpose ------------------------------------------------------------------------------------


@pytest.mark.parametrize("perm", [p for n in (1, 2, 3, 4) for p in itertools.permutations(range(n))])
def test_transpose_by_every_permutation(device, rng, perm):
    x = numbers(rng, (5, 3, 4, 9)[: len(perm)])
    check("transpose", x=x, perm=list(perm), device=device, rtol=0)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shape", [(7, 8), (8, 9), (64, 65), (33, 40), (4, 4), (3, 100), (67, 2048), (130, 1024)])
def test_transpose_of_matrices_in_every_dtype(rng, dtype, shape):
    x = numbers(rng, shape, dtype)
    same("transpose", x.T, x=x, perm=[1, 0])


@pytest.mark.parametrize("isa", _native.instruction_sets())
@pytest.mark.parametrize("dtype", ["float16", "float32", "int8"])
def test_transpose_agrees_in_every_instruction_set(rng, isa, dtype):
    x = numbers(rng, (2, 45, 61), dtype)
    same("transpose", x.transpose(0, 2, 1), x=x, perm=[0, 2, 1], isa=isa)


@pytest.mark.parametrize(
    ("shape", "perm"),
    [
        ((1, 96, 1, 128), (0, 3, 1, 2)),
        ((1, 128, 96), (0, 2, 1)),
        ((2, 64, 8, 64), (0, 2, 1, 3)),
        ((2, 8, 64, 64), (0, 2, 3, 1)),
        ((1, 3, 224, 224), (0, 2, 3, 1)),
        ((1, 224, 224, 3), (0, 3, 1, 2)),
        ((2, 3, 4, 5, 6), (-1, 3, 0, -3, 1)),
        ((512, 768), (1, 0)),
        ((2, 300, 2, 300), (1, 3, 0, 2)),
    ],
)
@pytest.mark.parametrize("dtype", ["float16", "float32"])
def test_transpose_of_the_shapes_of_models(rng, shape, perm, dtype):
    x = rounded(rng.normal(size=shape).astype(dtype))
    same("transpose", x.transpose(perm), x=x, perm=list(perm))


@settings(deadline=None, max_examples=40)
@given(data=st.data())
def test_transpose_of_any_shape(data):
    shape = data.draw(st.lists(st.integers(1, 12), min_size=1, max_size=5))
    perm = data.draw(st.permutations(range(len(shape))))
    x = np.arange(np.prod(shape)).reshape(shape).astype(data.draw(st.sampled_from(["int32", "int16", "uint8"])))
    same("transpose", x.transpose(perm), x=x, perm=list(perm))


# ---- views ----------------------------------------------------------------------------------------


def test_reshape_keeps_the_elements(device, rng):
    check("reshape", x=numbers(rng, (4, 6)), shape=[2, -1, 3], device=device, rtol=0)
    check("reshape", x=numbers(rng, (4, 6)), shape=[0, 2, -1], opset="iOS17", device=device, rtol=0)


@pytest.mark.parametrize("axes", [[0], [-1], [1, 3], [0, -2]])
def test_expand_dims_and_squeeze_are_views(device, rng, axes):
    x = numbers(rng, (3, 4))
    check("expand_dims", x=x, axes=axes, device=device, rtol=0)
    check("squeeze", x=np.expand_dims(x, tuple(axes)), axes=axes, device=device, rtol=0)


@pytest.mark.parametrize("axis", [0, 1, 2, -1])
def test_flatten2d_joins_the_axes_on_each_side(device, rng, axis):
    x = numbers(rng, (2, 3, 5))
    check("flatten2d", x=x, axis=axis, device=device, expected=x.reshape(int(np.prod(x.shape[:axis])), -1), rtol=0)


def test_identity_gives_its_input(device, rng):
    check("identity", x=numbers(rng, (2, 3)), device=device, expected=lambda x: x)


def test_reshape_like_takes_axes_of_other_tensors(rng):
    x, ref = numbers(rng, (6, 4)), numbers(rng, (2, 3, 9))
    program = dict(x=x, ref_tensors=[ref, x], begins=[0, 1], ends=[2, 2], end_masks=[False, False])
    same("reshape_like", x.reshape(2, 3, 4), **program)


def test_shape_gives_the_sizes(rng):
    program = build("shape", dict(x=numbers(rng, (2, 3, 5))))
    assert program.functions["main"].outputs[0].val.tolist() == [2, 3, 5]


# ---- concat, stack, split, tile ---------------------------------------------------------------------


@pytest.mark.parametrize("axis", range(-3, 3))
def test_concat_along_any_axis(device, rng, axis):
    shapes = [[2, 3, 4] for _ in range(3)]
    for shape, size in zip(shapes, (1, 5, 2), strict=True):
        shape[axis] = size
    values = [numbers(rng, shape) for shape in shapes]
    check(
        "concat",
        values=values,
        axis=axis,
        device=device,
        expected=lambda values, axis: np.concatenate(values, axis),
        rtol=0,
    )


@pytest.mark.parametrize("axis", [0, 1, -1])
@pytest.mark.parametrize("dtype", DTYPES)
def test_concat_interleaves(rng, axis, dtype):
    values = [numbers(rng, (3, 4, 5), dtype) for _ in range(3)]
    stacked = np.stack(values, axis % 3 + 1)
    shape = [3, 4, 5]
    shape[axis] *= 3
    same("concat", stacked.reshape(shape), values=values, axis=axis, interleave=True)


def test_concat_of_bools_and_of_one_value(rng):
    values = [rng.integers(0, 2, (3, n)).astype(bool) for n in (4, 1)]
    same("concat", np.concatenate(values, 1), values=values, axis=1)
    same("concat", values[0], values=values[:1], axis=0)


@pytest.mark.cpu_engine
def test_concat_of_large_tensors_is_shared_among_threads(rng):
    values = [rng.normal(size=(4, n, 512)).astype("float16") for n in (100, 1, 333)]
    same("concat", np.concatenate(values, 1), values=values, axis=1)


@pytest.mark.parametrize("axis", range(-3, 3))
def test_stack_makes_a_new_axis(device, rng, axis):
    values = [numbers(rng, (3, 7)) for _ in range(4)]
    check(
        "stack", values=values, axis=axis, device=device, expected=lambda values, axis: np.stack(values, axis), rtol=0
    )


@pytest.mark.parametrize("axis", [0, 1, -1])
def test_split_into_equal_and_unequal_parts(device, rng, axis):
    x = numbers(rng, (6, 12, 18))
    check("split", x=x, num_splits=3, axis=axis, device=device, expected=tuple(np.split(x, 3, axis)), rtol=0)
    check(
        "split",
        x=x,
        split_sizes=[1, 3, x.shape[axis] - 4],
        axis=axis,
        device=device,
        expected=tuple(np.split(x, [1, 4], axis)),
        rtol=0,
    )


@pytest.mark.parametrize("reps", [(2, 1, 1), (1, 3, 1), (1, 1, 4), (2, 3, 4), (1, 1, 1)])
@pytest.mark.parametrize("shape", [(1, 1, 1), (2, 3, 4), (5, 1, 3)])
def test_tile_repeats(device, rng, reps, shape):
    check("tile", x=numbers(rng, shape), reps=list(reps), device=device, rtol=0)


# ---- pad --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("mode", ["constant", "reflect", "replicate"])
@pytest.mark.parametrize("pad", [[1, 2], [0, 3, 2, 0], [1, 1, 2, 2], [0, 0, 4, 1], [1, 0, 2, 1, 3, 3]])
def test_pad_in_every_mode(device, rng, mode, pad):
    check("pad", x=numbers(rng, (3, 4, 5)), pad=np.array(pad), mode=mode, constants=["pad"], device=device, rtol=0)


def test_pad_of_every_axis_of_rank_five_and_with_a_value(device, rng):
    pad = np.array([1, 2] * 5)
    x = numbers(rng, (2, 3, 2, 4, 3))
    check("pad", x=x, pad=pad, constant_val=np.float32(7), constants=["pad"], dtype="float32", device=device, rtol=0)
    x = numbers(rng, (3, 3, 3, 4, 3))
    check("pad", x=x, pad=pad, mode="reflect", constants=["pad"], device=device, rtol=0)


@pytest.mark.cpu_engine
def test_pad_refuses_to_reflect_beyond_the_axis(rng):
    with pytest.raises(anex.Error, match="cannot reflect 4 elements, at most 3"):
        run("pad", x=numbers(rng, (2, 4)), pad=np.array([4, 0]), mode="reflect", constants=["pad"])


# ---- blocks ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("block", [2, 3])
def test_pixel_shuffle_and_unshuffle_agree_with_torch(device, rng, block):
    x = numbers(rng, (2, 2 * block * block, 5, 7))
    wide = torch.pixel_shuffle(torch.from_numpy(x), block)
    check("pixel_shuffle", x=x, upscale_factor=block, device=device, expected=wide.numpy(), rtol=0)
    check("pixel_unshuffle", x=wide.numpy(), downscale_factor=np.uint32(block), device=device, expected=x, rtol=0)


@pytest.mark.parametrize("block", [2, 3])
def test_depth_to_space_puts_the_block_first_in_the_channel(device, rng, block):
    n, c, h, w = 2, 3, 4, 5
    x = numbers(rng, (n, c * block * block, h, w))
    wide = x.reshape(n, block, block, c, h, w).transpose(0, 3, 4, 1, 5, 2).reshape(n, c, h * block, w * block)
    check("depth_to_space", x=x, block_size=block, device=device, expected=wide, rtol=0)
    check("space_to_depth", x=wide, block_size=block, device=device, expected=x, rtol=0)


def space_to_batch(x, block, pad):
    x = np.pad(x, [(0, 0), (0, 0), *map(tuple, pad)])
    n, c, h, w = x.shape
    x = x.reshape(n, c, h // block[0], block[0], w // block[1], block[1])
    return x.transpose(3, 5, 0, 1, 2, 4).reshape(-1, c, h // block[0], w // block[1])


@pytest.mark.parametrize(
    ("block", "pad"), [((2, 2), [[0, 0], [0, 0]]), ((2, 3), [[1, 1], [0, 3]]), ((3, 1), [[2, 1], [1, 1]])]
)
def test_space_to_batch_and_back(device, rng, block, pad):
    x = numbers(rng, (2, 3, 6, 6)) + 1
    batched = space_to_batch(x, block, pad)
    check(
        "space_to_batch",
        x=x,
        block_shape=list(block),
        paddings=np.array(pad),
        constants=["paddings"],
        device=device,
        expected=batched,
        rtol=0,
    )
    check(
        "batch_to_space",
        x=batched,
        block_shape=list(block),
        crops=np.array(pad),
        constants=["crops"],
        device=device,
        expected=x,
        rtol=0,
    )


# ---- reverse, windows, crop ---------------------------------------------------------------------------


@pytest.mark.parametrize("axes", [[0], [1], [-1], [0, 2], [0, 1, 2], None])
@pytest.mark.parametrize("dtype", ["float16", "int32", "int8"])
def test_reverse_flips_axes(rng, axes, dtype):
    x = numbers(rng, (3, 4, 19), dtype)
    same("reverse", np.flip(x, axes), x=x, **({} if axes is None else {"axes": axes}))


@pytest.mark.parametrize(("sequence", "batch"), [(0, 1), (1, 0), (2, 0), (0, 2), (2, 1)])
def test_reverse_sequence_flips_the_first_elements(device, rng, sequence, batch):
    x = numbers(rng, (4, 5, 6))
    lengths = rng.integers(0, x.shape[sequence] + 1, x.shape[batch]).astype("int32")

    def expected(x, lengths, **_):
        y = np.moveaxis(x, (batch, sequence), (0, 1)).copy()
        for i, n in enumerate(lengths):
            y[i, :n] = y[i, :n][::-1].copy()
        return np.moveaxis(y, (0, 1), (batch, sequence))

    check(
        "reverse_sequence",
        x=x,
        lengths=lengths,
        seq_axis=sequence,
        batch_axis=batch,
        device=device,
        expected=expected,
        rtol=0,
    )


@pytest.mark.parametrize("axis", [0, 1, -1])
@pytest.mark.parametrize(("size", "stride"), [(1, 1), (3, 1), (3, 2), (4, 5)])
def test_sliding_windows_overlap(device, rng, axis, size, stride):
    x = numbers(rng, (9, 10, 11))
    windows = np.lib.stride_tricks.sliding_window_view(x, size, axis)
    windows = np.moveaxis(windows, -1, axis % 3 + 1)
    windows = windows[tuple(slice(None, None, stride if i == axis % 3 else 1) for i in range(4))]
    check("sliding_windows", x=x, axis=axis, size=size, stride=stride, device=device, expected=windows, rtol=0)


def test_crop_removes_borders(device, rng):
    x = numbers(rng, (2, 3, 8, 9))
    check("crop", x=x, crop_height=[1, 2], crop_width=[0, 4], device=device, expected=x[:, :, 1:-2, :-4], rtol=0)
