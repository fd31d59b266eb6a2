"""Ops that move data. None of them computes, so results must be equal to the bit."""

from __future__ import annotations

from typing import Any

from .record import array, case, half, weights, whole

_shape: tuple[int, ...]


def exact(op: str, **arguments: Any) -> None:
    case(op, tolerance=0.0, **arguments)


for _shape, _to in (((1, 64, 1, 64), [1, 8, 8, 64]), ((1, 64, 1, 64), [1, 64, 64]), ((1, 3, 5, 7), [1, 105])):
    exact("reshape", x=array(*_shape), shape=_to)
exact("reshape_like", x=array(6, 32), ref_tensors=[array(2, 3, 32), array(6, 32)], begins=[0, 1], ends=[2, 2],
      end_masks=[False, False])  # fmt: skip
for _shape in ((1, 64, 1, 64), (3, 7)):
    exact("expand_dims", x=array(*_shape), axes=[0])
    exact("identity", x=array(*_shape))
exact("squeeze", x=array(1, 64, 1, 64), axes=[2])
exact("squeeze", x=array(1, 3, 7), axes=[0])
exact("flatten2d", x=array(1, 64, 1, 64), axis=2)
exact("flatten2d", x=array(2, 3, 5), axis=1)
for _shape, _perm in (((1, 64, 1, 64), [0, 3, 2, 1]), ((1, 8, 64, 32), [0, 2, 1, 3]), ((1, 3, 5, 7), [0, 3, 1, 2])):
    exact("transpose", x=array(*_shape), perm=_perm)
for _channels in (32, 12):
    exact("depth_to_space", x=array(1, _channels, 8, 32), block_size=2)
    exact("space_to_depth", x=array(1, _channels, 8, 32), block_size=2)
    exact("pixel_shuffle", x=array(1, _channels, 8, 32), upscale_factor=2)
    exact(
        "pixel_unshuffle",
        x=array(1, _channels, 8, 32),
        downscale_factor=2,
        make=lambda mb, a: mb.pixel_unshuffle(x=a["x"], downscale_factor=_unsigned(a["downscale_factor"])),
    )
exact("batch_to_space", x=array(4, 32, 8, 32), block_shape=[2, 2], crops=weights(2, 2, low=0, high=0, dtype="int32"))
exact("space_to_batch", x=array(1, 32, 8, 32), block_shape=[2, 2], paddings=weights(2, 2, low=0, high=0, dtype="int32"))
exact("reverse", x=array(1, 64, 1, 64), axes=[3])
exact("reverse", x=array(1, 3, 5, 7), axes=[1, 2])
exact("reverse_sequence", x=array(2, 8, 32), lengths=whole(2, low=1, high=8), seq_axis=1, batch_axis=0)
for _shapes, _axis in (
    (((1, 64, 1, 64), (1, 64, 1, 64)), 1),
    (((1, 32, 8, 32), (1, 32, 8, 64)), 3),
    (((1, 3, 5), (1, 4, 5)), 1),
):
    exact("concat", values=[array(*shape) for shape in _shapes], axis=_axis)
exact("concat", values=[array(1, 32, 8, 32), array(1, 32, 8, 32)], axis=1, interleave=True)
exact("stack", values=[array(1, 32, 64), array(1, 32, 64)], axis=1)
exact("stack", values=[array(3, 5), array(3, 5), array(3, 5)], axis=-1)
exact("split", x=array(1, 64, 1, 64), num_splits=2, axis=1)
exact("split", x=array(1, 9, 5), split_sizes=[2, 3, 4], axis=1)
exact("tile", x=array(1, 32, 1, 32), reps=[1, 1, 2, 2])
exact("tile", x=array(3, 5), reps=[2, 1])
for _mode in ("constant", "reflect", "replicate"):
    exact("pad", x=array(1, 32, 8, 32), pad=[0, 0, 0, 0, 1, 1, 2, 2], mode=_mode)
exact("pad", x=array(1, 3, 5, 7), pad=[1, 2], constant_val=7.0)
exact("crop", x=array(1, 32, 10, 34), crop_height=[1, 1], crop_width=[1, 1])
exact("crop", x=array(2, 3, 8, 9), crop_height=[1, 2], crop_width=[0, 4])
exact("sliding_windows", x=array(1, 64, 32), axis=1, size=8, stride=4)
exact("sliding_windows", x=array(1, 9, 5), axis=1, size=3)
exact("band_part", x=array(1, 8, 64, 64), lower=-1, upper=0)
exact("band_part", x=array(5, 7), lower=1, upper=2)

# ---- new sizes: interpolation computes, so the usual tolerance -----------------------------------------------------

for _shape in ((1, 32, 8, 32), (1, 3, 5, 7)):
    _height, _width = 2 * _shape[2], 2 * _shape[3]
    exact("upsample_nearest_neighbor", x=array(*_shape), scale_factor_height=2, scale_factor_width=2)
    exact("resize_nearest_neighbor", x=array(*_shape), target_size_height=_height, target_size_width=_width)
    for _corners in (True, False):
        case("upsample_bilinear", x=array(*_shape), scale_factor_height=2, scale_factor_width=2, align_corners=_corners)
    for _sampling in ("DEFAULT", "STRICT_ALIGN_CORNERS", "UNALIGN_CORNERS"):
        case("resize_bilinear", x=array(*_shape), target_size_height=_height, target_size_width=_width,
             sampling_mode=_sampling)  # fmt: skip
    case("resize", x=array(*_shape), shape=[_height, _width], resized_dims=2,
         make=lambda mb, a: mb.resize(x=a["x"], shape=_whole(a["shape"]), resized_dims=_unsigned(a["resized_dims"]),
                                      interpolation_mode="LINEAR", sampling_mode="UNALIGN_CORNERS"))  # fmt: skip
_GRID = {"padding_mode": "constant", "padding_value": 0.0, "coordinates_mode": "normalized_minus_one_to_one"}
for _sampling in ("bilinear", "nearest"):
    case("resample", x=array(1, 32, 8, 32), coordinates=array(1, 8, 32, 2, low=-1, high=1), align_corners=True,
         make=lambda mb, a, sampling=_sampling: mb.resample(**a, sampling_mode=sampling, **_halves(_GRID)))  # fmt: skip
case("affine", x=array(1, 32, 8, 32), matrix=weights(1, 6, low=-0.7, high=0.7),
     make=lambda mb, a: mb.affine(x=a["x"], transform_matrix=a["matrix"], output_height=8, output_width=32,
                                  sampling_mode="bilinear", align_corners=True, **_halves(_GRID)))  # fmt: skip
case("crop_resize", x=array(1, 32, 16, 32), make=lambda mb, a: mb.crop_resize(
    x=a["x"], boxes=_boxes(), box_indices=_whole([0, 0]), target_height=8, target_width=16, normalized_coordinates=True,
    box_coordinate_mode="CORNERS_HEIGHT_FIRST", sampling_mode="ALIGN_CORNERS"))  # fmt: skip


def _whole(values: Any) -> Any:
    import numpy as np

    return np.asarray(values, "int32")


def _unsigned(value: int) -> Any:
    import numpy as np

    return np.uint32(value)


def _boxes() -> Any:
    import numpy as np

    return np.array([[0.1, 0.2, 0.8, 0.9], [0, 0, 1, 1]], "float16")


def _halves(options: dict[str, Any]) -> dict[str, Any]:
    return {name: half(value) if isinstance(value, float) else value for name, value in options.items()}
