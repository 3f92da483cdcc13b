from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from torchvision.transforms import v2

from saccade.data.augmentation import normalise
from saccade.data.store.stored_form import read_as_stored
from saccade.inference.preprocessing import Preprocess
from saccade.models.network import InputSpec

SIDE = 16


def spec_of(crop_pct: float, interpolation: str = "bicubic") -> InputSpec:
    return InputSpec(SIDE, crop_pct, interpolation, (0.5, 0.4, 0.3), (0.2, 0.3, 0.4))


def noise(height: int, width: int) -> np.ndarray:
    small = np.random.default_rng(height).integers(0, 255, (height // 3 + 1, width // 3 + 1, 3)).astype(np.uint8)
    return np.array(Image.fromarray(small).resize((width, height), Image.Resampling.BICUBIC))


@pytest.mark.parametrize("crop_pct", [0.8, 1.0, 1.15])  # from 1 on, some of timm's networks expect a border
@pytest.mark.parametrize("size", [(20, 30), (60, 33), (16, 16), (9, 12), (62, 20)])
def test_full_images_give_the_same_input_as_decoded_ones(crop_pct: float, size: tuple[int, int]) -> None:
    preprocess, pixels = Preprocess(spec_of(crop_pct)), noise(*size)
    decoded = torch.from_numpy(read_as_stored(pixels, preprocess.shorter_side)).permute(2, 0, 1)
    expected = normalise(preprocess.resize_and_crop(decoded)[None], preprocess.spec.mean, preprocess.spec.std)
    for images in (torch.from_numpy(pixels)[None], torch.from_numpy(pixels).permute(2, 0, 1)[None]):
        x_BCHW = preprocess(images)
        assert x_BCHW.shape == (1, 3, SIDE, SIDE)
        assert torch.equal(x_BCHW, expected)


@pytest.mark.parametrize(("crop_pct", "interpolation"), [(0.875, "bicubic"), (1.0, "bilinear")])
def test_input_equals_torchvision_transforms(crop_pct: float, interpolation: str) -> None:
    spec, pixels = spec_of(crop_pct, interpolation), torch.from_numpy(noise(14, 15)).permute(2, 0, 1)
    theirs = v2.Compose(
        [
            v2.Resize(round(SIDE / crop_pct), v2.InterpolationMode(interpolation), antialias=True),
            v2.CenterCrop(SIDE),
            v2.ToDtype(torch.float32, scale=True),
            v2.Normalize(spec.mean, spec.std),
        ]
    )
    np.testing.assert_allclose(Preprocess(spec)(pixels[None])[0], theirs(pixels), atol=2.1 / 255 / 0.2)


@settings(max_examples=40, deadline=None)
@given(st.integers(1, 70), st.integers(1, 70), st.integers(8, 48), st.sampled_from([0.875, 1.0, 1.15]))
def test_resize_and_crop_equals_torchvision(height: int, width: int, side: int, crop_pct: float) -> None:
    pixels = torch.randint(0, 256, (3, height, width), dtype=torch.uint8)
    resize = v2.Resize(round(side / crop_pct), v2.InterpolationMode.BICUBIC, antialias=True)
    theirs = v2.Compose([resize, v2.CenterCrop(side)])(pixels)
    ours = Preprocess(InputSpec(side, crop_pct, "bicubic", (0.5,) * 3, (0.5,) * 3)).resize_and_crop(pixels)
    assert (ours.int() - theirs.int()).abs().max() <= 1  # on some processors torchvision resizes floats


def test_large_images_get_the_same_pixels() -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (2000, 3000, 3), dtype=np.uint8)
    preprocess = Preprocess(InputSpec(224, 1.0, "bicubic", (0.0,) * 3, (1 / 255,) * 3))
    shrunk = torch.from_numpy(read_as_stored(Image.fromarray(pixels), 224)).permute(2, 0, 1)
    found = preprocess(torch.from_numpy(pixels)[None])[0].round()
    assert torch.equal(found, preprocess.resize_and_crop(shrunk).float())
