from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from saccade.data.decoding import DecodedImage
from saccade.data.store.stored_form import pixels_of, shrunk, stored_size


def picture(mode: str, size: tuple[int, int]) -> Image.Image:
    """Return smooth noise, similar to a photo."""
    num_bands = len(Image.new(mode, (1, 1)).getbands())
    coarse = np.random.default_rng(0).integers(0, 256, (9, 12, num_bands), dtype=np.uint8)
    bands = [Image.fromarray(coarse[:, :, band]).resize(size, Image.Resampling.BICUBIC) for band in range(num_bands)]
    return Image.merge(mode, bands) if num_bands > 1 else bands[0]


@pytest.mark.parametrize("mode", ["L", "RGB", "RGBX"])
@pytest.mark.parametrize("size", [(100, 75), (61, 203), (50, 49)])
def test_shrinking_agrees_with_pillow(mode: str, size: tuple[int, int]) -> None:
    image = picture(mode, size)
    pixels = shrunk(DecodedImage(image, size), 40)
    expected = pixels_of(image.resize(stored_size(*size, 40), Image.Resampling.BICUBIC))
    assert pixels.shape == expected.shape
    assert pixels.dtype == np.uint8
    assert pixels.flags.c_contiguous
    assert np.abs(pixels.astype(int) - expected).max() <= 1


@pytest.mark.parametrize("size", [(800, 600), (803, 611)])
def test_shrinking_a_large_image_in_two_steps_agrees_approximately(size: tuple[int, int]) -> None:
    image = picture("RGB", size)
    pixels = shrunk(DecodedImage(image, size), 40)
    expected = pixels_of(image.resize(stored_size(*size, 40), Image.Resampling.BICUBIC))
    assert np.abs(pixels.astype(int) - expected).mean() < 2


def test_a_small_image_keeps_its_pixels() -> None:
    image = picture("RGB", (30, 20))
    for given in (None, pixels_of(image)):
        assert np.array_equal(shrunk(DecodedImage(image, (30, 20)), 40, given), np.asarray(image))
