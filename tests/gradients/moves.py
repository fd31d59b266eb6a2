"""Ops that move, choose and repeat elements."""

import numpy as np
import torch
import torch.nn.functional as F  # noqa: N812

from .cases import apart, case, normal

X, CUBE, IMAGE = normal(3, 5), normal(2, 3, 4), normal(2, 4, 6, 4)

case("reshape", lambda x: x.reshape(4, 6), x=CUBE, given={"shape": [4, 6]})
LIKE = [np.zeros((4, 6), np.int32)]
case(
    "reshape_like", lambda x: x.reshape(4, 6), x=CUBE, opset="iOS17",
    given={"ref_tensors": LIKE, "begins": [0], "ends": [2], "end_masks": [True]}, constants=("ref_tensors",),
)  # fmt: skip
case("expand_dims", lambda x: x[:, None, :, None], x=X, given={"axes": [1, 3]})
case("squeeze", lambda x: x[:, 0], x=normal(3, 1, 4), given={"axes": [1]})
case("flatten2d", lambda x: x.reshape(2, 12), x=CUBE, given={"axis": 1})
case("identity", lambda x: x * 1, x=X)
case("transpose", lambda x: x.permute(2, 0, 1), x=CUBE, given={"perm": [2, 0, -2]})
case("pixel_shuffle", lambda x: F.pixel_shuffle(x, 2), x=IMAGE, given={"upscale_factor": 2})
case("pixel_unshuffle", lambda x: F.pixel_unshuffle(x, 2), x=IMAGE, given={"downscale_factor": np.uint32(2)})


def depth_to_space(x, b=2):
    n, c, h, w = x.shape
    return x.reshape(n, b, b, c // b**2, h, w).permute(0, 3, 4, 1, 5, 2).reshape(n, c // b**2, h * b, w * b)


def space_to_depth(x, b=2):
    n, c, h, w = x.shape
    return x.reshape(n, c, h // b, b, w // b, b).permute(0, 3, 5, 1, 2, 4).reshape(n, c * b**2, h // b, w // b)


case("depth_to_space", depth_to_space, x=IMAGE, given={"block_size": 2})
case("space_to_depth", space_to_depth, x=IMAGE, given={"block_size": 2})


def space_to_batch(x, block=(2, 2), pads=((1, 1), (0, 0))):
    x = F.pad(x, (*pads[1], *pads[0]))
    n, c, h, w = x.shape
    x = x.reshape(n, c, h // block[0], block[0], w // block[1], block[1])
    return x.permute(3, 5, 0, 1, 2, 4).reshape(-1, c, h // block[0], w // block[1])


def batch_to_space(x, block=(2, 2), crops=((1, 0), (0, 1))):
    n, c, h, w = x.shape
    x = x.reshape(*block, n // 4, c, h, w).permute(2, 3, 4, 0, 5, 1).reshape(n // 4, c, h * 2, w * 2)
    return x[:, :, crops[0][0] : h * 2 - crops[0][1], crops[1][0] : w * 2 - crops[1][1]]


case("space_to_batch", space_to_batch, x=IMAGE, given={"block_shape": [2, 2], "paddings": [[1, 1], [0, 0]]})
case("batch_to_space", batch_to_space, x=normal(4, 2, 3, 3), given={"block_shape": [2, 2], "crops": [[1, 0], [0, 1]]})
case("reverse", lambda x: x.flip(0, 2), x=CUBE, given={"axes": [0, -1]})
case("reverse", lambda x: x.flip(0, 1, 2), "of all axes", x=CUBE)


def reverse_sequence(x, lengths=(2, 4, 1)):
    rows = [torch.cat([row[:n].flip(0), row[n:]]) for row, n in zip(x, lengths, strict=True)]
    return torch.stack(rows)


case(
    "reverse_sequence", reverse_sequence, x=normal(3, 5, 2),
    given={"lengths": np.array([2, 4, 1], np.int32), "seq_axis": 1, "batch_axis": 0},
)  # fmt: skip
case("concat", lambda *v: torch.cat(v, 1), values=[normal(2, 3), normal(2, 1), normal(2, 4)], given={"axis": -1})


def interleaved(a, b):
    return torch.stack([a, b], 2).reshape(2, 6, 4)


case("concat", interleaved, "in turns", values=[CUBE, normal(2, 3, 4, seed=1)], given={"axis": 1, "interleave": True})
case("stack", lambda *v: torch.stack(v, 1), values=[X, normal(3, 5, seed=1)], given={"axis": 1})
case("split", lambda x: torch.split(x, [1, 3], 2), x=CUBE, given={"split_sizes": [1, 3], "axis": -1})
case("split", lambda x: torch.split(x, 2, 2), "in equal parts", x=CUBE, given={"num_splits": 2, "axis": 2})
case("tile", lambda x: x.repeat(2, 1, 3), x=CUBE, given={"reps": [2, 1, 3]})
PADS = {"pad": [0, 0, 1, 2, 3, 0], "constant_val": 0.0}
case("pad", lambda x: F.pad(x, (3, 0, 1, 2)), x=CUBE, given={**PADS, "mode": "constant"})
case("pad", lambda x: F.pad(x, (3, 0, 1, 2), mode="reflect"), "reflect", x=CUBE, given={**PADS, "mode": "reflect"})
case(
    "pad", lambda x: F.pad(x, (3, 0, 1, 2), mode="replicate"), "replicate", x=CUBE,
    given={**PADS, "mode": "replicate"},
)  # fmt: skip
case("crop", lambda x: x[:, :, 1:4, 2:3], x=IMAGE, given={"crop_height": [1, 2], "crop_width": [2, 1]})
case("sliding_windows", lambda x: x.unfold(1, 3, 2), x=normal(2, 8), given={"axis": 1, "size": 3, "stride": 2})
case("band_part", torch.tril, x=X, given={"lower": -1, "upper": 0})

# ---- slices, gathers, scatters --------------------------------------------------------------------

case("slice_by_index", lambda x: x[1:, :, 1:3], x=CUBE, given={"begin": [1, 0, 1], "end": [2, 3, 3]})
case(
    "slice_by_index", lambda x: x[1, ::2, :3].flip(1), "with strides and masks", x=CUBE,
    given={
        "begin": [1, 0, 2], "end": [2, 3, 0], "stride": [1, 2, -1], "squeeze_mask": [True, False, False],
        "begin_mask": [False, True, False], "end_mask": [False, True, True],
    },
)  # fmt: skip
case("slice_by_size", lambda x: x[1:2, 0:2, 1:4], x=CUBE, given={"begin": [1, 0, 1], "size": [1, 2, 3]})
case(
    "slice_by_size", lambda x: x[1:2, 0:2, 1:4], "from where the data say", x=CUBE,
    given={"begin": np.array([1, 0, 1], np.int32), "size": [1, 2, 3]},
)  # fmt: skip


def updated(x, update):
    x = x.clone()
    x[:, 1:3, 0] = update
    return x


case(
    "slice_update", updated, x=CUBE, update=normal(2, 2, seed=1),
    given={"begin": [0, 1, 0], "end": [2, 3, 1], "squeeze_mask": [False, False, True]},
)  # fmt: skip
ROWS = np.array([[2, 0], [2, 1]], np.int32)
case("gather", lambda x: x[torch.from_numpy(ROWS).long()], x=X, given={"indices": ROWS, "axis": 0})
case(
    "gather", lambda x: x[:, torch.from_numpy(ROWS).long()], "in the middle", x=CUBE, given={"indices": ROWS, "axis": 1}
)
case(
    "gather", lambda x: torch.stack([x[0][:, [2, 0]], x[1][:, [2, 1]]]), "of batches", x=CUBE,
    given={"indices": ROWS, "axis": 2, "batch_dims": 1},
)  # fmt: skip
ALONG = np.array([[0, 4, 4], [1, 1, 2], [3, 0, 0]], np.int32)
case(
    "gather_along_axis", lambda x: torch.gather(x, 1, torch.from_numpy(ALONG).long()), x=X,
    given={"indices": ALONG, "axis": 1},
)  # fmt: skip
PLACES = np.array([[0, 2], [1, 1], [0, 2]], np.int32)
case("gather_nd", lambda x: x[[0, 1, 0], [2, 1, 2]], x=CUBE, given={"indices": PLACES})
case(
    "gather_nd", lambda x: torch.stack([x[0, [2, 0]], x[1, [2, 1]]]), "of batches", x=CUBE,
    given={"indices": ROWS[:, :, None], "batch_dims": 1},
)  # fmt: skip
ONCE = np.array([3, 0], np.int32)


def scattered(mode):
    def put(data, updates):
        indices = torch.from_numpy(ONCE).long()
        if mode == "update":
            return data.index_copy(1, indices, updates)
        return data.index_add(1, indices, updates, alpha=-1 if mode == "sub" else 1)

    return put


for _mode in ("add", "sub", "update"):
    case(
        "scatter", scattered(_mode), _mode, data=X, updates=normal(3, 2, seed=1),
        given={"indices": ONCE, "axis": 1, "mode": _mode},
    )  # fmt: skip
case(
    "scatter_along_axis", lambda data, updates: data.scatter_add(1, torch.from_numpy(ALONG).long(), updates), data=X,
    updates=normal(3, 3, seed=1), given={"indices": ALONG, "axis": 1, "mode": "add"},
)  # fmt: skip
case(
    "scatter_nd",
    lambda data, updates: data.index_put(
        (torch.tensor([0, 1, 0]), torch.tensor([2, 1, 2])), updates, accumulate=True
    ),
    data=CUBE, updates=normal(3, 4, seed=1), given={"indices": PLACES, "mode": "add"},
)  # fmt: skip
case("topk", lambda x: torch.topk(x, 2, 1)[0], x=apart(3, 5), given={"k": 2, "axis": 1})
case("cumsum", lambda x: torch.cumsum(x, 1), x=CUBE, given={"axis": 1})
case(
    "cumsum", lambda x: torch.cumsum(x.flip(2), 2).flip(2) - x, "from the end, without itself", x=CUBE,
    given={"axis": 2, "exclusive": True, "reverse": True},
)  # fmt: skip

# ---- resizing -------------------------------------------------------------------------------------


def resized(size, mode, **more):
    return lambda x: F.interpolate(x, size=size, mode=mode, **more)


PICTURE = normal(1, 2, 3, 4)
case(
    "upsample_nearest_neighbor", resized((6, 12), "nearest"), x=PICTURE,
    given={"scale_factor_height": 2, "scale_factor_width": 3},
)  # fmt: skip
case(
    "upsample_bilinear", resized((6, 12), "bilinear", align_corners=True), x=PICTURE,
    given={"scale_factor_height": 2, "scale_factor_width": 3, "align_corners": True},
)  # fmt: skip
case(
    "upsample_bilinear", resized((6, 12), "bilinear", align_corners=False), "between corners", x=PICTURE,
    given={"scale_factor_height": 2.0, "scale_factor_width": 3.0, "align_corners": False, "half_pixel_centers": True},
)  # fmt: skip
case(
    "resize_nearest_neighbor", resized((6, 2), "nearest-exact"), x=PICTURE,
    given={"target_size_height": 6, "target_size_width": 2},
)  # fmt: skip
case(
    "resize_bilinear", resized((5, 4), "bilinear", align_corners=True), x=PICTURE,
    given={"target_size_height": 5, "target_size_width": 4, "sampling_mode": "STRICT_ALIGN_CORNERS"},
)  # fmt: skip
case(
    "resize", resized((7, 3), "bilinear", align_corners=False), x=PICTURE,
    given={
        "shape": [7, 3], "resized_dims": np.uint32(2), "interpolation_mode": "LINEAR",
        "sampling_mode": "UNALIGN_CORNERS",
    },
)  # fmt: skip


def offset(x):
    """OFFSET_CORNERS of MIL's documentation: samples apart from the elements even at the same size."""
    for axis, m in ((2, 3), (3, 6)):
        n = x.shape[axis]
        at = np.clip((np.arange(m) + 0.5) * (max(1, n - 1) / m), 0, n - 1)
        matrix = np.array([np.interp(at, np.arange(n), unit) for unit in np.eye(n)])
        x = torch.tensordot(x, torch.tensor(matrix), ([axis], [0])).movedim(-1, axis)
    return x


case(
    "resize_bilinear", offset, "apart from the corners", x=PICTURE,
    given={"target_size_height": 3, "target_size_width": 6, "sampling_mode": "OFFSET_CORNERS"},
)  # fmt: skip
