"""Resizing and sampling of images, against torch and the values in coremltools' own tests."""

import numpy as np
import pytest
import torch
from harness import check, run, tolerance
from torch.nn import functional

import anex

SIZES = [(5, 7), (10, 14), (3, 3), (1, 1), (17, 4), (33, 64)]


def torch_of(function):
    """``function`` of torch float64 tensors as ``expected=`` wants it: of arrays, by name."""

    def expected(x, **others):
        tensors = [torch.from_numpy(np.asarray(v)) for v in (x, *others.values()) if isinstance(v, np.ndarray)]
        return function(*tensors).numpy()

    return expected


def points(mode, n_in, n_out):
    """The positions of MIL's documentation of resize_bilinear."""
    i = np.arange(n_out, dtype=np.float64)
    if mode in ("STRICT_ALIGN_CORNERS", "ALIGN_CORNERS"):
        at = i * ((n_in - 1) / max(n_out - 1, 1))
        at = at if n_out > 1 or mode.startswith("STRICT") else np.array([(n_in - 1) / 2])
    elif mode == "DEFAULT":
        at = i * ((n_in - n_in / n_out) / max(n_out - 1, 1))
    elif mode == "OFFSET_CORNERS":
        at = (i + 0.5) * (max(1, n_in - 1) / n_out)
    else:
        at = (i + 0.5) * (n_in / n_out) - 0.5
    return np.clip(at, 0, n_in - 1)


def linear(x, shape, mode):
    for axis, n in zip((-2, -1), shape, strict=True):
        at = points(mode, x.shape[axis], n)
        grid = np.arange(x.shape[axis])
        matrix = np.array([np.interp(at, grid, column) for column in np.eye(len(grid))])
        x = np.moveaxis(np.moveaxis(x, axis, -1) @ matrix, -1, axis)
    return x


MODES = ["DEFAULT", "STRICT_ALIGN_CORNERS", "ALIGN_CORNERS", "OFFSET_CORNERS", "UNALIGN_CORNERS"]


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("size", SIZES)
def test_resize_bilinear_in_every_sampling_mode(device, rng, mode, size):
    check(
        "resize_bilinear",
        x=rng.normal(size=(2, 3, 5, 7)),
        target_size_height=size[0],
        target_size_width=size[1],
        sampling_mode=mode,
        device=device,
        expected=lambda x, **_: linear(x, size, mode),
    )


@pytest.mark.parametrize(
    ("mode", "expected"),
    [
        ("STRICT_ALIGN_CORNERS", [0, 0.25, 0.5, 0.75, 1]),
        ("DEFAULT", [0, 0.4, 0.8, 1, 1]),
        ("OFFSET_CORNERS", [0.1, 0.3, 0.5, 0.7, 0.9]),
        ("UNALIGN_CORNERS", [0, 0.1, 0.5, 0.9, 1]),
    ],
)
def test_resize_bilinear_gives_the_documented_values(device, mode, expected):
    x = np.array([0.0, 1.0]).reshape(1, 1, 2)
    check(
        "resize_bilinear",
        x=x,
        target_size_height=1,
        target_size_width=5,
        sampling_mode=mode,
        device=device,
        expected=np.reshape(expected, (1, 1, 5)),
    )
    check(
        "resize",
        x=x,
        shape=[1, 1, 5],
        resized_dims=np.uint32(2),
        sampling_mode=mode,
        device=device,
        expected=np.reshape(expected, (1, 1, 5)),
    )


@pytest.mark.parametrize("scale", [(3, 4), (2.5, 2.0), (0.5, 0.75), (1, 1), (1, 3)])
@pytest.mark.parametrize("align_corners", [True, False])
def test_upsample_bilinear_is_torch_interpolate(device, rng, scale, align_corners):
    interpolate = torch_of(
        lambda x: functional.interpolate(
            x, scale_factor=scale, mode="bilinear", align_corners=align_corners, recompute_scale_factor=True
        )
    )
    kinds = {"scale_factor_height": scale[0], "scale_factor_width": scale[1]}
    if any(isinstance(s, float) for s in scale):
        kinds = {name: np.float32(value) for name, value in kinds.items()}
    check(
        "upsample_bilinear",
        x=rng.normal(size=(2, 5, 10, 22)),
        align_corners=align_corners,
        **kinds,
        device=device,
        expected=lambda x, **_: interpolate(x),
    )


def test_upsample_bilinear_without_half_pixel_centers(device):
    x = np.array([1.0, 2.0]).reshape(1, 1, 1, 2)
    expected = np.array([[1, 4 / 3, 5 / 3, 2, 2, 2]] * 2).reshape(1, 1, 2, 6)
    check(
        "upsample_bilinear",
        x=x,
        scale_factor_height=2,
        scale_factor_width=3,
        align_corners=False,
        half_pixel_centers=False,
        device=device,
        expected=expected,
    )


@pytest.mark.parametrize(
    "scale", [(2, 2), (1, 3), (4, 5), (np.float32(2.0), np.float32(1.12)), (np.float32(3.17), np.float32(0.67))]
)
@pytest.mark.parametrize("shape", [(2, 3, 5, 7), (3, 4, 9), (1, 1, 1, 3)])
def test_upsample_nearest_neighbor_repeats(device, rng, scale, shape):
    x = rng.normal(size=shape)
    size = [int(np.floor(s * n)) for s, n in zip(scale, shape[-2:], strict=True)]

    def expected(x, **_):
        image = torch.from_numpy(x).reshape(1, -1, *x.shape[-2:])
        return functional.interpolate(image, size=size, mode="nearest").reshape(*x.shape[:-2], *size).numpy()

    check(
        "upsample_nearest_neighbor",
        x=x,
        scale_factor_height=scale[0],
        scale_factor_width=scale[1],
        device=device,
        expected=expected,
        rtol=0,
    )


@pytest.mark.parametrize("size", SIZES)
def test_resize_nearest_neighbor_takes_the_nearest_pixel_centre(device, rng, size):
    x = rng.normal(size=(2, 3, 5, 7))
    exact = torch_of(lambda x, *_: functional.interpolate(x, size=size, mode="nearest-exact"))
    check(
        "resize_nearest_neighbor",
        x=x,
        target_size_height=size[0],
        target_size_width=size[1],
        device=device,
        expected=lambda x, **_: exact(x),
        rtol=0,
    )
    check(
        "resize",
        x=x,
        shape=[1, *size],
        resized_dims=np.uint32(2),
        interpolation_mode="NEAREST_NEIGHBOR",
        device=device,
        expected=lambda x, **_: exact(x),
        rtol=0,
    )


@pytest.mark.parametrize("mode", MODES[1:])
def test_resize_nearest_takes_the_element_nearest_to_the_point(device, rng, mode):
    x = rng.integers(0, 100, (3, 5, 7)).astype("int32")
    rows, columns = (np.floor(points(mode, n, m) + 0.5).astype(int) for n, m in ((5, 8), (7, 4)))
    check(
        "resize",
        x=x,
        shape=[8, 4],
        resized_dims=np.uint32(2),
        interpolation_mode="NEAREST_NEIGHBOR",
        sampling_mode=mode,
        device=device,
        expected=x[:, rows][:, :, columns],
    )


def test_resize_of_one_axis_and_of_large_images(device, rng):
    x = rng.normal(size=(1, 3, 4, 6))
    check(
        "resize",
        x=x,
        shape=[13],
        resized_dims=np.uint32(1),
        sampling_mode="UNALIGN_CORNERS",
        device=device,
        expected=lambda x, **_: linear(x, (4, 13), "UNALIGN_CORNERS"),
    )
    check(
        "resize_bilinear",
        x=rng.normal(size=(2, 8, 96, 128)),
        target_size_height=192,
        target_size_width=256,
        device=device,
        expected=lambda x, **_: linear(x, (192, 256), "DEFAULT"),
    )


@pytest.mark.cpu_engine
def test_resize_refuses_integers_between_pixels():
    with pytest.raises(anex.Error, match="cast x first"):
        run("resize", x=np.zeros((2, 2), "int32"), shape=[4, 4], resized_dims=np.uint32(2))


# ---- resample, affine -----------------------------------------------------------------------------------


@pytest.mark.parametrize("sampling", ["bilinear", "nearest"])
@pytest.mark.parametrize("padding", ["constant", "border", "reflection"])
@pytest.mark.parametrize("align_corners", [True, False])
def test_resample_is_torch_grid_sample(device, rng, sampling, padding, align_corners):
    x, coordinates = rng.normal(size=(2, 3, 6, 5)), rng.uniform(-2.5, 2.5, (2, 9, 31, 2))
    # torch reflects at the edges of pixels when align_corners is False, which MIL calls symmetric
    mode = "symmetric" if padding == "reflection" and not align_corners else padding
    theirs = {"constant": "zeros"}.get(padding, padding)

    def expected(x, coordinates, **_):
        grid = torch.from_numpy(coordinates)
        return functional.grid_sample(
            torch.from_numpy(x), grid, mode=sampling, padding_mode=theirs, align_corners=align_corners
        ).numpy()

    check(
        "resample",
        x=x,
        coordinates=coordinates,
        sampling_mode=sampling,
        padding_mode=mode,
        padding_value=np.float32(0),
        coordinates_mode="normalized_minus_one_to_one",
        align_corners=align_corners,
        dtype="float32",
        device=device,
        expected=expected,
    )


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (("bilinear", "constant", 6.17, "normalized_minus_one_to_one", True), [8.585, 6.17, 27.5, 6.17]),
        (("nearest", "border", -1.0, "unnormalized", False), [11.0, 11.0, 11.0, 44.0]),
        (("bilinear", "reflection", -1.0, "normalized_zero_to_one", True), [22.0, 36.3, 11.0, 34.1]),
        (("nearest", "symmetric", -1.0, "normalized_zero_to_one", False), [22.0, 33.0, 11.0, 33.0]),
    ],
)
def test_resample_gives_the_values_of_coremltools_tests(arguments, expected):
    x = np.array([11.0, 22.0, 33.0, 44.0], "float32").reshape(1, 1, 2, 2)
    coordinates = np.array([-1.0, -2.0, -3.7, -1.0, 0.0, 0.0, 3.5, 1.2], "float32").reshape(1, 2, 2, 2)
    names = ("sampling_mode", "padding_mode", "padding_value", "coordinates_mode", "align_corners")
    (found,) = run("resample", x=x, coordinates=coordinates, **dict(zip(names, arguments, strict=True)))
    np.testing.assert_allclose(found.ravel(), expected, rtol=tolerance(1e-5))


def test_resample_takes_integers_and_survives_infinities():
    x = np.array([11.0, 22.0, 33.0, 44.0], "float32").reshape(1, 1, 2, 2)
    common = dict(
        sampling_mode="bilinear", padding_value=np.float32(-1), coordinates_mode="unnormalized", align_corners=True
    )
    whole = np.array([0, 0, 1, 1, 0, 1], "int32").reshape(1, 1, 3, 2)
    (found,) = run("resample", x=x, coordinates=whole, padding_mode="constant", **common)
    assert found.ravel().tolist() == [11, 44, 33]
    wild = np.array([np.inf, 0, np.nan, -np.inf, 1e30, -1e30], "float32").reshape(1, 1, 3, 2)
    for padding in ("constant", "border", "reflection", "symmetric"):
        (found,) = run("resample", x=x, coordinates=wild, padding_mode=padding, **common)
        assert np.isin(found, [-1, 11, 22, 33, 44]).all()


@pytest.mark.parametrize("matrices", [1, 2])
def test_affine_is_torch_affine_grid(device, rng, matrices):
    x, matrix = rng.normal(size=(2, 3, 6, 5)), rng.normal(size=(matrices, 6)) * 0.7

    def expected(x, transform_matrix, **_):
        theta = torch.from_numpy(transform_matrix).reshape(-1, 2, 3).expand(2, 2, 3)
        grid = functional.affine_grid(theta, [2, 3, 4, 9], align_corners=True)
        return functional.grid_sample(torch.from_numpy(x), grid, align_corners=True).numpy()

    check(
        "affine",
        x=x,
        transform_matrix=matrix,
        output_height=4,
        output_width=9,
        sampling_mode="bilinear",
        padding_mode="constant",
        padding_value=np.float32(0),
        coordinates_mode="normalized_minus_one_to_one",
        align_corners=True,
        dtype="float32",
        device=device,
        expected=expected,
    )


# ---- crop_resize ------------------------------------------------------------------------------------------

IMAGE = np.arange(1, 17, dtype="float32").reshape(1, 1, 4, 4)


@pytest.mark.parametrize(
    ("roi", "size", "normalized", "expected"),
    [
        ([1, 1, 2, 2], 2, False, [6, 7, 10, 11]),
        ([1, 1, 2, 2], 1, False, [8.5]),
        ([2, 2, 1, 1], 2, False, [11, 10, 7, 6]),
        ([0, 0.0, 0.0, 1 / 3, 1 / 3], 2, True, [1, 2, 5, 6]),
    ],
)
def test_crop_resize_of_rois_gives_the_values_of_coremltools_tests(roi, size, normalized, expected):
    roi = np.array(roi, "float32").reshape(1, 1, -1, 1, 1)
    (found,) = run(
        "crop_resize",
        x=IMAGE,
        roi=roi,
        target_height=size,
        target_width=size,
        normalized_coordinates=normalized,
        sampling_mode="ALIGN_CORNERS",
        opset="iOS15",
    )
    np.testing.assert_allclose(found, np.reshape(expected, (1, 1, 1, size, size)), rtol=1e-5)


def test_crop_resize_of_ios15_takes_a_box_that_misses_the_image_as_the_whole_image():
    roi = np.array([2, 2, 1, 1], "float32").reshape(1, 1, 4, 1, 1)
    sizes = dict(target_height=2, target_width=2, normalized_coordinates=True, sampling_mode="UNALIGN_CORNERS")
    (found,) = run("crop_resize", x=IMAGE, roi=roi, opset="iOS15", **sizes)
    np.testing.assert_allclose(found.ravel(), [3.5, 5.5, 11.5, 13.5], rtol=1e-5)  # from coremltools' tests


@pytest.mark.parametrize("pad", [0.0, 10.0])
def test_crop_resize_pads_outside_the_image(pad):
    boxes = np.array([[0.1, 0.3, 1.3, 1.0], [0.5, 1.8, 1.0, 0.3], [0.0, 0.4, 0.6, 0.7]], "float32")
    common = dict(
        target_height=2, target_width=2, normalized_coordinates=True, sampling_mode="ALIGN_CORNERS", pad_value=pad
    )
    expected = [3.1, 5.2, pad, pad, pad, 7.9, pad, 13.9, 2.2, 3.1, 9.4, 10.3]
    indices = np.zeros(3, "int32")
    (found,) = run("crop_resize", x=IMAGE, boxes=boxes, box_indices=indices, opset="iOS17", **common)
    np.testing.assert_allclose(found.ravel(), expected, rtol=1e-5)
    rois = np.concatenate([np.zeros((3, 1), "float32"), boxes], 1).reshape(3, 1, 5, 1, 1)
    (found,) = run("crop_resize", x=IMAGE, roi=rois, opset="iOS16", **common)
    np.testing.assert_allclose(found.ravel(), expected, rtol=1e-5)


@pytest.mark.parametrize(
    "mode", ["CORNERS_HEIGHT_FIRST", "CORNERS_WIDTH_FIRST", "CENTER_SIZE_HEIGHT_FIRST", "CENTER_SIZE_WIDTH_FIRST"]
)
@pytest.mark.parametrize("sampling", MODES)
def test_crop_resize_of_whole_images_is_resize_bilinear(device, rng, mode, sampling):
    x = rng.normal(size=(2, 3, 5, 7))
    box = [0, 0, 4, 6] if mode.startswith("CORNERS") else [2, 3, 4, 6]
    if mode.endswith("WIDTH_FIRST"):
        box = [box[1], box[0], box[3], box[2]]
    boxes = np.array([box, box, box], "float32")
    check(
        "crop_resize",
        x=x,
        boxes=boxes,
        box_indices=np.array([1, 0, 1], "int32"),
        target_height=6,
        target_width=20,
        box_coordinate_mode=mode,
        sampling_mode=sampling,
        constants=["boxes"],
        device=device,
        expected=lambda x, **_: linear(x, (6, 20), sampling)[[1, 0, 1]],
    )
