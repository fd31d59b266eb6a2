"""Packages whose inputs Core ML calls images: planes of 0 to 255, which the program itself scales and shifts."""

from __future__ import annotations

import coremltools as ct
import numpy as np
import pytest
import torch

import anex


@pytest.mark.parametrize("precision", ["float16", "float32"])
@pytest.mark.parametrize("layout", ["RGB", "BGR", "GRAYSCALE"])
def test_a_package_with_an_image_gives_what_torch_gives_of_the_scaled_planes(tmp_path, rng, layout, precision):
    torch.manual_seed(0)
    planes = 1 if layout == "GRAYSCALE" else 3
    module = torch.nn.Sequential(torch.nn.Conv2d(planes, 4, 3), torch.nn.ReLU()).eval()
    shift = [0.1, -0.2, 0.3][:planes]
    image = ct.ImageType(
        name="image", shape=(1, planes, 9, 8), scale=1 / 255, bias=shift if planes == 3 else shift[0],
        color_layout=getattr(ct.colorlayout, layout),
    )  # fmt: skip
    example = torch.zeros(1, planes, 9, 8)
    converted = ct.convert(
        torch.jit.trace(module, example), inputs=[image], minimum_deployment_target=ct.target.iOS16,
        compute_precision=getattr(ct.precision, precision.upper()), skip_model_load=True,
    )  # fmt: skip
    converted.save(str(tmp_path / "m.mlpackage"))
    program = anex.compile(anex.from_mlpackage(tmp_path / "m.mlpackage"))
    pixels = rng.integers(0, 256, (1, planes, 9, 8))
    (given,) = program.inputs.values()
    found = np.asarray(program(pixels.astype(given.dtype)))
    scaled = torch.tensor(pixels / 255 + np.reshape(shift, (1, planes, 1, 1)))
    with torch.no_grad():
        wanted = module.double()(scaled).numpy()
    np.testing.assert_allclose(found, wanted, atol=1e-2 if precision == "float16" else 1e-5)
