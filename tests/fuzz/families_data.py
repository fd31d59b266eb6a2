"""Ops that move, choose or make elements."""

from __future__ import annotations

from typing import Any

import numpy as np

from .graph import DTYPES
from .maker import Maker, family

ANY, NOT_SMALL = "fffibs", "fffib"

# ---- shapes ---------------------------------------------------------------------------------


def factored(g: Maker, n: int) -> list[int]:
    """A shape of n elements."""
    shape: list[int] = []
    while n > 1 and len(shape) < 4:
        d = g.one(*[d for d in range(1, min(n, 40) + 1) if n % d == 0])
        shape.append(d)
        n //= d
    shape.append(n)
    return [shape[i] for i in g.rng.permutation(len(shape))]


@family("reshape")
def reshape(g: Maker, op: str) -> None:
    x = g.pick(ANY)
    shape = factored(g, g.value(x).size)
    if g.chance(0.3):
        shape[g.int(0, len(shape) - 1)] = -1
    g.emit(op, x=x, shape=shape)


@family("reshape_like")
def reshape_like(g: Maker, op: str) -> None:
    shape = g.shape(2, 3)
    n = int(np.prod(shape))
    x = g.fresh(factored(g, n), g.one("fp16", "fp32", "int32"))
    g.emit(op, x=x, ref_tensors=[g.fresh(shape), x], begins=[0, 0], ends=[len(shape), 0], end_masks=[False, False])


@family("expand_dims")
def expand_dims(g: Maker, op: str) -> None:
    x = g.pick(ANY, 0, 4)
    rank = g.rank(x)
    axes = sorted({g.int(0, rank) for _ in range(g.int(1, 5 - rank))})
    g.emit(op, x=x, axes=axes if g.chance(0.6) else [axes[0] - rank - 1])


@family("squeeze")
def squeeze(g: Maker, op: str) -> None:
    x = g.pick(ANY, test=lambda v: 1 in v.shape)
    ones = [i for i, n in enumerate(g.dims(x)) if n == 1]
    g.emit(op, x=x, axes=None if g.chance(0.3) else [g.one(*ones)])


@family("flatten2d")
def flatten2d(g: Maker, op: str) -> None:
    x = g.pick(NOT_SMALL, 2)
    g.emit(op, x=x, axis=g.int(1, g.rank(x) - 1))  # of 0 coremltools cannot infer a value


@family("identity", "shape")
def plain(g: Maker, op: str) -> None:
    g.emit(op, x=g.pick(ANY if op == "identity" else NOT_SMALL))


@family("transpose")
def transpose(g: Maker, op: str) -> None:
    x = g.pick(ANY)
    rank = g.rank(x)
    g.emit(op, x=x, perm=[int(a) - rank * g.chance(0.2) for a in g.rng.permutation(rank)])


@family("reverse")
def reverse(g: Maker, op: str) -> None:
    x = g.pick(ANY)
    g.emit(op, x=x, axes=None if g.chance(0.2) else g.axes(g.rank(x)))


@family("reverse_sequence")
def reverse_sequence(g: Maker, op: str) -> None:
    x = g.pick("ffi", 2)
    batch, sequence = (int(a) for a in g.rng.permutation(g.rank(x))[:2])
    lengths = g.rng.integers(0, g.dims(x)[sequence] + 1, g.dims(x)[batch]).astype("int32")
    g.emit(op, x=x, lengths=lengths, seq_axis=sequence, batch_axis=batch)


@family("depth_to_space", "pixel_shuffle")
def widen_space(g: Maker, op: str) -> None:
    b = g.int(1, 3)
    x = g.pick("f", 4, 4, lambda v: v.shape[1] % b**2 == 0)
    g.emit(op, x=x, **{"block_size" if op == "depth_to_space" else "upscale_factor": b})


@family("space_to_depth", "pixel_unshuffle")
def narrow_space(g: Maker, op: str) -> None:
    b = g.int(2, 3)
    x = g.pick("f", 4, 4, lambda v: v.shape[2] % b == v.shape[3] % b == 0)
    g.emit(op, x=x, **({"block_size": b} if op == "space_to_depth" else {"downscale_factor": np.uint32(b)}))


@family("space_to_batch", "batch_to_space")
def batch_blocks(g: Maker, op: str) -> None:
    a, b = g.int(1, 3), g.int(1, 3)
    pad = np.array([[g.int(0, 2), g.int(0, 2)], [g.int(0, 2), g.int(0, 2)]])
    if op == "batch_to_space":
        x = g.pick("f", 4, 4, lambda v: v.shape[0] % (a * b) == 0 and v.shape[2] * a > 4 and v.shape[3] * b > 4)
        g.emit(op, x=x, block_shape=[a, b], crops=pad)
    else:
        x = g.pick("f", 4, 4, lambda v: (v.shape[2] + pad[0].sum()) % a == (v.shape[3] + pad[1].sum()) % b == 0)
        g.emit(op, x=x, block_shape=[a, b], paddings=pad)


@family("concat", "stack")
def join(g: Maker, op: str) -> None:
    x = g.pick(ANY, 1, 4)
    shape, rank = list(g.dims(x)), g.rank(x)
    if op == "stack":
        values = [g.one(x, g.array(shape, g.dtype(x))) for _ in range(g.int(1, 3))]
        g.emit(op, values=[x, *values], axis=g.int(-rank - 1, rank))
        return
    axis, interleave = g.axis(rank), g.chance(0.3)
    values = [x]
    for _ in range(g.int(0 if not interleave else 1, 3)):
        n = shape[axis] if interleave or g.chance(0.5) else g.int(1, 9)
        wanted = [*shape[: axis % rank], n, *shape[axis % rank + 1 :]]
        values.append(g.one(g.array, g.fresh)(wanted, g.dtype(x)))
    g.emit(op, values=[values[i] for i in g.rng.permutation(len(values))], axis=axis, interleave=interleave)


@family("split")
def split(g: Maker, op: str) -> None:
    x = g.pick(NOT_SMALL, 1, 5, lambda v: max(v.shape) > 1)
    axis = int(np.argmax(g.dims(x)))
    n = g.dims(x)[axis]
    if g.chance(0.5):
        g.emit(op, x=x, num_splits=g.one(*[d for d in range(1, min(n, 5) + 1) if n % d == 0]), axis=axis - g.rank(x))
    else:
        cut = g.int(1, n - 1)
        g.emit(op, x=x, split_sizes=[cut, n - cut], axis=axis)


@family("tile")
def tile(g: Maker, op: str) -> None:
    x = g.pick(NOT_SMALL)
    g.emit(op, x=x, reps=[g.int(1, 3) for _ in range(g.rank(x))])


@family("pad")
def pad(g: Maker, op: str) -> None:
    x = g.pick("f", 1, 4)
    mode = g.one("constant", "reflect", "replicate")
    axes = g.rank(x) if mode == "constant" else min(g.rank(x), g.int(1, 2))
    most = [3 if mode != "reflect" else min(3, n - 1) for n in g.dims(x)[-axes:]]
    amounts = np.array([g.int(0, most[i // 2]) for i in range(2 * axes)])
    g.emit(op, x=x, pad=amounts, mode=mode, constant_val=g.scalar(g.dtype(x), 0, 1))


@family("crop")
def crop(g: Maker, op: str) -> None:
    x = g.pick("f", 4, 4, lambda v: min(v.shape[2:]) > 2)
    g.emit(op, x=x, crop_height=[g.int(0, 1), g.int(0, 1)], crop_width=[g.int(0, 1), g.int(0, 1)])


@family("sliding_windows")
def sliding_windows(g: Maker, op: str) -> None:
    x = g.pick("ffi", 1, 4)
    axis = g.axis(g.rank(x))
    g.emit(op, x=x, axis=axis, size=g.int(1, g.dims(x)[axis]), stride=g.int(1, 3))


# ---- making ---------------------------------------------------------------------------------


@family("band_part")
def band_part(g: Maker, op: str) -> None:
    g.emit(op, x=g.pick("fi", 2), lower=g.int(-1, 5), upper=g.int(-1, 5))


@family("fill_like")
def fill_like(g: Maker, op: str) -> None:
    g.emit(op, ref_tensor=g.pick("fi"), value=g.scalar(g.floating, 0, 2))


@family("one_hot")
def one_hot(g: Maker, op: str) -> None:
    indices = g.pick("i", 1, 4)
    on, off = (np.array(v).astype(g.array((), g.floating).dtype)[()] for v in (1, 0))
    g.emit(op, indices=indices, one_hot_vector_size=g.int(1, 9), axis=g.axis(g.rank(indices) + 1), on_value=on,
           off_value=off)  # fmt: skip


@family("fill", "range_1d")
def from_constants(g: Maker, op: str) -> None:
    dtype = g.one("fp16", "fp32", "int32", *(["bool"] if op == "fill" else []))
    if op == "fill":
        g.emit(op, shape=list(g.shape(1, 4)), value=g.scalar(dtype, 0, 3))
    else:
        step, n = g.one(1, 2, -3), g.int(1, 40)
        start = g.int(-9, 9)
        limits = {"start": start, "end": start + n * step, "step": step}
        g.emit(op, **{name: np.array(value).astype(DTYPES[dtype])[()] for name, value in limits.items()})


# ---- indices --------------------------------------------------------------------------------


def indices(g: Maker, most: int, shape: Any) -> Any:
    """Valid indices, from a weight or an input."""
    chosen = g.rng.integers(0, most, shape).astype("int32")
    if g.chance(0.5) or not chosen.ndim:
        return chosen
    made = g.fresh(chosen.shape, "int32")
    g.graph.inputs[made.name] = g.values[made.name] = chosen
    return made


@family("slice_by_index")
def slice_by_index(g: Maker, op: str) -> None:
    x = g.pick(ANY)
    begin, end, stride, masks = [], [], [], ([], [], [])
    for n in g.dims(x):
        b, e = sorted((g.int(0, n - 1), g.int(0, n - 1)))
        step, squeezed = g.one(1, 1, 2, 3), g.chance(0.15)
        if g.chance(0.15) and not squeezed and b < e:
            begin, end, stride = [*begin, e], [*end, b], [*stride, -step]
        else:
            begin, end, stride = [*begin, b - n * g.chance(0.2)], [*end, e + 1], [*stride, 1 if squeezed else step]
        for mask, value in zip(masks, (g.chance(0.2) and not squeezed, g.chance(0.2), squeezed), strict=True):
            mask.append(value)
    g.emit(op, x=x, begin=begin, end=end, stride=stride, begin_mask=masks[0], end_mask=masks[1], squeeze_mask=masks[2])


@family("slice_by_size", "slice_update")
def slices(g: Maker, op: str) -> None:
    x = g.pick(ANY if op == "slice_by_size" else "ffi")
    size = [g.int(1, n) for n in g.dims(x)]
    begin = [g.int(0, n - s) for n, s in zip(g.dims(x), size, strict=True)]
    if op == "slice_by_size":
        g.emit(op, x=x, begin=begin, size=size)
    else:
        update = g.one(g.array, g.fresh)(size, g.dtype(x))
        g.emit(op, x=x, update=update, begin=begin, end=[b + s for b, s in zip(begin, size, strict=True)])


@family("gather")
def gather(g: Maker, op: str) -> None:
    x = g.pick("fffis", 1, 4)
    axis = g.axis(g.rank(x))
    shape = g.one((), (3,), (7,), (2, 3)) if g.rank(x) < 4 else (g.int(1, 9),)
    g.emit(op, x=x, indices=indices(g, g.dims(x)[axis], shape), axis=axis)


@family("gather_along_axis", "scatter_along_axis")
def along_axis(g: Maker, op: str) -> None:
    x = g.pick("ffi")
    axis = g.axis(g.rank(x))
    shape = list(g.dims(x))
    shape[axis] = g.int(1, shape[axis])
    if op == "gather_along_axis":
        g.emit(op, x=x, indices=indices(g, g.dims(x)[axis], shape), axis=axis)
        return
    mode = g.one("add", "sub", "mul", "max", "min", "update")
    order = np.argsort(g.rng.random(g.dims(x)), axis).take(range(shape[axis]), axis).astype("int32")
    where = order if mode == "update" else indices(g, g.dims(x)[axis], shape)
    updates = g.one(g.array, g.fresh)  # of constants alone coremltools computes the result as if all were updates
    made = updates if mode == "update" else g.fresh
    g.emit(op, data=x, indices=where, updates=made(shape, g.dtype(x)), axis=axis, mode=mode)


@family("gather_nd", "scatter_nd")
def nd(g: Maker, op: str) -> None:
    x = g.pick("ffi")
    shape = g.dims(x)
    depth, count = g.int(1, g.rank(x)), g.int(1, 4)
    mode = g.one("add", "sub", "max", "min", "update")
    count = min(count, int(np.prod(shape[:depth])))
    flat = g.rng.choice(int(np.prod(shape[:depth])), count, replace=mode != "update")
    where = np.stack(np.unravel_index(flat, shape[:depth]), -1).astype("int32")
    if op == "gather_nd":
        g.emit(op, x=x, indices=where)
    else:
        updates = g.one(g.array, g.fresh)((count, *shape[depth:]), g.dtype(x))
        g.emit(op, data=x, indices=where, updates=updates, mode=mode)


@family("scatter")
def scatter(g: Maker, op: str) -> None:
    x = g.pick("ffi")
    axis, mode = g.axis(g.rank(x)), g.one("add", "sub", "mul", "max", "min", "update")
    n = g.dims(x)[axis]
    where = g.rng.choice(n, g.int(1, n), replace=mode != "update").astype("int32")
    shape = list(g.dims(x))
    shape[axis] = len(where)
    g.emit(op, data=x, indices=where, updates=g.one(g.array, g.fresh)(shape, g.dtype(x)), axis=axis, mode=mode)


@family("topk")
def topk(g: Maker, op: str) -> None:
    x = g.pick("fi")
    axis = g.axis(g.rank(x))
    g.emit(op, x=x, k=g.int(1, g.dims(x)[axis]), axis=axis, ascending=g.chance(0.5), sort=True, return_indices=True)


@family("argsort")
def argsort(g: Maker, op: str) -> None:
    x = g.pick("fi")
    g.emit(op, x=x, axis=g.axis(g.rank(x)), ascending=g.chance(0.5))


# ---- resizing -------------------------------------------------------------------------------


@family("upsample_nearest_neighbor", "upsample_bilinear")
def upsample(g: Maker, op: str) -> None:
    more = {"align_corners": g.chance(0.5)} if op == "upsample_bilinear" else {}
    x = g.pick("f", 3, 5 if op == "upsample_nearest_neighbor" else 4)
    g.emit(op, x=x, scale_factor_height=g.int(1, 4), scale_factor_width=g.int(1, 4), **more)


@family("resize_bilinear", "resize_nearest_neighbor")
def resize(g: Maker, op: str) -> None:
    modes = ("DEFAULT", "STRICT_ALIGN_CORNERS", "ALIGN_CORNERS", "OFFSET_CORNERS", "UNALIGN_CORNERS")
    more = {"sampling_mode": g.one(*modes)} if op == "resize_bilinear" else {}
    g.emit(op, x=g.pick("f", 3, 4), target_size_height=g.int(1, 20), target_size_width=g.int(1, 20), **more)


@family("resize")
def resize_axes(g: Maker, op: str) -> None:
    modes = ("DEFAULT", "STRICT_ALIGN_CORNERS", "ALIGN_CORNERS", "OFFSET_CORNERS", "UNALIGN_CORNERS")
    shape = [g.int(1, 20), g.int(1, 20)]
    g.emit(op, x=g.pick("f", 2, 5), shape=shape, resized_dims=np.uint32(2), interpolation_mode="LINEAR",
           sampling_mode=g.one(*modes))  # fmt: skip


@family("resample")
def resample(g: Maker, op: str) -> None:
    x = g.pick("f", 4, 4)
    corners, padding = g.chance(0.5), g.one("constant", "border", "reflection")
    padding = "symmetric" if padding == "reflection" and not corners else padding
    g.emit(op, x=x, coordinates=g.array((g.dims(x)[0], g.int(1, 5), g.int(1, 9), 2), g.dtype(x), -1.5, 1.5),
           sampling_mode="bilinear", padding_mode=padding, padding_value=g.scalar(g.dtype(x), 0, 0),
           coordinates_mode="normalized_minus_one_to_one", align_corners=corners)  # fmt: skip


@family("affine")
def affine(g: Maker, op: str) -> None:
    x = g.pick("f", 4, 4)
    g.emit(op, x=x, transform_matrix=g.array((g.dims(x)[0], 6), g.dtype(x)), output_height=g.int(1, 9),
           output_width=g.int(1, 9), sampling_mode="bilinear", padding_mode="constant",
           padding_value=g.scalar(g.dtype(x), 0, 0), coordinates_mode="normalized_minus_one_to_one",
           align_corners=True)  # fmt: skip
